"""One of two learners that check an installed Horovod; tools/build_horovod.py launches them.

Each learner draws its own data and trains a linear model, averaging gradients. Exits non-zero unless the all-reduce is
right, and both end with the same weights, different from those that the learner reaches alone.
"""

from __future__ import annotations

import sys

import numpy as np

STEPS, RATE = 5, 0.1


def tensorflow(averaged: bool) -> np.ndarray:
    """The weights after training (2 numbers)."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    generator = np.random.default_rng(hvd.rank())
    inputs, targets = (tf.constant(generator.normal(size=(8, n)), tf.float32) for n in (2, 1))
    weights = tf.Variable(tf.ones((2, 1)))
    for _ in range(STEPS):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((inputs @ weights - targets) ** 2)
        if averaged:
            tape = hvd.DistributedGradientTape(tape)
        weights.assign_sub(RATE * tape.gradient(loss, [weights])[0])
    return weights.numpy().ravel()


def torch(averaged: bool) -> np.ndarray:
    """The weights after training (2 numbers)."""
    import horovod.torch as hvd
    import torch

    generator = np.random.default_rng(hvd.rank())
    inputs, targets = (torch.tensor(generator.normal(size=(8, n)), dtype=torch.float32) for n in (2, 1))
    weights = torch.nn.Parameter(torch.ones(2, 1))
    optimizer = torch.optim.SGD([weights], lr=RATE)
    if averaged:
        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=[("weights", weights)])
    for _ in range(STEPS):
        optimizer.zero_grad()
        ((inputs @ weights - targets) ** 2).mean().backward()
        optimizer.step()
    return weights.detach().numpy().ravel()


def main(framework: str) -> None:
    """Raises SystemExit with what is wrong."""
    if framework == "tensorflow":
        import horovod.tensorflow as hvd
        import tensorflow as tf

        tensor, train = tf.constant, tensorflow
    else:
        import horovod.torch as hvd
        import torch as pytorch

        tensor, train = pytorch.tensor, torch
    hvd.init()
    if hvd.size() != 2:
        sys.exit(f"{framework}: {hvd.size()} learners instead of 2")
    total = np.asarray(hvd.allreduce(tensor(np.array([1.0, 10.0]) * (1 + hvd.rank())), op=hvd.Sum))
    if not np.array_equal(total, [3.0, 30.0]):
        sys.exit(f"{framework}: the all-reduce of [1, 10] and [2, 20] gave {total}")
    both = np.asarray(hvd.allgather(tensor(train(True)[None])))
    if not np.array_equal(both[0], both[1]):
        sys.exit(f"{framework}: the learners end with different weights, {both}")
    if np.allclose(both[0], train(False)):
        sys.exit(f"{framework}: training together ends where learner {hvd.rank()} ends alone, so nothing was averaged")
    print(f"{framework}: learner {hvd.rank()} of 2, all-reduce and training correct", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
