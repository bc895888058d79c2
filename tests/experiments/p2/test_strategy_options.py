"""Problem 2's command line: bad input, lists, and the jobs that they make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments import p2_strategy
from experiments.cli import RunError
from experiments.p2 import strategy_options
from experiments.store.provenance import run_id


def series(given: str) -> list[strategy_options.Config]:
    """The jobs of a command line."""
    return strategy_options.series(strategy_options.arguments("").parse_args(given.split()))


pytestmark = pytest.mark.usefixtures("bare_machine")


def test_more_learners_than_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("experiments.machine.nvidia.gpus", lambda: ["0", "1"])
    assert p2_strategy.main(["--results", str(tmp_path), "--device", "gpu", "--learners", "4"]) == 2
    assert "4 learners need as many GPUs, this machine has 2" in capsys.readouterr().err


def test_a_sweep_leaves_out_what_workers_cannot_share() -> None:
    for given, sizes in {
        "--learners 3": [3], "--sweep": [1, 2, 4, 8, 16], "--sweep --workers 2": [2, 4, 8, 16],
        "--sweep --hosts 4": [4, 8, 16], "--sweep --strategy mirrored": [1, 2, 4, 8],
    }.items():  # fmt: skip
        assert [c.job.learners for c in series(given)] == sizes


def test_settings_have_results_of_their_own() -> None:
    names = set()
    given = ["", "--repeat 2", "--seed 1", "--threads 2", "--base 32", "--scaling strong", "--epochs 3"]
    given += ["--strategy mirrored", "--communication ring", "--steps-per-execution 2", "--no-evaluate"]
    given += ["--image-size 64"]
    for more in given:
        (c,) = series(more)
        names.add(run_id(c.slug, c.flat()))
    assert len(names) == len(given)


def test_strong_scaling_keeps_the_batch_and_weak_scaling_each_learners_part() -> None:
    for learners in (1, 2, 4, 16):
        strong, weak = series(f"--scaling strong,weak --learners {learners}")
        assert (strong.job.effective_batch, strong.job.steps, strong.job.learning_rate) == (256, 234, 0.05)
        assert weak.job.per_learner_batch == 64 and weak.job.steps == 60_000 // (64 * learners)
        assert weak.job.learning_rate == pytest.approx(0.05 * learners / 4)
        assert strong.job.workers == weak.job.workers == learners


def test_lists_make_a_job_of_each_combination_that_makes_sense() -> None:
    lists = "--learners 1,2 --scaling weak,strong --strategy mirrored,multiworker --all-reduce nccl,hierarchical"
    jobs_of_one = [
        "weak-1x64-mirrored-nccl", "weak-2x64-mirrored-nccl",
        "weak-1x64-mirrored-hierarchical", "weak-2x64-mirrored-hierarchical",
        "weak-1x64-multiworker-auto", "weak-2x64-multiworker-auto",
        "strong-1x256-mirrored-nccl", "strong-2x128-mirrored-nccl",
        "strong-1x256-mirrored-hierarchical", "strong-2x128-mirrored-hierarchical",
        "strong-1x256-multiworker-auto", "strong-2x128-multiworker-auto",
    ]  # fmt: skip
    assert [c.slug for c in series(lists)] == [f"cpu-{name}-r1" for name in jobs_of_one]
    several = [c.slug for c in series(f"{lists} --repeat 2 --repeats 2")]
    assert several == [f"cpu-{name}-r2" for name in jobs_of_one] + [f"cpu-{name}-r3" for name in jobs_of_one[::-1]]
    sweep = series("--sweep --strategy mirrored,multiworker")
    assert [c.job.learners for c in sweep] == [1, 2, 4, 8, 1, 2, 4, 8, 16]


def test_the_same_batch_by_strong_and_by_weak_scaling_are_two_jobs() -> None:
    weak, strong = series("--scaling weak,strong --base 256")
    assert weak.job == strong.job and run_id("", weak.flat()) != run_id("", strong.flat())


def test_images_of_another_size_are_named() -> None:
    (c,) = series("--image-size 224 --device gpu --strategy mirrored")
    assert c.slug == "gpu-weak-1x64-224px-mirrored-default-r1" and c.flat()["image_size"] == 224


def test_several_jobs_go_on_after_one_that_failed_and_larger_ones_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(c: strategy_options.Config, *_: object) -> Path:
        if c.job.learners == 1:
            raise RunError("no luck")
        return tmp_path / c.slug

    monkeypatch.setattr(p2_strategy, "run", run)
    monkeypatch.setattr("experiments.machine.cores.siblings", lambda: {0: 0, 1: 0})
    given = ["--results", str(tmp_path), "--learners", "1,2,4", "--data", "synthetic", "--no-evaluate"]
    assert p2_strategy.main(given) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}/cpu-weak-2x64-multiworker-auto-r1\n"
    assert "larger jobs left out: 4 learners of 1 threads need 4 cores" in printed.err
    assert "plan: 2 jobs, of unknown length" in printed.err
    assert printed.err.endswith("p2_strategy: 1 of 2 jobs failed: cpu-weak-1x64-multiworker-auto-r1: no luck\n")


def test_settings_that_would_disturb_are_removed_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_PROC_BIND", "true")
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setattr(p2_strategy, "run", lambda *_: None)
    assert p2_strategy.main(["--results", str(tmp_path), "--data", "synthetic"]) == 0
    assert capsys.readouterr().err == "p2_strategy: removed from the environment: OMP_PROC_BIND, RANK\n"
    assert not {"OMP_PROC_BIND", "RANK"} & set(os.environ)
