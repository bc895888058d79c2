"""A Horovod learner: what one of N processes does in Problem 1's jobs, in TensorFlow or in PyTorch.

Every learner has a copy of the network and its own synthetic images, made once. A step computes gradients of its own
batch, averages them over all learners with an all-reduce [Sergeev & Del Balso 2018], and updates. With `allreduce` off
nothing is averaged: the same learners side by side, independent, which is the upper bound that shared hardware sets.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

CLASSES = 1000
LEARNING_RATE, MOMENTUM = 0.0125, 0.9  # per learner and 32 images, after Goyal et al. 2017 (0.1 for 256)


@dataclass(frozen=True)
class Job:
    """What all learners of a job do. Images are `image_size` pixels wide and high."""

    framework: str  # tensorflow | torch
    network: str  # resnet50 | tiny, a net for tests
    device: str  # cpu | gpu
    precision: str  # float32 | mixed
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


class Framework(Protocol):
    """What `train` needs of a framework, set up for one learner."""

    model: str  # where the network comes from
    rank: int
    learners: int

    def step(self) -> float:
        """Train on one batch and return its loss when the device has finished."""

    def gather(self, block: np.ndarray) -> np.ndarray:
        """All learners' one-dimensional blocks in the order of their ranks; waits for all of them."""

    def weights(self) -> list[np.ndarray]:
        """The trained parameters."""


class TensorFlow:
    """Keras 3's ResNet50 with a loop of its own: `fit` with Horovod's optimiser averages nothing in Keras 3."""

    def __init__(self, job: Job) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        os.environ["KERAS_BACKEND"] = "tensorflow"
        import horovod.tensorflow as hvd
        import keras
        import tensorflow as tf

        self._hvd, self._tf = hvd, tf
        hvd.init()
        self.rank, self.learners = hvd.rank(), hvd.size()
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

        @tf.function
        def step() -> Any:
            with tf.GradientTape() as tape:
                loss = loss_of(labels, tf.cast(net(images, training=True), tf.float32))
            if job.allreduce:
                tape = hvd.DistributedGradientTape(tape)
            gradients = tape.gradient(loss, self._weights)
            optimizer.apply_gradients(zip(gradients, net.trainable_variables, strict=True))
            return loss

        self._step = step
        hvd.broadcast_variables([v.value for v in [*net.variables, *optimizer.variables]], root_rank=0)

    def step(self) -> float:
        """See Framework."""
        return float(self._step())

    def gather(self, block: np.ndarray) -> np.ndarray:
        """See Framework."""
        with self._tf.device("/CPU:0"):
            return self._hvd.allgather(self._tf.constant(block)).numpy()

    def weights(self) -> list[np.ndarray]:
        """See Framework."""
        return [weight.numpy() for weight in self._weights]


class Torch:
    """torchvision's ResNet-50, or experiments/resnet50.py where torchvision can't be imported."""

    def __init__(self, job: Job) -> None:
        import horovod.torch as hvd
        import torch

        self._hvd, self._torch = hvd, torch
        torch.set_num_threads(job.threads)
        hvd.init()
        self.rank, self.learners = hvd.rank(), hvd.size()
        torch.manual_seed(job.seed)
        if job.device == "gpu" and not torch.cuda.is_available():
            raise RuntimeError("PyTorch sees no GPU")
        self._device = torch.device("cuda" if job.device == "gpu" else "cpu")
        torch.backends.cudnn.benchmark = True
        net = self._network(job.network)
        hvd.broadcast_parameters(net.state_dict(), root_rank=0)
        self._net = net = net.to(self._device)
        generator = torch.Generator().manual_seed(job.seed + self.rank)
        shape = (job.batch_size, 3, job.image_size, job.image_size)
        self._images = torch.randn(shape, generator=generator).to(self._device, memory_format=torch.channels_last)
        self._labels = torch.randint(CLASSES, (job.batch_size,), generator=generator).to(self._device)
        for parameter in net.parameters():
            # With channels-last images autograd makes channels-last gradients, which Horovod refuses; but it adds them
            # into those that are there already.
            parameter.grad = torch.zeros(parameter.shape, device=self._device)
        self._gradients = [parameter.grad for parameter in net.parameters()]
        rate = job.learning_rate(self.learners)
        self._optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM)
        if job.allreduce:
            self._optimizer = hvd.DistributedOptimizer(self._optimizer, named_parameters=net.named_parameters())
        self._mixed = job.precision == "mixed"

    def _network(self, network: str) -> Any:
        nn = self._torch.nn
        if network == "tiny":
            self.model = "tiny"
            return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES))
        try:
            import torchvision
        except (ImportError, RuntimeError):  # RuntimeError: built for another torch
            from experiments.resnet50 import ResNet50

            self.model = "experiments/resnet50.py"
            return ResNet50(CLASSES)
        self.model = f"torchvision {torchvision.__version__} resnet50"
        return torchvision.models.resnet50()

    def step(self) -> float:
        """See Framework."""
        torch = self._torch
        torch._foreach_zero_(self._gradients)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._mixed):
            loss = torch.nn.functional.cross_entropy(self._net(self._images), self._labels)
        loss.backward()
        self._optimizer.step()
        if self._device.type == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def gather(self, block: np.ndarray) -> np.ndarray:
        """See Framework."""
        return self._hvd.allgather(self._torch.from_numpy(block.copy())).numpy()

    def weights(self) -> list[np.ndarray]:
        """See Framework."""
        return [parameter.detach().cpu().numpy() for parameter in self._net.parameters()]


