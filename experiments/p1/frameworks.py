"""The network, data and training step of a learner of Problem 1's jobs, in TensorFlow or in PyTorch.

The backward pass of a compiled network is one piece that yields all gradients at its end, so no all-reduce overlaps it.
Compilation happens in the first step, hence in the warm-up if there is one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

CLASSES = 1000
LEARNING_RATE, MOMENTUM = 0.0125, 0.9  # per learner and 32 images, after Goyal et al. 2017 (0.1 for 256)


@dataclass(frozen=True)
class Job:
    """The settings that all learners of a job share. Images are `image_size` pixels wide and high."""

    framework: str  # tensorflow | torch
    network: str  # resnet50 | tiny, a net for tests
    device: str  # cpu | gpu
    precision: str  # float32 | mixed
    compiled: bool  # by torch.compile, or by XLA
    allreduce: bool
    batch_size: int
    image_size: int
    epochs: int
    steps_per_epoch: int
    warm_up: int  # steps before the first epoch
    threads: int
    seed: int

    def learning_rate(self, learners: int) -> float:
        """Proportional to the effective batch, as Horovod's authors advise."""
        return LEARNING_RATE * self.batch_size / 32 * (learners if self.allreduce else 1)


class Step(NamedTuple):
    """The outcome of a step."""

    loss: float
    wait_seconds: float | None  # from the end of the backward pass until all gradients were averaged; None: unknown


class Framework(Protocol):
    """The interface that `train` needs, set up for one learner."""

    model: str  # where the network comes from
    rank: int
    learners: int

    def step(self) -> Step:
        """Train on one batch; returns when the device has finished."""

    def gather(self, block: np.ndarray) -> np.ndarray:
        """All learners' one-dimensional blocks in the order of their ranks; waits for all of them."""

    def weights(self) -> list[np.ndarray]:
        """The trained parameters."""


def check_size(size: int, planned: int) -> None:
    """Raise RuntimeError unless Horovod joined as many learners as the job was started with."""
    if size != planned:
        raise RuntimeError(f"the job was started with {planned} learners, Horovod joined {size}")


class TensorFlow:
    """Keras 3's ResNet50 with a loop of its own: `fit` with Horovod's optimiser averages nothing in Keras 3.

    Its graph doesn't reveal how long it waits for the all-reduce.
    """

    def __init__(self, job: Job, learners: int) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import horovod.tensorflow as hvd
        import keras
        import tensorflow as tf

        self._hvd, self._tf = hvd, tf
        hvd.init()
        self.rank, self.learners = hvd.rank(), hvd.size()
        check_size(self.learners, learners)
        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1 if job.device == "cpu" else 2)
        gpus = tf.config.list_physical_devices("GPU")
        if job.device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        elif not gpus:
            raise RuntimeError("TensorFlow sees no GPU")
        for gpu in gpus if job.device == "gpu" else []:
            tf.config.experimental.set_memory_growth(gpu, True)
        if job.precision == "mixed":
            keras.mixed_precision.set_global_policy("mixed_bfloat16")
        keras.utils.set_random_seed(job.seed)
        shape = (job.image_size, job.image_size, 3)
        if job.network == "resnet50":
            self.model = f"keras {keras.__version__} ResNet50"
            net = keras.applications.ResNet50(
                weights=None, input_shape=shape, classes=CLASSES, classifier_activation=None
            )
        else:
            self.model = "tiny"
            layers = [keras.layers.Input(shape), keras.layers.Conv2D(4, 3), keras.layers.GlobalAveragePooling2D()]
            net = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
        self._weights = [variable.value for variable in net.trainable_variables]
        optimizer = keras.optimizers.SGD(job.learning_rate(self.learners), momentum=MOMENTUM)
        optimizer.build(net.trainable_variables)
        generator = tf.random.Generator.from_seed(job.seed + self.rank)
        images = generator.normal((job.batch_size, *shape))
        labels = generator.uniform((job.batch_size,), maxval=CLASSES, dtype=tf.int32)
        loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def forward() -> Any:
            return loss_of(labels, tf.cast(net(images, training=True), tf.float32))

        @tf.function(jit_compile=True)
        def compiled() -> Any:
            with tf.GradientTape() as tape:
                loss = forward()
            return loss, tape.gradient(loss, self._weights)

        @tf.function
        def step() -> Any:
            if job.compiled:  # XLA can't compile the all-reduce, which is therefore outside
                loss, gradients = compiled()
                gradients = [hvd.allreduce(gradient) for gradient in gradients] if job.allreduce else gradients
            else:
                with tf.GradientTape() as tape:
                    loss = forward()
                if job.allreduce:
                    tape = hvd.DistributedGradientTape(tape)
                gradients = tape.gradient(loss, self._weights)
            optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
            return loss

        self._step = step
        hvd.broadcast_variables([v.value for v in [*net.variables, *optimizer.variables]], root_rank=0)

    def step(self) -> Step:
        """See Framework."""
        return Step(float(self._step()), None)

    def gather(self, block: np.ndarray) -> np.ndarray:
        """See Framework."""
        with self._tf.device("/CPU:0"):
            return self._hvd.allgather(self._tf.constant(block)).numpy()

    def weights(self) -> list[np.ndarray]:
        """See Framework."""
        return [weight.numpy() for weight in self._weights]


