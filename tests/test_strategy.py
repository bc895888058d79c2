"""A worker's share of data, and that replicas and workers really train together. TensorFlow runs in
processes of its own: beside torch, in this one, it would crash."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from experiments import p2_strategy, store, strategy

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
TINY = strategy.Job(
    network="tiny",
    device="cpu",
    strategy="mirrored",
    all_reduce="default",
    communication="",
    learners=1,
    workers=1,
    effective_batch=64,
    epochs=2,
    steps=4,
    steps_per_execution=2,
    threads=1,
    precision="float32",
    jit_compile=False,
    learning_rate=0.05,
    evaluate=True,
    seed=3,
)
# One worker of a job: trains, and keeps its weights and what it counted.
SCRIPT = """
import json, sys, time
import numpy as np
from experiments import fashion, strategy
from experiments.watch import Watch
job, rank, folder = strategy.Job(**json.loads(sys.argv[1])), int(sys.argv[2]), sys.argv[3]
watch = Watch(100, [], "")
data = fashion.synthetic()
worker = strategy.Worker(job, data, rank, watch)
before = worker.digest()
worker.warm_up()
assert worker.digest() == before, "the warm-up's updates were not taken back"
epochs = [worker.epoch() for _ in range(job.epochs)]
said = [json.loads(text) for text in worker.everyone(json.dumps({"rank": rank, "digest": worker.digest()}).encode())]
np.savez(f"{folder}/{rank}.npz", *[w.numpy() for w in worker._weights])
json.dump({"epochs": epochs, "said": said}, open(f"{folder}/{rank}.json", "w"))
"""


@pytest.mark.parametrize(("learners", "workers"), [(1, 1), (4, 1), (4, 2), (4, 4)])
def test_every_example_of_an_epoch_is_taken_once(learners: int, workers: int) -> None:
    job = replace(TINY, learners=learners, workers=workers, effective_batch=8, steps=12, steps_per_execution=1)
    parts = [strategy.order(job, 100, worker) for worker in range(workers)]
    assert all(part.shape == (2 * 12 * job.local, job.per_learner_batch) for part in parts)
    # By epoch, step and learner, the workers side by side.
    joined = np.stack([part.reshape(2, 12, -1) for part in parts], axis=2)
    for epoch in joined:
        assert len(set(epoch.ravel())) == 96
    assert not np.array_equal(np.sort(joined[0].ravel()), np.sort(joined[1].ravel()))  # others are left out
    alone = strategy.order(replace(job, learners=1, workers=1), 100, 0)
    assert np.array_equal(joined.reshape(alone.shape), alone)  # the same effective batches for any number of learners


@pytest.mark.parametrize(("learners", "workers", "images"), [(1, 1, 400), (2, 1, 401), (4, 4, 1000), (8, 2, 10_000)])
def test_every_test_image_is_tested_once(learners: int, workers: int, images: int) -> None:
    job = replace(TINY, learners=learners, workers=workers)
    seen: list[int] = []
    for worker in range(workers):
        index, real = strategy.shares(job, images, worker)
        assert index.shape == real.shape and index.max() < images and index.shape[1] <= strategy.EVALUATION_BATCH
        seen += list(index[real])
    assert sorted(seen) == list(range(images))


def trained(job: strategy.Job, folder: Path) -> tuple[list[list[np.ndarray]], list[dict]]:
    """Each worker's weights, and what it counted."""
    folder.mkdir()
    addresses, started = p2_strategy.free_addresses(job.workers), []
    for rank in range(job.workers):
        environment = os.environ | {"PYTHONPATH": str(store.ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
        if job.workers > 1:
            task = {"type": "worker", "index": rank}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        argv = [sys.executable, "-c", SCRIPT, json.dumps(asdict(job)), str(rank), str(folder)]
        started.append(subprocess.Popen(argv, env=environment, stderr=subprocess.PIPE, text=True))
    try:
        for process in started:
            said = process.communicate(timeout=120)[1]
            assert process.returncode == 0, said
    finally:
        for process in started:
            process.kill()
    weights = [list(np.load(folder / f"{rank}.npz").values()) for rank in range(job.workers)]
    return weights, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(job.workers)]


@needs_tensorflow
def test_learners_train_as_one_would_with_the_whole_batch(tmp_path: Path) -> None:
    (alone,), (one,) = trained(TINY, tmp_path / "alone")
    (mirrored,), (two,) = trained(replace(TINY, learners=2), tmp_path / "mirrored")
    job = replace(TINY, strategy="multiworker", all_reduce="", communication="ring", learners=2, workers=2)
    workers, reports = trained(job, tmp_path / "workers")
    for first, second in zip(*workers, strict=True):
        assert np.array_equal(first, second)
    for together in (mirrored, workers[0]):
        for ours, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
    # What each worker counts adds up to what one counts, and each knows what all others say.
    for epoch in range(2):
        counted = [report["epochs"][epoch] for report in reports]
        assert sum(part["correct"] for part in counted) == pytest.approx(one["epochs"][epoch]["correct"], abs=2)
        mean = np.mean([part["loss"] for part in counted])
        assert mean == pytest.approx(one["epochs"][epoch]["loss"], rel=1e-3)
        assert two["epochs"][epoch]["loss"] == pytest.approx(one["epochs"][epoch]["loss"], rel=1e-3)
    assert [said["rank"] for said in reports[1]["said"]] == [0, 1]
    assert len({said["digest"] for said in reports[0]["said"]}) == 1
    # On half of the batches, training ends elsewhere, so the comparison can fail.
    (half,), _ = trained(replace(TINY, effective_batch=32), tmp_path / "half")
    assert not all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(half, alone, strict=True))
