"""A worker of Problem 2's jobs: ResNet-50 on Fashion-MNIST under a tf.distribute strategy.

A learner is a replica: a GPU, or a logical CPU of the worker's process. Each has a copy of the network and takes its
part of the effective batch; Keras' optimiser sums the gradients of all replicas with the strategy's all-reduce before
it updates [tf.distribute guide, custom training]. The loop is our own: it gives the time of every iteration, and one
form for both strategies.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.p2 import fashion_mnist
from experiments.p2.join_timeout import JoinTimeout
from experiments.p2.worker_job import NO_CLASS, PADDED, Job, order, shares

MOMENTUM = 0.9
WARM_UP = 2  # executions before the first epoch, whose updates are undone
BLOCK = 1 << 16  # bytes that a worker sends to the others at once
HEADER = 8  # bytes before its message, with the message's length


def _strategy(job: Job) -> Any:
    """The tf.distribute strategy, after the devices are set up. Raises RuntimeError."""
    import tensorflow as tf

    if job.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(job.threads * job.local)
        # An all-reduce blocks a thread of each replica until all have arrived.
        tf.config.threading.set_inter_op_parallelism_threads(max(2, job.local))
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * job.local)
    else:
        gpus = tf.config.list_physical_devices("GPU")
        if len(gpus) < job.local:
            raise RuntimeError(f"TensorFlow sees {len(gpus)} GPUs, the worker needs {job.local}")
        tf.config.set_visible_devices(gpus[: job.local], "GPU")
        for gpu in gpus[: job.local]:
            tf.config.experimental.set_memory_growth(gpu, True)
    if job.strategy == "multiworker":
        implementation = tf.distribute.experimental.CommunicationImplementation[job.communication.upper()]
        options = tf.distribute.experimental.CommunicationOptions(implementation=implementation)
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    devices = [f"{job.device.upper()}:{i}" for i in range(job.local)]
    operations = {
        "default": lambda: None,
        "nccl": tf.distribute.NcclAllReduce,
        "hierarchical": tf.distribute.HierarchicalCopyAllReduce,
        "one-device": tf.distribute.ReductionToOneDevice,
    }
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=operations[job.all_reduce]())


def _network(job: Job) -> Any:
    """The Keras network: images (n, size, size, 3) in -1..1 to logits (n, 10)."""
    import keras

    shape = (job.image_size, job.image_size, 3)
    if job.network == "resnet50":
        return keras.applications.ResNet50(
            weights=None, input_shape=shape, classes=fashion_mnist.CLASSES, classifier_activation=None
        )
    layers = [keras.layers.Input(shape), keras.layers.Conv2D(4, 3, strides=4, activation="relu")]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(fashion_mnist.CLASSES)])


def sized(images: Any, size: int) -> Any:
    """Images (n, 28, 28) as (n, size, size, 1): padded with zeros to 32 pixels, or else resized bilinearly."""
    import tensorflow as tf

    if size == PADDED:
        margin = (PADDED - fashion_mnist.SIDE) // 2
        return tf.pad(images, [[0, 0], [margin, margin], [margin, margin]])[..., None]
    # As floats: TensorFlow resizes bytes only on the CPU.
    return tf.image.resize(tf.cast(images[..., None], tf.float32), [size, size], method="bilinear")


class Laps:
    """The parts of a set-up: seconds by name, in order. The first lap starts at the clock's zero."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._before = clock, 0.0
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str) -> None:
        """End the lap of that name now."""
        now = self._clock()
        self.seconds[name], self._before = now - self._before, now

    def __str__(self) -> str:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())


