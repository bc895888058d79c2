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
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from experiments import fashion
from experiments.watch import Watch

PADDED = 32  # pixels; 28 with two zeros on each side, ResNet-50's least
MOMENTUM = 0.9
EVALUATION_BATCH = 250  # images a learner takes at once, at most
NO_CLASS = 255  # label of what pads the last batch of an evaluation
QUANTILES = (0.1, 0.5, 0.9)
WARM_UP = 2  # executions before the first epoch, whose updates are taken back


@dataclass(frozen=True)
class Job:
    """What all workers of a job do."""

    network: str  # resnet50 | tiny, a net for tests
    device: str  # cpu | gpu
    strategy: str  # mirrored | multiworker
    all_reduce: str  # mirrored: default | nccl | hierarchical | one-device
    communication: str  # multiworker: auto | nccl | ring
    learners: int
    workers: int
    effective_batch: int
    epochs: int
    steps: int  # per epoch
    steps_per_execution: int
    threads: int  # per learner on CPUs
    precision: str  # float32 | mixed_bfloat16
    jit_compile: bool
    learning_rate: float
    evaluate: bool
    seed: int

    @property
    def local(self) -> int:
        """Learners of one worker."""
        return self.learners // self.workers

    @property
    def per_learner_batch(self) -> int:
        """Images that a learner takes per step."""
        return self.effective_batch // self.learners


def order(job: Job, samples: int, worker: int) -> np.ndarray:
    """Which training images the worker's learners take, (epochs · steps · local learners, per-learner batch).

    An epoch is a permutation of all images, the same for all workers, cut into effective batches; what is left over
    after the last whole one is dropped, another part in each epoch. Learner i takes the i-th part of every batch.
    """
    kept = job.steps * job.effective_batch
    epochs = [np.random.default_rng((job.seed, epoch)).permutation(samples)[:kept] for epoch in range(job.epochs)]
    batches = np.stack(epochs).reshape(-1, job.workers, job.local, job.per_learner_batch)
    return batches[:, worker].reshape(-1, job.per_learner_batch).astype(np.int32)


