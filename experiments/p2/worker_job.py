"""A job of Problem 2, and which images each of its workers' learners takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PADDED = 32  # pixels; 28 with two zeros on each side, ResNet-50's least. Larger images are resized
EVALUATION_BATCH = 250  # images that a learner takes at once, at most
NO_CLASS = 255  # label of the padding in an evaluation's last batch


@dataclass(frozen=True)
class Job:
    """The settings that all workers of a job share."""

    network: str  # resnet50 | tiny, a net for tests
    image_size: int  # pixels that the network sees, PADDED or more
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

    An epoch is a permutation of all images, the same for all workers, cut into effective batches. The rest after the
    last whole batch is dropped; each epoch drops other images. Learner i takes the i-th part of every batch.
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
