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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--learners 0", "--learners must be at least 1, not 0"),
        ("--workers 0", "--workers must be at least 1, not 0"),
        ("--base -1", "--base must be at least 1, not -1"),
        ("--seed -1", "--seed must be 0 to"),
        ("--scaling strong --learners 3", "--effective-batch 256 can't be divided by 3 learners"),
        ("--learners 4 --workers 3", "4 learners can't be shared out evenly to 3 workers"),
        ("--strategy mirrored --learners 2 --workers 2", "--strategy mirrored has one worker"),
        ("--strategy mirrored --communication ring", "--communication is of --strategy multiworker"),
        ("--all-reduce nccl", "--all-reduce is of --strategy mirrored"),
        ("--gbit 1", "give --hosts 2 with it"),
        ("--learners 2 --hosts 2 --gbit 0", "--gbit must be positive"),
        ("--hosts 2", "--hosts 2 is more than the 1 workers"),
        ("--steps-per-epoch 938", "--steps-per-epoch must be 1 to 937 with 60,000 images and batches of 64"),
        ("--steps-per-epoch 0", "--steps-per-epoch must be 1 to 937"),
        ("--data synthetic --base 2001", "--steps-per-epoch must be 1 to 0 with 2,000 images"),
        ("--steps-per-epoch 3 --steps-per-execution 2", "--steps-per-epoch 3 is no multiple of --steps-per-execution"),
        ("--learning-rate 0", "--learning-rate must be positive and finite, not 0"),
        ("--learning-rate nan", "--learning-rate must be positive and finite, not nan"),
        ("--join-timeout 0", "--join-timeout must be positive and finite, not 0"),
        ("--image-size 31", "--image-size must be at least 32, ResNet-50's least, not 31"),
        ("--repeats 0", "--repeats must be at least 1, not 0"),
        ("--learners 1,0", "--learners must be at least 1, not 0"),
        ("--sweep --learners 2", "--sweep chooses the numbers of learners itself"),
        ("--strategy mirrored,multiworker --workers 2", "--strategy mirrored has one worker"),
        ("--learners 1,3 --scaling strong", "--effective-batch 256 can't be divided by 3 learners"),
        ("--learners 100000 --base 1 --steps-per-epoch 1 --scaling weak", "must be 1 to 0"),
        ("--learners 2000 --base 1", "2000 learners of 1 threads need 2000 cores"),
        ("--device gpu", "this machine has no NVIDIA GPU"),
        ("--launcher slurm", "no SLURM_PROCID here"),
        ("--sweep --workers 3", "--sweep: none of 1, 2, 4, 8, 16 learners suits 3 workers on 1 hosts"),
        ("", "no Fashion-MNIST data: give --data-dir DIR or set DLPERF_DATA=DIR"),
        ("--data-dir /nowhere", "/nowhere: no Fashion-MNIST files there"),
    ],
)
def test_bad_input_is_one_line(
    arguments: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert p2_strategy.main(["--results", str(tmp_path), *arguments.split()]) == 2
    said = capsys.readouterr().err
    assert message in said and said.startswith("p2_strategy: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--image-size big", "argument --image-size: invalid int value: 'big'"),
        ("--learners 1,x", "argument --learners: 'x' is no whole number"),
        ("--learners 2,", "argument --learners: '' is no whole number"),
        ("--learners 2,1,2", "argument --learners: 2 is named twice"),
        ("--scaling weak,string", "argument --scaling: 'string' is none of weak, strong"),
        ("--strategy mirrored,mirrored", "argument --strategy: mirrored is named twice"),
        ("--all-reduce nccl,ring", "argument --all-reduce: 'ring' is none of default, nccl, hierarchical, one-device"),
        ("--communication hierarchical", "argument --communication: 'hierarchical' is none of auto, nccl, ring"),
        ("--learner 2 --speed 3", "unrecognized arguments: --speed 3"),
    ],
)
def test_what_cannot_be_parsed_is_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        p2_strategy.main(arguments.split())
    assert ended.value.code == 2 and capsys.readouterr().err == f"p2_strategy: {message}\n"


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