def shares(job: Job, images: int, worker: int) -> tuple[np.ndarray, np.ndarray]:
    """Test images for the worker's learners, (batches · local learners, batch), and which of them are not padding."""
    batch = min(EVALUATION_BATCH, -(-images // job.learners))
    batches = -(-images // (batch * job.learners))
    index = np.arange(batches * job.learners * batch).reshape(batches, job.workers, job.local, batch)[:, worker]
    return np.minimum(index, images - 1).reshape(-1, batch).astype(np.int32), (index < images).reshape(-1, batch)


def _strategy(job: Job) -> Any:
    """The tf.distribute strategy, after the devices are set up. Raises RuntimeError."""
    import tensorflow as tf

    if job.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(job.threads * job.local)
        # An all-reduce blocks a thread of each replica until all have come.
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
    """The Keras network: images (n, 32, 32, 3) in -1..1 to logits (n, 10)."""
    import keras

    shape = (PADDED, PADDED, 3)
    if job.network == "resnet50":
        return keras.applications.ResNet50(
            weights=None, input_shape=shape, classes=fashion.CLASSES, classifier_activation=None
        )
    layers = [keras.layers.Input(shape), keras.layers.Conv2D(4, 3, strides=4, activation="relu")]
    return keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(fashion.CLASSES)])


class Worker:
    """One process of a job: its strategy, its copy (or copies) of the network, its part of the data."""

    def __init__(self, job: Job, data: fashion.Fashion, rank: int, watch: Watch) -> None:
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import keras
        import tensorflow as tf

        self._tf, self.job, self.rank = tf, job, rank
        with watch:
            self._strategy = _strategy(job)
        if self._strategy.num_replicas_in_sync != job.learners:
            raise RuntimeError(f"the strategy has {self._strategy.num_replicas_in_sync} replicas, not {job.learners}")
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
        self._tests = len(data.test_images)
        index = order(job, len(data.train_images), rank)
        self._train_data = self._distributed(data.train_images, data.train_labels, index)
        self._warm_up_data = self._distributed(data.train_images, data.train_labels, index)
        shown, real = shares(job, self._tests, rank)
        labels = np.where(real, data.test_labels[shown], NO_CLASS)
        self._test_data = self._distributed(data.test_images, None, shown, labels)
        self._batches = len(shown) // job.local
        self._make_steps()

    def _distributed(
        self, images: np.ndarray, labels: np.ndarray | None, index: np.ndarray, given: np.ndarray | None = None
    ) -> Any:
        """The images of `index`, a row for each replica in turn, with their labels, or with those `given`."""
        tf = self._tf

        def rows(_: Any) -> Any:
            # Of indices, not images: those stay in memory once, as bytes, and are gathered when they are needed.
            chosen = given if given is not None else index
            return (
                tf.data.Dataset.from_tensor_slices((index, chosen))
                .map(lambda i, g: (tf.gather(images, i), g if labels is None else tf.gather(labels, i)))
                .prefetch(4)
            )

        return self._strategy.distribute_datasets_from_function(rows)

    def _make_steps(self) -> None:
        tf, job, net, optimizer, strategy = self._tf, self.job, self._net, self._optimizer, self._strategy

        def inputs(images: Any) -> Any:
            margin = (PADDED - fashion.SIDE) // 2
            grey = tf.pad(images, [[0, 0], [margin, margin], [margin, margin]])[..., None]
            return tf.repeat(tf.cast(grey, tf.float32) / 127.5 - 1, 3, axis=-1)

        @tf.function(jit_compile=job.jit_compile)
        def gradients(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = tf.cast(net(inputs(images), training=True), tf.float32)
                each = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(labels, tf.int32), logits)
                loss = tf.reduce_sum(each) / job.effective_batch
            return loss, tape.gradient(loss, self._weights)

        def update(images: Any, labels: Any) -> Any:
            loss, slopes = gradients(images, labels)
            optimizer.apply_gradients(zip(slopes, net.trainable_variables, strict=True))
            return loss

        def correct(images: Any, labels: Any) -> Any:
            guesses = tf.argmax(net(inputs(images), training=False), axis=-1, output_type=tf.int32)
            return tf.reduce_sum(tf.cast(guesses == tf.cast(labels, tf.int32), tf.int32))

        @tf.function
        def execute(iterator: Any) -> Any:
            for _ in range(job.steps_per_execution):
                loss = strategy.run(update, args=next(iterator))
            return loss

        @tf.function
        def evaluate(iterator: Any) -> Any:
            return strategy.run(correct, args=next(iterator))

        self._update, self._execute, self._evaluate = update, execute, evaluate

    def _local(self, values: Any) -> list[Any]:
        return [value.numpy() for value in self._strategy.experimental_local_results(values)]

    def warm_up(self) -> None:
        """Compile, and take the updates back."""
        kept = [self._local(variable)[0] for variable in self._variables]
        iterator = iter(self._warm_up_data)
        for _ in range(min(WARM_UP, self.job.epochs * self.job.steps // self.job.steps_per_execution)):
            self._local(self._execute(iterator))
        if self.job.evaluate:
            self._local(self._evaluate(iter(self._test_data)))
        with self._strategy.scope():
            for variable, value in zip(self._variables, kept, strict=True):
                variable.assign(value)
        self._iterator = iter(self._train_data)

    def fed(self) -> Callable[[], object]:
        """A function that does one execution with the next batches of the input pipeline, and waits for it."""
        return lambda: self._local(self._execute(self._iterator))

    def resident(self) -> Callable[[], object]:
        """A function that does one execution with a batch that stays on the devices, which no pipeline can beat."""
        batch = next(iter(self._warm_up_data))

        @self._tf.function
        def execute() -> Any:
            for _ in range(self.job.steps_per_execution):
                loss = self._strategy.run(self._update, args=batch)
            return loss

        return lambda: self._local(execute())

    def epoch(self) -> dict[str, Any]:
        """Train for an epoch and test; the worker's part of its results."""
        marks, losses = [time.perf_counter()], []
        for _ in range(self.job.steps // self.job.steps_per_execution):
            # A replica's loss is its part of the effective batch's mean; reading it waits for the devices.
            losses.append(sum(self._local(self._execute(self._iterator))) * self.job.workers)
            marks.append(time.perf_counter())
        steps = [(after - before) / self.job.steps_per_execution for before, after in pairwise(marks)]
        hits = 0
        if self.job.evaluate:
            iterator = iter(self._test_data)
            hits = sum(sum(self._local(self._evaluate(iterator))) for _ in range(self._batches))
        return {
            "seconds": marks[-1] - marks[0],
            "evaluation_seconds": time.perf_counter() - marks[-1],
            "loss": float(np.mean(losses)),
            "correct": int(hits),
            "steps": [float(q) for q in np.quantile(steps, QUANTILES)],
        }

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

    def everyone(self, mine: bytes) -> list[bytes]:
        """What all workers give, by rank; a collective, so all have to call it."""
        tf, job = self._tf, self.job
        if job.workers == 1:
            return [mine]
        # Padded to one length, in numbers that every communication implementation carries.
        room = 1 << 16
        block = np.zeros(room, np.float32)
        block[: len(mine)] = np.frombuffer(mine, np.uint8)

        @tf.function
        def gather() -> Any:
            def one() -> Any:
                return tf.distribute.get_replica_context().all_gather(tf.constant(block)[None], axis=0)

            return self._strategy.run(one)

        gathered = self._local(gather())[0][:: job.local]
        return [row.astype(np.uint8).tobytes().rstrip(b"\0") for row in gathered]


def train(
    job: Job, data: fashion.Fashion, rank: int, watch: Watch, started: float, say: Callable[[str], None]
) -> tuple[Worker, list[dict[str, Any]], float]:
    """Train to the end; the worker, its epochs, and the seconds from `started` to the end of the warm-up.

    `say` gets a line after each epoch. Raises RuntimeError when the loss is not finite.
    """
    worker = Worker(job, data, rank, watch)
    say("joined")
    worker.warm_up()
    setup = time.perf_counter() - started
    epochs = []
    for number in range(1, job.epochs + 1):
        row = worker.epoch()
        if not math.isfinite(row["loss"]):
            raise RuntimeError(f"the loss is not finite after epoch {number}")
        epochs.append(row)
        rate = job.steps * job.effective_batch / row["seconds"]
        say(f"epoch {number} of {job.epochs}: loss {row['loss']:.4f}, {rate:,.1f} images/s")
    return worker, epochs, setup
