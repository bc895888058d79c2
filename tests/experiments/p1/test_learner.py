"""A learner's part of a job: gradients are averaged in both frameworks, and only when asked for."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.cli import RunError
from experiments.p1 import frameworks, horovod_launch, learner
from experiments.store.files import ROOT

TINY = frameworks.Job(
    framework="torch",
    network="tiny",
    device="cpu",
    precision="float32",
    compiled=False,
    allreduce=True,
    batch_size=4,
    image_size=32,
    epochs=2,
    steps_per_epoch=2,
    warm_up=1,
    threads=1,
    seed=3,
)
# Trains as one of two learners; writes its weights and, as rank 0, all reports. In PyTorch it counts the gradients that
# were given to Horovod during the backward pass.
SCRIPT = """
import json, sys
import numpy as np
from experiments.machine.job_clock import job_start
from experiments.p1 import frameworks, horovod_launch, learner
horovod_launch.join("localhost:2", 2)
job, folder = frameworks.Job(**json.loads(sys.argv[1])), sys.argv[2]
trained, hooked = [], []
make = frameworks.FRAMEWORKS[job.framework]
def made(job, learners):
    trained.append(make(job, learners))
    if job.framework == "torch" and job.allreduce:
        optimizer = trained[0]._optimizer
        synchronize = optimizer.synchronize
        optimizer.synchronize = lambda: (hooked.append(len(optimizer._handles)), synchronize())
    return trained[0]
frameworks.FRAMEWORKS[job.framework] = made
reports = learner.train(job, 2, job_start(), print)
reports[0]["hooked"] = hooked
np.savez(f"{folder}/rank{trained[0].rank}.npz", *trained[0].weights())
if trained[0].rank == 0:
    open(f"{folder}/reports.json", "w").write(json.dumps(reports))
"""


def two_learners(job: frameworks.Job, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list, list]:
    """Reports by rank, and the weights of each rank."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    said: list[str] = []
    argv = [sys.executable, "-c", SCRIPT, json.dumps(asdict(job)), str(folder)]
    horovod_launch.launch("learner", argv, 2, "none", {"localhost": 2}, said.append)
    weights = [list(np.load(folder / f"rank{rank}.npz").values()) for rank in range(2)]
    return json.loads((folder / "reports.json").read_text()), weights


