"""Beyond Problem 1's questions: what Horovod adds to a GPU's step. Each function takes the runs of
`horovod_runs.load`."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from report import show
from report.answers import Missing
from report.comparisons import difference, main, ratio, series
from report.estimates import Estimate, verdict, word
from report.figures.horovod_costs import alone
from report.figures.horovod_runs import ON_GPUS, unit
from report.used import selects

COMPILED = f"{ON_GPUS} --compile"


@selects
def _with_and_without(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """For each setting the GPU jobs of one allocation: the one that has most sizes both with and without Horovod."""
    chosen: dict[str, pd.DataFrame] = {}
    for one in series(runs[(runs.device_kind == "gpu") & (runs.hosts == 1)], ["learners", "allreduce"]):
        name = one.series.iloc[0]
        if name not in chosen or _rank(one) > _rank(chosen[name]):
            chosen[name] = one
    return [chosen[name] for name in sorted(chosen)]


def _rank(jobs: pd.DataFrame) -> tuple[int, int]:
    return sum(kinds == 2 for kinds in jobs.groupby("learners").allreduce.nunique()), len(jobs)


def _added(jobs: pd.DataFrame, learners: int) -> Estimate:
    """What averaging adds to the step of so many learners, as a part of the independent learners' step."""
    kinds = ({"learners": learners, "allreduce": averaging} for averaging in (True, False))
    of, to = kinds
    return ratio(jobs, of=of, to=to, value="step_seconds").change


def tbl_p1_gpu(runs: pd.DataFrame) -> str | Missing:
    """A step of GPU learners with Horovod and of the same learners without, and what part of it they wait."""
    lines = []
    for jobs in _with_and_without(runs):
        for n in sorted({int(n) for n in jobs.learners}):
            group = jobs[jobs.learners == n]
            on, off = (group[group.allreduce == averaging] for averaging in (True, False))
            if off.empty and on.wait_share.isna().all():
                continue  # says nothing of what Horovod adds
            adds = _added(jobs, n).brief(signed=True) if len(on) and len(off) else "–"
            waits = f"{100 * on.wait_share.median():.1f} %" if on.wait_share.notna().any() else "–"
            steps = [f"{1e3 * side.step_seconds.median():.1f}" if len(side) else "–" for side in (on, off)]
            lines.append((jobs.series.iloc[0], n, *steps, adds, waits, f"{len(on)}, {len(off)}"))
    if not lines:
        return Missing("GPU learners", ON_GPUS)
    headers = ["Series", "N", "With (ms)", "Without (ms)", "Horovod adds", "Waits", "Runs"]
    if all(waits == "–" for *_, waits, _ in lines):  # earlier runs did not record it
        headers.remove("Waits")
        lines = [(*line, runs_of_both) for *line, _, runs_of_both in lines]
    return show.table_text(show.once(lines), headers, "l" + "r" * (len(headers) - 1))


def text_p1_gpu(runs: pd.DataFrame, sums: pd.DataFrame) -> str | Missing:
    """What Horovod costs one GPU, what sets the pace there, what averaging adds beside NCCL, what compiling does."""
    found = _with_and_without(runs)
    if not found:
        return Missing("GPU learners", ON_GPUS)
    points = [*_one_gpu(found), *_pace(runs), *_several(found, sums), *_compiled(runs)]
    return "\n".join(f"- {point}" for point in points)


def _one_gpu(found: list[pd.DataFrame]) -> list[str]:
    """By the verdict on what Horovod adds to one learner's step, which series it holds for."""
    words = {
        "above": "Horovod makes a step longer",
        "below": "Horovod makes a step shorter",
        "within the noise of": "what Horovod adds to a step is within noise",
        None: "too few runs were made to say what Horovod adds to a step",
    }
    with_both = [jobs for jobs in found if jobs[jobs.learners == 1].allreduce.nunique() == 2]
    verdicts = {jobs.series.iloc[0]: verdict(_added(jobs, 1), 0) for jobs in with_both}
    return [
        f"With nobody to average with, {text}: {'; '.join(name for name in verdicts if verdicts[name] == told)}."
        for told, text in words.items()
        if told in verdicts.values()
    ]