class Torch:
    """torchvision's ResNet-50, or experiments/p1/torch_resnet50.py where torchvision can't be imported.

    Its wait lasts from the end of the backward pass to the end of Horovod's synchronize(), by CUDA events on a GPU. It
    excludes the part of the all-reduce that overlaps the backward pass. Without all-reduce the same interval is
    measured, around nothing.
    """

    def __init__(self, job: Job, learners: int) -> None:
        import horovod.torch as hvd
        import torch

        self._hvd, self._torch = hvd, torch
        torch.set_num_threads(job.threads)
        hvd.init()
        self.rank, self.learners = hvd.rank(), hvd.size()
        check_size(self.learners, learners)
        torch.manual_seed(job.seed)
        if job.device == "gpu" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        self._device = torch.device("cuda" if job.device == "gpu" else "cpu")
        torch.backends.cudnn.benchmark = True
        net = self._network(job.network)
        hvd.broadcast_parameters(net.state_dict(), root_rank=0)
        self._net = net = net.to(self._device)
        self._forward = torch.compile(net) if job.compiled else net
        generator = torch.Generator().manual_seed(job.seed + self.rank)
        shape = (job.batch_size, 3, job.image_size, job.image_size)
        self._images = torch.randn(shape, generator=generator).to(self._device, memory_format=torch.channels_last)
        self._labels = torch.randint(CLASSES, (job.batch_size,), generator=generator).to(self._device)
        for parameter in net.parameters():
            # For channels-last images autograd makes channels-last gradients, which Horovod refuses. But it adds into
            # gradients that exist already, and keeps their layout.
            parameter.grad = torch.zeros(parameter.shape, device=self._device)
        self._gradients = [parameter.grad for parameter in net.parameters()]
        rate = job.learning_rate(self.learners)
        self._optimizer: Any = torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM)
        if job.allreduce:
            self._optimizer = hvd.DistributedOptimizer(self._optimizer, named_parameters=net.named_parameters())
        self._allreduce, self._mixed = job.allreduce, job.precision == "mixed"
        self._events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if job.device == "gpu" else []

    def _network(self, network: str) -> Any:
        nn = self._torch.nn
        if network == "tiny":
            self.model = "tiny"
            return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
        try:
            import torchvision
        except (ImportError, RuntimeError):  # RuntimeError: built for another torch
            from experiments.p1.torch_resnet50 import ResNet50

            self.model = "experiments/p1/torch_resnet50.py"
            return ResNet50(CLASSES)
        self.model = f"torchvision {torchvision.__version__} resnet50"
        return torchvision.models.resnet50()

    def step(self) -> Step:
        """See Framework."""
        torch = self._torch
        torch._foreach_zero_(self._gradients)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed):
            loss = torch.nn.functional.cross_entropy(self._forward(self._images), self._labels)
        loss.backward()
        before = self._mark(0)
        if self._allreduce:
            self._optimizer.synchronize()
        after = self._mark(1)
        with self._optimizer.skip_synchronize() if self._allreduce else nullcontext():
            self._optimizer.step()
        if self._events:
            torch.cuda.synchronize()
            return Step(loss.item(), self._events[0].elapsed_time(self._events[1]) / 1000)
        return Step(loss.item(), after - before)

    def _mark(self, number: int) -> float:
        """The time; on a GPU, also records an event behind all work launched so far."""
        if self._events:
            self._events[number].record()
        return time.perf_counter()

    def gather(self, block: np.ndarray) -> np.ndarray:
        """See Framework."""
        return self._hvd.allgather(self._torch.from_numpy(block.copy())).numpy()

    def weights(self) -> list[np.ndarray]:
        """See Framework."""
        return [parameter.detach().cpu().numpy() for parameter in self._net.parameters()]


FRAMEWORKS: dict[str, Callable[[Job, int], Framework]] = {"tensorflow": TensorFlow, "torch": Torch}
