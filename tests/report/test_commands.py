"""The commands that chapters print where runs are missing."""

from __future__ import annotations

import numpy as np
import pytest

from report.commands import command
from tests.frames import P1

NAN = float("nan")


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({}, "--sweep --repeats 3"),
        ({"learners": 4, "gbit": NAN, "precision": "float32"}, "--sweep --repeats 3"),
        ({"framework": "torch", "device_kind": "gpu", "compiled": np.True_, "batch_size": np.int64(256)},
         "--sweep --repeats 3 --framework torch --device gpu --batch-size 256 --compile"),
        ({"allreduce": False, "image_size": 64}, "--sweep --repeats 3 --image-size 64 --independent-too"),
        ({"learners": 16, "hosts": 2, "gbit": 2.5}, "--learners 16 --repeats 3 --hosts 2 --gbit 2.5"),
    ],
)  # fmt: skip
def test_problem_1(job: dict[str, object], expected: str) -> None:
    assert command(job) == f"python experiments/p1_horovod.py {expected}"


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"strategy": "multiworker", "scaling": "weak", "base": 64}, "--sweep --repeats 3"),
        ({"strategy": "mirrored", "scaling": "strong", "base": 512, "all_reduce": None, "jit_compile": True},
         "--sweep --repeats 3 --strategy mirrored --scaling strong --jit-compile --effective-batch 512"),
        ({"strategy": "multiworker", "communication": "ring", "image_size": 224.0, "base": 16},
         "--sweep --repeats 3 --image-size 224 --communication ring --base 16"),
    ],
)  # fmt: skip
def test_problem_2(job: dict[str, object], expected: str) -> None:
    assert command(job) == f"python experiments/p2_strategy.py {expected}"


def test_the_series_of_a_hand_made_job() -> None:
    made = "--sweep --repeats 3 --framework torch --device gpu --batch-size 64"
    assert command(P1) == f"python experiments/p1_horovod.py {made}"