class Worker:
    """One process of a job: its strategy, its copy (or copies) of the network, its part of the data.

    `clock` gives seconds since the job's start.
    """

    def __init__(
        self, job: Job, data: fashion_mnist.Fashion, rank: int, watch: JoinTimeout, clock: Callable[[], float]
    ) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        self.laps = Laps(clock)
        self.laps("start")
        import keras
        import tensorflow as tf

        self.laps("import")
        self._tf, self.job, self.rank, self._clock = tf, job, rank, clock
        with watch:
            self._strategy = _strategy(job)
        if self._strategy.num_replicas_in_sync != job.learners:
            raise RuntimeError(f"the strategy has {self._strategy.num_replicas_in_sync} replicas, not {job.learners}")
        self.laps("strategy")
        if job.precision == "mixed_bfloat16":
            keras.mixed_precision.set_global_policy(job.precision)
        keras.utils.set_random_seed(job.seed)
        with self._strategy.scope():
            self._net = _network(job)
            self._optimizer = keras.optimizers.SGD(job.learning_rate, momentum=MOMENTUM)
            self._optimizer.build(self._net.trainable_variables)
        self._variables = [v.value for v in [*self._net.variables, *self._optimizer.variables]]
        self._weights = [v.value for v in self._net.trainable_variables]
        self.parameters = sum(math.prod(weight.shape) for weight in self._weights)
        self.gradient_bytes = sum(math.prod(weight.shape) * weight.dtype.size for weight in self._weights)
        self.laps("network")
        self._executions = job.steps // job.steps_per_execution  # an epoch's
        self._warm_up = min(WARM_UP, job.epochs * self._executions)
        index = order(job, len(data.train_images), rank)
        first = self._warm_up * job.steps_per_execution * job.local
        self._train_data = self._distributed(data.train_images, index, data.train_labels[index], first)
        self._train = iter(self._train_data)
        if job.evaluate:
            index, real = shares(job, len(data.test_images), rank)
            labels = np.where(real, data.test_labels[index], NO_CLASS)
            self._test = iter(self._distributed(data.test_images, index, labels, job.local))
            self._batches = len(index) // job.local  # of each learner
        self.laps("pipeline")
        self._make_steps()

    def _distributed(self, images: np.ndarray, index: np.ndarray, labels: np.ndarray, first: int) -> Any:
        """The images of `index`, a row for each replica in turn, with their labels, without end.

        Its `first` rows come once more before them, for the warm-up. So one pipeline serves the warm-up and all epochs,
        and none starts while workers are timed. An endless pipeline needn't ask all workers for data before each step.
        """
        tf = self._tf
        with tf.device("CPU:0"):
            # In memory once, as bytes, and gathered when needed; a constant in the graph would be copied often.
            everything = tf.constant(images)

        def rows(_: Any) -> Any:
            chosen = tf.data.Dataset.from_tensor_slices((index, labels))
            endless = chosen.take(first).concatenate(chosen.repeat())
            return endless.map(lambda i, label: (tf.gather(everything, i), label)).prefetch(4)

        return self._strategy.distribute_datasets_from_function(rows)

    def _make_steps(self) -> None:
        tf, job, net, optimizer, strategy = self._tf, self.job, self._net, self._optimizer, self._strategy

        def inputs(grey: Any) -> Any:
            return tf.repeat(tf.cast(grey, tf.float32) / 127.5 - 1, 3, axis=-1)

        @tf.function(jit_compile=job.jit_compile)
        def gradients(grey: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = tf.cast(net(inputs(grey), training=True), tf.float32)
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits)
                loss = tf.reduce_sum(each) / job.effective_batch
            return loss, tape.gradient(loss, self._weights)

        def update(images: Any, labels: Any) -> Any:
            # Resized out here: it needs no gradient, and XLA may not support it.
            loss, slopes = gradients(sized(images, job.image_size), labels)
            optimizer.apply_gradients(zip(slopes, net.trainable_variables, strict=True))
            return loss

        def correct(images: Any, labels: Any) -> Any:
            guesses = tf.argmax(
                net(inputs(sized(images, job.image_size)), training=False), axis=-1, output_type=tf.int32
            )
            return tf.reduce_sum(tf.cast(guesses == tf.cast(labels, tf.int32), tf.int32))

        @tf.function
        def execute(iterator: Any) -> Any:
            for _ in range(job.steps_per_execution):
                loss = strategy.run(update, args=next(iterator))
            return loss

        @tf.function
        def evaluate(iterator: Any) -> Any:
            return strategy.run(correct, args=next(iterator))

        @tf.function
        def gather(block: Any) -> Any:
            def one(mine: Any) -> Any:
                return tf.distribute.get_replica_context().all_gather(mine[None], axis=0)

            return strategy.run(one, args=(block,))

        self._update, self._execute, self._evaluate, self._gather = update, execute, evaluate, gather

    def _local(self, values: Any) -> list[Any]:
        return [value.numpy() for value in self._strategy.experimental_local_results(values)]

    def warm_up(self) -> None:
        """Compile, undo the updates, and wait for all workers."""
        kept = [self._local(variable)[0] for variable in self._variables]
        self._execute.get_concrete_function(self._train)
        self.laps("trace")
        for number in range(self._warm_up):
            self._local(self._execute(self._train))
            self.laps("first execution" if number == 0 else "second execution")
        if self.job.evaluate:
            self._local(self._evaluate(self._test))
            self.laps("evaluation")
        for variable, value in zip(self._variables, kept, strict=True):
            for copy in self._strategy.experimental_local_results(variable):
                copy.assign(value)
        self.laps("restore")
        self.all_gather_bytes(b"")  # a barrier, so that no worker's first epoch includes waiting for another's set-up
        self.laps("barrier")

    def fed(self) -> Callable[[], object]:
        """A function that does one execution with the next batches of the input pipeline, and waits for it."""
        return lambda: self._local(self._execute(self._train))

    def resident(self) -> Callable[[], object]:
        """A function that does one execution with a batch that stays on the devices, which no pipeline can beat."""
        batch = next(iter(self._train_data))

        @self._tf.function
        def execute() -> Any:
            for _ in range(self.job.steps_per_execution):
                loss = self._strategy.run(self._update, args=batch)
            return loss

        return lambda: self._local(execute())

    def epoch(self) -> dict[str, Any]:
        """Train for an epoch and test; the worker's part of its results.

        `marks` are times before, between and after its executions, `losses` theirs; with evaluation, `tested` is the
        time after it and `correct` how many of this worker's test images were classified rightly.
        """
        marks, losses = [self._clock()], []
        for _ in range(self._executions):
            # A replica's loss is its part of the effective batch's mean; reading it waits for the devices.
            losses.append(float(sum(self._local(self._execute(self._train))) * self.job.workers))
            marks.append(self._clock())
        found: dict[str, Any] = {"marks": marks, "losses": losses}
        if self.job.evaluate:
            hits = sum(sum(self._local(self._evaluate(self._test))) for _ in range(self._batches))
            found |= {"correct": int(hits), "tested": self._clock()}
        return found

    def digest(self) -> str:
        """A hash of the weights, bit for bit. Raises RuntimeError when the worker's replicas differ."""
        digests = set()
        for replica in range(self.job.local):
            joined = hashlib.sha256()
            for weight in self._weights:
                copies = self._strategy.experimental_local_results(weight)
                joined.update(copies[replica].numpy().tobytes())
            digests.add(joined.hexdigest())
        if len(digests) > 1:
            raise RuntimeError("the replicas end with different weights, so their gradients were not summed")
        return digests.pop()

    def all_gather_bytes(self, mine: bytes) -> list[bytes]:
        """The bytes of all workers, in TensorFlow's order. All must call it, and none returns before all have.

        TensorFlow sorts workers by their name as text: of more than ten, worker 10 comes before worker 2.
        """
        if self.job.workers == 1:
            return [mine]
        blocks = self._all_gather_block(len(mine).to_bytes(HEADER, "big") + mine[: BLOCK - HEADER])
        lengths = [int.from_bytes(block[:HEADER], "big") for block in blocks]
        said = [block[HEADER:] for block in blocks]
        for start in range(BLOCK - HEADER, max(lengths), BLOCK):
            more = self._all_gather_block(mine[start : start + BLOCK])
            said = [before + after for before, after in zip(said, more, strict=True)]
        return [text[:length] for text, length in zip(said, lengths, strict=True)]

    def _all_gather_block(self, mine: bytes) -> list[bytes]:
        """The blocks of all workers, each filled up with zeros to BLOCK bytes."""
        # As numbers that every communication implementation supports.
        block = np.zeros(BLOCK, np.float32)
        block[: len(mine)] = np.frombuffer(mine, np.uint8)
        gathered = self._local(self._gather(self._tf.constant(block)))[0][:: self.job.local]
        return [row.astype(np.uint8).tobytes() for row in gathered]
