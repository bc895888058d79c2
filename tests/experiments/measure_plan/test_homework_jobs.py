"""Which jobs a machine can do, as which commands, and what the plan says of the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.measure_plan.homework_jobs import Job, LeftOut, plan
from experiments.p1 import horovod_options
from experiments.p2 import strategy_options
from tests.measure_machines import LAPTOP, TWO_GPUS


def learners(jobs: list[Job], script: str, *words: str) -> list[str]:
    """The numbers of learners of a script's jobs whose commands have these words."""
    own = [job.words for job in jobs if job.experiment == script and set(words) <= set(job.words)]
    return [job[job.index("--learners") + 1] for job in own]


def reasons(out: list[LeftOut]) -> str:
    return "\n".join(f"{one.what}: {one.why}" for one in out)


def test_two_cores_do_problems_1_and_2_on_synthetic_images() -> None:
    jobs, out = plan(LAPTOP, [1, 2, 4])
    assert learners(jobs, "p1_horovod") == ["1", "2", "1", "2"]
    assert learners(jobs, "p1_horovod", "--no-allreduce") == ["1", "2"]
    assert learners(jobs, "p2_strategy", "weak") == learners(jobs, "p2_strategy", "strong") == ["1", "2"]
    assert all("synthetic" in job.words for job in jobs if job.problem == 2)
    assert not [job for job in jobs if job.problem == 4]
    said = reasons(out)
    assert "4, 8, 16 learners: a learner has a core of its own, and this machine has 2 cores" in said
    assert "AUTO, NCCL and RING (2.6): needs two GPUs" in said and "get_fashion_mnist.py" in said
    assert "Throughput for each M: minutes each on cores; --problems 4 measures it alone" in said


def test_problem_4_alone_is_measured_on_cores_too() -> None:
    jobs, _ = plan(LAPTOP, [4])
    assert [job.words[2] for job in jobs] == ["1", "2", "4"]


def test_two_gpus_do_all_reduces_communications_and_training() -> None:
    jobs, out = plan(TWO_GPUS, [1, 2, 4])
    ways = [job.words[job.words.index("--all-reduce") + 1] for job in jobs if "--all-reduce" in job.words]
    assert ways == ["nccl", "hierarchical", "one-device"]
    communications = [job.words[-1] for job in jobs if job.series == "communications"]
    assert len(communications) == 3 and not any("synthetic" in job.words for job in jobs)
    trained = [job for job in jobs if job.experiment == "p4_cutout"]
    assert [job.parts for job in trained] == [("4.2",), ("4.3",)] and "basic" in trained[0].words
    assert reasons(out).startswith("Two hosts (1.4)") and "4, 8, 16 learners: a learner has a GPU" in reasons(out)


def test_four_gpus_compare_all_reduces_between_all_of_them() -> None:
    jobs, _ = plan(replace(TWO_GPUS, devices=4), [2])
    assert learners(jobs, "p2_strategy", "--all-reduce") == ["4", "4", "4"]


def test_set_up_is_that_of_the_jobs_own_framework() -> None:
    """Loading, and tracing once (PyTorch) or 2.5 times (TensorFlow): 2 × 2 s, 3.5 × 8 s, and 3 s each."""
    speed = replace(TWO_GPUS.speed, gflops=1e12, import_seconds={"tensorflow": 8.0, "torch": 2.0})
    jobs, _ = plan(replace(TWO_GPUS, speed=speed), [1, 2])
    took = {job.experiment: round(job.seconds) for job in jobs}
    assert took == {"allreduce": 12, "p1_horovod": 7, "p2_strategy": 31}


def test_small_gpus_get_small_batches() -> None:
    small, _ = plan(replace(TWO_GPUS, gpu_gib=12.0), [1, 2])
    (batch,) = {job.words[job.words.index("--batch-size") + 1] for job in small if job.experiment == "p1_horovod"}
    assert batch == "32" and not any("--jit-compile" in job.words for job in small)


def test_what_is_not_installed_is_named_with_what_installs_it() -> None:
    refused = dict.fromkeys(("tensorflow", "torch"), "Horovod is not installed; build it with: make horovod")
    jobs, out = plan(replace(LAPTOP, installed=(), horovod=refused), [1, 2, 4])
    assert jobs == []
    said = reasons(out)
    assert "Horovod's learners: Horovod is not installed; `make horovod`" in said
    assert "TensorFlow is not installed; `pip install 'tensorflow-cpu'`" in said
    assert "PyTorch is not installed; `pip install torch`" in said


def test_gpus_that_no_framework_sees_are_said_so() -> None:
    blind = replace(TWO_GPUS, speed=replace(TWO_GPUS.speed, sees_gpu=()))
    jobs, out = plan(blind, [1, 2, 4])
    assert jobs == [] and "TensorFlow sees no GPU; `pip install 'tensorflow[and-cuda]'`" in reasons(out)
    assert "make horovod TENSORFLOW='tensorflow[and-cuda]'" in reasons(out)


def test_commands_are_what_the_scripts_understand() -> None:
    """Each job's options are read, and checked, by the script's own command line."""
    for machine in (LAPTOP, TWO_GPUS):
        for job in plan(machine, [1, 2])[0]:
            words = job.arguments(Path("somewhere"))[1:]
            configs: list[Any] = [None]
            if job.experiment == "p1_horovod":
                configs = horovod_options.series(horovod_options.arguments("").parse_args(words))[0]
            elif job.experiment == "p2_strategy":
                configs = [*strategy_options.series(strategy_options.arguments("").parse_args(words))]
            assert len(configs) == 1, job.command(Path("somewhere"))


def test_a_job_is_the_command_that_a_person_types() -> None:
    job = Job(1, "a job", (), ("experiments/allreduce.py", "--learners", "2"), 1.0, "curve")
    assert job.command(Path("my results")) == (
        "python experiments/allreduce.py --learners 2 --repeat 1 --results 'my results'"
    )