def by_hand(job: frameworks.Job) -> list[np.ndarray]:
    """What two learners of the tiny net in PyTorch come to with averaged gradients, in one process without Horovod."""
    torch.manual_seed(job.seed)
    layers = [torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    net = torch.nn.Sequential(*layers, torch.nn.Linear(4, frameworks.CLASSES))
    batches = []
    for rank in range(2):
        generator = torch.Generator().manual_seed(job.seed + rank)
        images = torch.randn((job.batch_size, 3, job.image_size, job.image_size), generator=generator)
        batches.append((images, torch.randint(frameworks.CLASSES, (job.batch_size,), generator=generator)))
    velocity = [torch.zeros_like(parameter) for parameter in net.parameters()]
    for _ in range(job.warm_up + job.epochs * job.steps_per_epoch):
        both = []
        for images, labels in batches:
            loss = torch.nn.functional.cross_entropy(net(images), labels)
            both.append(torch.autograd.grad(loss, list(net.parameters())))
        with torch.no_grad():
            for parameter, v, first, second in zip(net.parameters(), velocity, *both, strict=True):
                v.mul_(frameworks.MOMENTUM).add_((first + second) / 2)
                parameter.sub_(job.learning_rate(2) * v)
    return [parameter.detach().numpy() for parameter in net.parameters()]


@pytest.mark.horovod
def test_torch_learners_average_their_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports, weights = two_learners(TINY, tmp_path, monkeypatch)
    assert reports[0]["digest"] == reports[1]["digest"] == learner.digest(weights[0])
    assert [report["rank"] for report in reports] == [0, 1]
    for own, expected in zip(weights[0], by_hand(TINY), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-6)
    assert np.shape(reports[0]["waits"]) == np.shape(reports[1]["losses"]) == (2, 2)
    assert reports[0]["hooked"] == [4] * (1 + 2 * 2)  # two layers' weights and biases, in each step
    for report in reports:
        assert np.shape(report["marks"]) == (2, 3)
        assert (np.diff(np.ravel(report["marks"])) >= 0).all() and report["marks"][0][0] > 0
        assert (np.array(report["waits"]) > 0).all()
        assert (np.array(report["waits"]) <= np.diff(report["marks"])).all()
        parameters = 4 * 3 * 9 + 4 + 4 * frameworks.CLASSES + frameworks.CLASSES
        assert (report["parameters"], report["gradient_bytes"]) == (parameters, 4 * parameters)


@pytest.mark.horovod
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
def test_tensorflow_learners_average_their_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = replace(TINY, framework="tensorflow")
    together, independent = tmp_path / "together", tmp_path / "independent"
    for folder in (together, independent):
        folder.mkdir()
    reports, weights = two_learners(job, together, monkeypatch)
    assert reports[0]["digest"] == reports[1]["digest"] == learner.digest(weights[0])
    alone, own = two_learners(replace(job, allreduce=False), independent, monkeypatch)
    assert alone[0]["digest"] != alone[1]["digest"]
    # Equal data and start, so the first loss is the same; then averaging tells.
    assert not any(np.allclose(a, b) for a, b in zip(weights[0], own[0], strict=True))
    assert reports[0]["waits"] == [[None, None], [None, None]]


@pytest.mark.horovod
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs: apt-get install g++")
def test_compiled_torch_learners_average_their_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = replace(TINY, compiled=True)
    together, independent = tmp_path / "together", tmp_path / "independent"
    for folder in (together, independent):
        folder.mkdir()
    reports, weights = two_learners(job, together, monkeypatch)
    assert reports[0]["digest"] == reports[1]["digest"] and reports[0]["hooked"] == [4] * (1 + 2 * 2)
    for own, expected in zip(weights[0], by_hand(job), strict=True):
        np.testing.assert_allclose(own, expected, rtol=1e-4, atol=1e-6)
    alone, _ = two_learners(replace(job, allreduce=False), independent, monkeypatch)
    assert alone[0]["digest"] != alone[1]["digest"] and reports[0]["digest"] not in {a["digest"] for a in alone}


@pytest.mark.horovod
@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs: make horovod")
def test_compiling_changes_nothing_of_what_tensorflow_learners_learn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for compiled in (False, True):
        folder = tmp_path / f"compiled{compiled}"
        folder.mkdir()
        job = replace(TINY, framework="tensorflow", compiled=compiled)
        reports, of_learners = two_learners(job, folder, monkeypatch)
        assert reports[0]["digest"] == reports[1]["digest"]
        weights.append(of_learners[0])
    for plain, compiled_one in zip(*weights, strict=True):
        np.testing.assert_allclose(plain, compiled_one, rtol=1e-4, atol=1e-6)


@pytest.mark.horovod
def test_independent_torch_learners_end_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reports, _ = two_learners(replace(TINY, allreduce=False), tmp_path, monkeypatch)
    assert reports[0]["digest"] != reports[1]["digest"]
    assert all(0 <= wait < 0.1 for report in reports for wait in np.ravel(report["waits"]))  # around nothing


def test_on_a_gpu_the_wait_is_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded after the backward pass and after synchronize(), and read when the device has finished."""
    did: list[str] = []

    class Event:
        def __init__(self, name: str) -> None:
            self.name = name

        def record(self) -> None:
            did.append(self.name)

        def elapsed_time(self, end: Event) -> float:
            did.append(f"{self.name} to {end.name}")
            return 250.0  # ms

    class Optimizer:
        skip_synchronize = staticmethod(nullcontext)

        def synchronize(self) -> None:
            did.append("synchronize")

        def step(self) -> None:
            did.append("update")

    one: Any = frameworks.Torch.__new__(frameworks.Torch)
    net = torch.nn.Linear(3, 2)
    net.weight.register_hook(lambda _: did.append("backward"))
    one._torch, one._device, one._forward, one._gradients = torch, torch.device("cpu"), net, [torch.zeros(1)]
    one._images, one._labels = torch.ones(4, 3), torch.zeros(4, dtype=torch.long)
    one._optimizer, one._allreduce, one._mixed = Optimizer(), True, False
    one._events = [Event("first"), Event("second")]
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: did.append("device"))
    assert one.step().wait_seconds == 0.25
    assert did == ["backward", "first", "synchronize", "second", "update", "device", "first to second"]


@pytest.mark.horovod
def test_a_learner_that_horovod_joined_to_no_other_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "RANK": 0,
        "SIZE": 1,
        "LOCAL_RANK": 0,
        "LOCAL_SIZE": 1,
        "CROSS_RANK": 0,
        "CROSS_SIZE": 1,
    }.items():
        monkeypatch.setenv(f"HOROVOD_{name}", str(value))
    with pytest.raises(RunError, match="the job was started with 2 learners, Horovod joined 1"):
        two_learners(TINY, tmp_path, monkeypatch)


def test_the_learning_rate_grows_with_the_effective_batch() -> None:
    assert TINY.learning_rate(8) == pytest.approx(8 * TINY.learning_rate(1))
    assert replace(TINY, batch_size=8).learning_rate(1) == pytest.approx(2 * TINY.learning_rate(1))
    assert replace(TINY, allreduce=False).learning_rate(8) == TINY.learning_rate(1)
    assert replace(TINY, batch_size=32).learning_rate(8) == pytest.approx(0.1)  # Goyal et al. 2017, for 256 images


class Fake:
    """One of two learners of a framework that fails as it is told to."""

    model, rank, learners = "fake", 0, 2

    def __init__(self, loss: float, other: str) -> None:
        self.loss, self.other = loss, other

    def step(self) -> frameworks.Step:
        return frameworks.Step(self.loss, None)

    def gather(self, block: np.ndarray) -> np.ndarray:
        if block.size == 1:
            return np.zeros(2, np.uint8)
        mine = json.loads(block.tobytes())
        line = json.dumps(mine | {"rank": 1, "digest": self.other or mine["digest"]}) + "\n"
        return np.concatenate([block, np.frombuffer(line.encode(), np.uint8)])

    def weights(self) -> list[np.ndarray]:
        return [np.ones(3, np.float32)]


@pytest.mark.parametrize(
    ("loss", "other", "message"),
    [(float("nan"), "", "loss is not finite after epoch 1"), (1.0, "ab", "end with different weights")],
)
def test_runs_that_prove_nothing_fail(loss: float, other: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(frameworks.FRAMEWORKS, "torch", lambda job, learners: Fake(loss, other))
    with pytest.raises(RuntimeError, match=message):
        learner.train(TINY, 2, 0.0, print)
    monkeypatch.setitem(frameworks.FRAMEWORKS, "torch", lambda job, learners: Fake(1.0, ""))
    assert [report["rank"] for report in learner.train(TINY, 2, 0.0, print)] == [0, 1]
    if other:
        monkeypatch.setitem(frameworks.FRAMEWORKS, "torch", lambda job, learners: Fake(1.0, other))
        assert len(learner.train(replace(TINY, allreduce=False), 2, 0.0, print)) == 2


def test_a_digest_depends_on_every_bit() -> None:
    weights = [np.arange(4.0), np.ones((2, 2))]
    assert learner.digest(weights) == learner.digest([weight.copy() for weight in weights])
    weights[1][1, 1] = np.nextafter(1, 2)
    assert learner.digest(weights) != learner.digest([np.arange(4.0), np.ones((2, 2))])