FRAMEWORKS: dict[str, Callable[[Job], Framework]] = {"tensorflow": TensorFlow, "torch": Torch}


def digest(weights: list[np.ndarray]) -> str:
    """A hash of the weights, bit for bit."""
    joined = hashlib.sha256()
    for weight in weights:
        joined.update(np.ascontiguousarray(weight).tobytes())
    return joined.hexdigest()


def _all_reports(learner: Framework, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Every learner's report, by rank: one line of JSON each, as bytes in one all-gather."""
    line = json.dumps(report).encode() + b"\n"
    gathered = learner.gather(np.frombuffer(line, np.uint8))
    return [json.loads(text) for text in gathered.tobytes().decode().splitlines()]


def train(job: Job, started: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Run the job as one of its learners; the reports of all, by rank.

    A report holds `step_seconds` and `losses`, (epochs, steps) each, `setup_seconds` (from `started`, on
    time.perf_counter's clock, to the end of the warm-up), `digest` of the weights and facts about the learner.
    All learners start an epoch together. `say` gets a line after each epoch. Raises RuntimeError when the loss is not
    finite, or when learners that averaged their gradients end with different weights.
    """
    learner = FRAMEWORKS[job.framework](job)
    for _ in range(job.warm_up):
        learner.step()
    setup = time.perf_counter() - started
    seconds: list[list[float]] = []
    losses: list[list[float]] = []
    epoch_seconds: list[float] = []
    for epoch in range(1, job.epochs + 1):
        learner.gather(np.zeros(1, np.uint8))  # a barrier
        marks = [time.perf_counter()]
        losses.append([])
        for _ in range(job.steps_per_epoch):
            losses[-1].append(learner.step())
            marks.append(time.perf_counter())
        seconds.append([after - before for before, after in pairwise(marks)])
        epoch_seconds.append(marks[-1] - marks[0])
        if not math.isfinite(sum(losses[-1])):
            raise RuntimeError(f"the loss is not finite after epoch {epoch}")
        rate = job.batch_size * job.steps_per_epoch / epoch_seconds[-1]
        say(f"epoch {epoch} of {job.epochs}: loss {losses[-1][-1]:.4f}, {rate:,.2f} images/s a learner")
    weights = learner.weights()
    reports = _all_reports(
        learner,
        {
            "rank": learner.rank,
            "host": int(os.environ.get("HOROVOD_CROSS_RANK", 0)),
            "cores": sorted(os.sched_getaffinity(0)),
            "model": learner.model,
            "parameters": sum(weight.size for weight in weights),
            "gradient_bytes": sum(weight.nbytes for weight in weights),
            "setup_seconds": setup,
            "step_seconds": seconds,
            "epoch_seconds": epoch_seconds,
            "losses": losses,
            "digest": digest(weights),
        },
    )
    if job.allreduce and len({report["digest"] for report in reports}) > 1:
        raise RuntimeError("the learners end with different weights, so their gradients were not averaged")
    return reports