def _pace(runs: pd.DataFrame) -> list[str]:
    """Whether the GPU's arithmetic or the host's launches set the pace: mixed precision speeds up only the first."""
    points = []
    ones = runs[(runs.device_kind == "gpu") & (runs.learners == 1) & runs.allreduce.astype(bool)]
    for jobs in series(main(ones, "precision"), "precision"):
        if jobs.precision.nunique() < 2:
            continue
        job = jobs.iloc[0]
        faster = ratio(jobs, of={"precision": "mixed"}, to={"precision": "float32"}, value="step_seconds")
        why = {
            "below": "so the GPU's arithmetic sets the pace",
            "above": "so the host that launches the kernels sets the pace, and mixed precision adds some that convert",
            "within the noise of": "within noise, so it does not show that the GPU's arithmetic sets the pace",
            None: "too few runs to say what sets the pace",
        }[verdict(faster, 1)]
        points.append(
            f"With {int(job.batch_size)} images on {unit(job, 1)}, a step in mixed precision takes "
            f"{faster.text(after='of one in float32')}, {why}."
        )
    return points


def _several(found: list[pd.DataFrame], sums: pd.DataFrame) -> list[str]:
    """What the largest job's step has on top of one learner's, beside NCCL's all-reduce of as many bytes."""
    points = []
    for jobs in found:
        averaging = jobs[jobs.allreduce.astype(bool)]
        n, job = int(averaging.learners.max()), averaging.iloc[0]
        if n == 1 or not (averaging.learners == 1).any():
            continue
        grows = difference(averaging, of={"learners": n}, to={"learners": 1})
        text = f"{job.series}: from one learner to {word(n)} a step grows by {_milliseconds(grows).text('ms')}"
        nccl = alone(sums, "nccl", n, int(job.gradient_bytes), job.allocation)
        if nccl:
            text += (
                f". As a stand-in, NCCL alone sums {show.si(float(job.gradient_bytes))}B over idle GPUs of the same "
                f"allocation in {_milliseconds(nccl).brief('ms')}, {nccl.value / grows.value:.2f} times that, and the "
                "backward pass hides a part of it"
            )
        points.append(f"{text}.{_not_waited(averaging, n, grows)}")
    return points


def _not_waited(averaging: pd.DataFrame, learners: int, grows: Estimate) -> str:
    """How much of the growth is waiting for the all-reduces after the backward pass, where the rows have it."""
    many, one = (averaging[averaging.learners == n] for n in (learners, 1))
    if many.wait_share.isna().any() or one.wait_share.isna().any():
        return ""
    waits, waits_alone = (float((own.wait_share * own.step_seconds).median()) for own in (many, one))
    waited = waits - waits_alone
    return (
        f" Of that, {1e3 * waited:.2f} ms is waiting between the backward pass and the end of the all-reduces; what "
        f"the other {1e3 * (grows.value - waited):.2f} ms go to was not measured."
    )


def _milliseconds(seconds: Estimate) -> Estimate:
    return replace(seconds, value=1e3 * seconds.value, low=1e3 * seconds.low, high=1e3 * seconds.high)


def _compiled(runs: pd.DataFrame) -> list[str]:
    points = []
    gpu = runs[(runs.device_kind == "gpu") & runs.allreduce.astype(bool)]
    for jobs in series(gpu, "compiled"):
        if jobs.compiled.nunique() < 2:
            continue
        faster = ratio(jobs, of={"compiled": True}, to={"compiled": False})
        job, precision = jobs.iloc[0], "mixed precision" if jobs.precision.iloc[0] == "mixed" else "float32"
        train = f"train{'s' if job.learners == 1 else ''} {faster.text('times', 'as many images per second')}"
        points.append(
            f"Compiled with `torch.compile`, {unit(job, int(job.learners))} {train}, in {precision} with "
            f"{job.batch_size} images each."
        )
    return points or [f"The effect of `torch.compile` has not been measured yet: `{COMPILED}`."]
