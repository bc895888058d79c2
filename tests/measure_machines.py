"""Machines that plans are made for."""

from __future__ import annotations

from dataclasses import replace

from experiments.measure_plan.homework_jobs import Job
from experiments.measure_plan.survey import Machine, Speed

CAN = {"tensorflow": "", "torch": ""}
LAPTOP = Machine(
    "cpu", "a CPU", 2, 2, 0.0, ("tensorflow", "torch"), CAN, (), Speed(40.0, {"tensorflow": 3.0, "torch": 3.0})
)
TWO_GPUS = replace(
    LAPTOP,
    device="gpu",
    name="a GPU",
    cores=16,
    devices=2,
    gpu_gib=80.0,
    data=("fashion", "cifar10"),
    speed=Speed(40_000.0, {"tensorflow": 5.0, "torch": 5.0}, ("tensorflow", "torch")),
)


def job(series: str, seconds: float, *parts: str, learners: int = 1) -> Job:
    """A job of a plan; its command is told apart by series and learners."""
    words = ("experiments/allreduce.py", "--series", series, "--learners", str(learners))
    return Job(1, f"{series} {learners}", parts, words, seconds, series)
