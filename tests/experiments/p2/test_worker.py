"""A worker's share of data, and that replicas and workers really train together. TensorFlow runs in
processes of its own: beside torch, in this one, it would crash."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from experiments.p2 import placement, worker_job
from experiments.store.files import ROOT

needs_tensorflow = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
TINY = worker_job.Job(
    network="tiny",
    image_size=32,
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
# Jobs one after another, each of whose workers is a process that trains, and keeps its weights and what it counted; a
# lone worker trains several jobs in turn. All are forked from one process, as loading TensorFlow takes the most time;
# none of it has begun to run by then. The first job's worker keeps some images' other sizes as well.
SCRIPT = """
import json, multiprocessing, os, sys, time
import keras, numpy as np, tensorflow
from experiments.p2 import fashion_mnist
from experiments.p2.join_timeout import JoinTimeout
from experiments.p2.worker import Worker, sized
from experiments.p2.worker_job import Job
data = fashion_mnist.synthetic()
def train(job, rank):
    began = time.perf_counter()
    worker = Worker(job, data, rank, JoinTimeout(100, [], ""), lambda: time.perf_counter() - began)
    before = worker.digest()
    laps = worker.laps
    def late(lap):  # the last of several workers is late for the barrier
        if lap == "restore" and rank == job.workers - 1 > 0:
            time.sleep(1.5)
        laps(lap)
    worker.laps = late
    worker.warm_up()
    assert worker.digest() == before, "the warm-up's updates were not taken back"
    graph = worker._execute.get_concrete_function(worker._train).graph.as_graph_def()
    compiled = any(function.attr["_XlaMustCompile"].b for function in graph.library.function)
    epochs = [worker.epoch() for _ in range(job.epochs)]
    mine = json.dumps({"rank": rank, "digest": worker.digest(), "more": "x" * 70_000 * rank}).encode()
    said = [json.loads(text) for text in worker.all_gather_bytes(mine)]
    weights = [w.numpy() for w in worker._weights]
    return weights, {"epochs": epochs, "said": said, "compiled": compiled, "barrier": laps.seconds["barrier"]}
def work(jobs, rank, folder, settings):
    os.environ.update(settings)
    for number, job in enumerate(jobs):
        weights, report = train(Job(**job), rank)
        np.savez(f"{folder}/{number}-{rank}.npz", *weights)
        json.dump(report, open(f"{folder}/{number}-{rank}.json", "w"))
    if folder.endswith("/0"):
        images = data.train_images[:2]
        np.savez(f"{folder}/sizes.npz", images=images, padded=sized(images, 32), doubled=sized(images, 56))
fork = multiprocessing.get_context("fork")
for workers in json.loads(sys.argv[1]):
    started = [fork.Process(target=work, args=arguments) for arguments in workers]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0, process.exitcode
"""


@pytest.mark.parametrize(("learners", "workers"), [(1, 1), (4, 1), (4, 2), (4, 4)])
def test_every_example_of_an_epoch_is_taken_once(learners: int, workers: int) -> None:
    job = replace(TINY, learners=learners, workers=workers, effective_batch=8, steps=12, steps_per_execution=1)
    parts = [worker_job.order(job, 100, worker) for worker in range(workers)]
    assert all(part.shape == (2 * 12 * job.local, job.per_learner_batch) for part in parts)
    # By epoch, step and learner, the workers side by side.
    joined = np.stack([part.reshape(2, 12, -1) for part in parts], axis=2)
    for epoch in joined:
        assert len(set(epoch.ravel())) == 96
    assert not np.array_equal(np.sort(joined[0].ravel()), np.sort(joined[1].ravel()))  # others are left out
    alone = worker_job.order(replace(job, learners=1, workers=1), 100, 0)
    assert np.array_equal(joined.reshape(alone.shape), alone)  # the same effective batches for any number of learners


@pytest.mark.parametrize(("learners", "workers", "images"), [(1, 1, 400), (2, 1, 401), (4, 4, 1000), (8, 2, 10_000)])
def test_every_test_image_is_tested_once(learners: int, workers: int, images: int) -> None:
    job = replace(TINY, learners=learners, workers=workers)
    seen: list[int] = []
    for worker in range(workers):
        index, real = worker_job.shares(job, images, worker)
        assert index.shape == real.shape and index.max() < images and index.shape[1] <= worker_job.EVALUATION_BATCH
        seen += list(index[real])
    assert sorted(seen) == list(range(images))


def train(folder: Path, *turns: Sequence[worker_job.Job]) -> None:
    """Train all, turn by turn; see `kept`. A turn is one job of several workers, or jobs that one worker trains."""
    tasks = []
    for turn, jobs in enumerate(turns):
        (folder / str(turn)).mkdir()
        addresses, workers = placement.free_addresses(jobs[0].workers), []
        for rank in range(jobs[0].workers):
            settings = {"TF_CONFIG": placement.as_tf_config(addresses, rank)} if jobs[0].workers > 1 else {}
            workers.append(([asdict(job) for job in jobs], rank, str(folder / str(turn)), settings))
        tasks.append(workers)
    # TensorFlow removes its generated files at exit, which a forked process skips: they go to `folder`.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2", "TMPDIR": str(folder)}
    command = [sys.executable, "-c", SCRIPT, json.dumps(tasks)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        said = process.communicate(timeout=240)[1]
        assert process.returncode == 0, said
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def kept(folder: Path, turn: int, number: int = 0, workers: int = 1) -> tuple[list[list[np.ndarray]], list[dict]]:
    """What the workers of a turn's job of that number kept: each one's weights, and what it counted."""
    files = [folder / f"{turn}/{number}-{rank}" for rank in range(workers)]
    weights = [list(np.load(file.with_suffix(".npz")).values()) for file in files]
    return weights, [json.loads(file.with_suffix(".json").read_text()) for file in files]


def two_workers(job: worker_job.Job) -> worker_job.Job:
    return replace(job, strategy="multiworker", all_reduce="", communication="ring", learners=2, workers=2)


@pytest.fixture(scope="module")
def of_learners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was kept of TINY, and of TINY with half of its batch; of two replicas; of two workers. To be read only."""
    folder = tmp_path_factory.mktemp("learners")
    half = replace(TINY, effective_batch=32)
    train(folder, [TINY, half], [replace(TINY, learners=2)], [two_workers(TINY)])
    return folder


