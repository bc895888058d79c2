"""What Horovod adds to a GPU's step, on hand-made runs."""

from __future__ import annotations

from report.figures import horovod_gpu
from tests.frames import sums
from tests.p1_runs import NO_SUMS, gpus, lines, runs


def test_what_horovod_adds_is_formed_with_and_without_it_in_one_allocation() -> None:
    found = runs(
        *gpus({1: 1.0, 2: 1.2}, wait=0.1),
        *gpus({1: 0.99, 2: 1.0}, allreduce=False),
        *gpus({1: 0.5}, allreduce=False, allocation="two"),
    )
    head, *rows = lines(str(horovod_gpu.tbl_p1_gpu(found)))
    assert head == ["Series", "N", "With (ms)", "Without (ms)", "Horovod adds", "Waits", "Runs"]
    # Two steps an epoch. Of an epoch's 1.2 s at two learners 0.1 s are waited, of 1.188 and 1.212 s as well.
    assert [*rows[1][1:4], *rows[1][5:]] == ["2", "600.0", "500.0", "8.3 %", "3, 3"]
    assert rows[1][4].replace("\u00a0", " ").startswith("+20.0 % (+17.6 to +22.4 %)")


def test_where_no_wait_was_recorded_no_column_is_empty() -> None:
    head, *rows = lines(str(horovod_gpu.tbl_p1_gpu(runs(*gpus({1: 1.0}), *gpus({1: 1.0}, allreduce=False)))))
    assert head == ["Series", "N", "With (ms)", "Without (ms)", "Horovod adds", "Runs"]
    assert rows[0][5] == "3, 3"


def test_a_job_without_its_twin_and_without_waits_has_no_row() -> None:
    found = runs(*gpus({1: 1.0, 2: 1.2}), *gpus({1: 0.99}, allreduce=False))
    _, *rows = lines(str(horovod_gpu.tbl_p1_gpu(found)))
    assert [row[1] for row in rows] == ["1"]


def test_verdicts_on_one_gpu_are_by_the_interval() -> None:
    slower = runs(*gpus({1: 1.1}), *gpus({1: 1.0}, allreduce=False))
    assert "Horovod makes a step longer: PyTorch, H200." in str(horovod_gpu.text_p1_gpu(slower, NO_SUMS))
    same = runs(*gpus({1: 1.0}), *gpus({1: 1.0}, allreduce=False))
    assert "is within noise: PyTorch, H200." in str(horovod_gpu.text_p1_gpu(same, NO_SUMS))
    few = runs(*gpus({1: 1.1}, repeats=2), *gpus({1: 1.0}, allreduce=False))
    assert "too few runs were made" in str(horovod_gpu.text_p1_gpu(few, NO_SUMS))


def test_what_compiling_changes() -> None:
    found = runs(*gpus({1: 1.0}), *gpus({1: 0.8}, compiled=True))
    said = str(horovod_gpu.text_p1_gpu(found, NO_SUMS))
    assert "Compiled with `torch.compile`, one H200 GPU trains 1.25 times as many images per second" in said
    apart = runs(*gpus({1: 1.0}), *gpus({1: 0.8}, compiled=True, allocation="two"))
    assert "The effect of `torch.compile` has not been measured yet" in str(horovod_gpu.text_p1_gpu(apart, NO_SUMS))


def test_mixed_precision_tells_what_sets_the_pace() -> None:
    faster = runs(*gpus({1: 1.0}), *gpus({1: 0.5}, precision="mixed"))
    assert "takes 50 % of one in float32" in str(horovod_gpu.text_p1_gpu(faster, NO_SUMS)).replace("50.0 %", "50 %")
    assert "so the GPU's arithmetic sets the pace" in str(horovod_gpu.text_p1_gpu(faster, NO_SUMS))
    same = runs(*gpus({1: 1.0}), *gpus({1: 1.0}, precision="mixed"))
    assert "within noise, so it does not show" in str(horovod_gpu.text_p1_gpu(same, NO_SUMS))


def test_how_much_of_a_longer_step_is_waiting() -> None:
    """A step of 500 ms grows by 100 ms; one learner waits 10 % of 500 ms, two wait 15 % of 600: 40 ms more."""
    found = runs(*gpus({1: 1.0, 2: 1.2}, repeats=1))
    found["wait_share"] = found.learners.map({1: 0.10, 2: 0.15})
    said = str(horovod_gpu.text_p1_gpu(found, NO_SUMS)).replace("\u00a0", " ")
    assert "Of that, 40.00 ms is waiting" in said and "the other 60.00 ms go to was not measured" in said


def test_a_longer_step_stands_beside_nccl_alone() -> None:
    found = runs(*gpus({1: 1.0, 2: 1.2}, repeats=1))
    nccl = sums({int(found.gradient_bytes.iloc[0]): 0.025}, backend="nccl")
    said = str(horovod_gpu.text_p1_gpu(found, nccl)).replace("\u00a0", " ")
    assert "from one learner to two a step grows by 100.0 ms (one run each, too few for a verdict)" in said
    assert "NCCL alone sums 102 MB over idle GPUs of the same allocation in 25.0 ms, 0.25 times that" in said