@needs_tensorflow
def test_learners_train_as_one_would_with_the_whole_batch(of_learners: Path) -> None:
    (alone,), (one,) = kept(of_learners, 0)
    (mirrored,), (two,) = kept(of_learners, 1)
    workers, reports = kept(of_learners, 2, workers=2)
    for first, second in zip(*workers, strict=True):
        assert np.array_equal(first, second)
    for together in (mirrored, workers[0]):
        for ours, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
    # What each worker counts adds up to what one counts, and each knows what all others say.
    for epoch in range(2):
        counted = [report["epochs"][epoch] for report in reports]
        assert sum(part["correct"] for part in counted) == pytest.approx(one["epochs"][epoch]["correct"], abs=2)
        mean = np.mean([part["losses"] for part in counted], axis=0)
        assert mean == pytest.approx(one["epochs"][epoch]["losses"], rel=1e-3)
        assert two["epochs"][epoch]["losses"] == pytest.approx(one["epochs"][epoch]["losses"], rel=1e-3)
        for part in counted:  # two executions of two steps, then the test
            times = [*part["marks"], part["tested"]]
            assert len(times) == 4 and times == sorted(times)
    assert [said["rank"] for said in reports[1]["said"]] == [0, 1]
    assert [len(said["more"]) for said in reports[0]["said"]] == [0, 70_000]  # more than one block
    # Worker 0 waits for the late one before its first epoch.
    assert reports[0]["barrier"] > 1
    assert len({said["digest"] for said in reports[0]["said"]}) == 1
    # On half of the batches, training ends elsewhere, so the comparison can fail.
    (half,), _ = kept(of_learners, 0, number=1)
    assert not all(np.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(half, alone, strict=True))


@pytest.mark.slow
@needs_tensorflow
def test_compiled_learners_train_as_one_would_with_the_whole_batch(tmp_path: Path) -> None:
    compiled = replace(TINY, jit_compile=True, image_size=40)
    jobs = [compiled, replace(compiled, learners=2), two_workers(compiled), replace(compiled, jit_compile=False)]
    train(tmp_path, *([job] for job in jobs))
    (alone,), (one,) = kept(tmp_path, 0)
    (mirrored,), (two,) = kept(tmp_path, 1)
    workers, reports = kept(tmp_path, 2, workers=2)
    (plain,), (not_compiled,) = kept(tmp_path, 3)
    assert all(report["compiled"] for report in [one, two, *reports])
    for first, second in zip(*workers, strict=True):
        assert np.array_equal(first, second)
    assert not not_compiled["compiled"]
    for together in (mirrored, workers[0], plain):
        for ours, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)
    # 40 pixels make 10x10 places of 4 filters.
    assert sum(weight.size for weight in alone) == (3 * 9 + 1) * 4 + (10 * 10 * 4 + 1) * 10


@needs_tensorflow
def test_images_are_padded_or_resized_bilinearly(of_learners: Path) -> None:
    found = np.load(of_learners / "0/sizes.npz")
    images, padded, doubled = (found[name].astype(float) for name in ("images", "padded", "doubled"))
    assert padded.shape == (2, 32, 32, 1) and np.array_equal(padded[:, 2:30, 2:30, 0], images)
    assert padded.sum() == images.sum()
    # A pixel of twice the size is a quarter of its width from the centre of the one that it is in.
    edged = np.pad(images, [(0, 0), (1, 1), (1, 1)], mode="edge")
    rows = np.stack([0.75 * edged[:, 1:-1] + 0.25 * edged[:, :-2], 0.75 * edged[:, 1:-1] + 0.25 * edged[:, 2:]], 2)
    rows = rows.reshape(2, 56, 30)
    columns = [0.75 * rows[:, :, 1:-1] + 0.25 * rows[:, :, :-2], 0.75 * rows[:, :, 1:-1] + 0.25 * rows[:, :, 2:]]
    np.testing.assert_allclose(doubled[..., 0], np.stack(columns, 3).reshape(2, 56, 56), atol=1e-3)
