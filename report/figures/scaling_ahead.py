"""What was predicted for more GPUs before they were run, beside what they did: the only test of a model that can't
have seen the answer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.machine.device_names import short_name
from experiments.scaling.series import strategy_epochs
from experiments.store import parquet
from experiments.store.files import RESULTS
from report import comparisons, show
from report.answers import Missing
from report.estimates import Estimate
from report.figures.scaling_runs import batch, signed
from report.figures.strategy_runs import AXIS, at, homework, records
from report.used import selects

HOMEWORK = "tf.distribute mirrored default, "
AHEAD = "python experiments/scaling_ahead.py --learners 4,8"


def load(results: Path = RESULTS) -> pd.DataFrame:
    """Each prediction of Problem 2's throughput, with TensorFlow's default all-reduce: `speed_up`, `least` and `most` over one GPU as the same fit has it.

    Rates are compared within one allocation only, so the speed-up is what a later allocation can test.
    """
    rows = parquet.read("scaling_ahead", results)
    rows = rows[rows.series.str.startswith(HOMEWORK)]
    alone = rows[rows.learners == 1].set_index(["run_id", "series"]).predicted.rename("alone")
    ahead = rows[rows.role == "projected"].join(alone, on=["run_id", "series"], how="inner")
    scaling = ahead.series.str.extract(r", (weak|strong),", expand=False)
    speeds = {name: ahead[column] / ahead.alone for name, column in
              (("speed_up", "predicted"), ("least", "low"), ("most", "high"))}  # fmt: skip
    return ahead.assign(scaling=scaling, setting=_setting(ahead.series), **speeds)


def _setting(series: pd.Series) -> pd.Series:
    """A series' name without weak or strong."""
    return series.str.replace(r", (weak|strong),", ",", regex=True)


@selects
def later(runs: pd.DataFrame, prediction: pd.Series, results: Path = RESULTS) -> pd.DataFrame:
    """The jobs that test a prediction: of its setting, started after it, from the one allocation to show."""
    names = strategy_epochs(results).drop_duplicates("run_id").set_index("run_id").series
    jobs = homework(runs)
    jobs = jobs[_setting(jobs.run_id.map(names)) == prediction.setting]
    jobs = jobs[(jobs.scaling == prediction.scaling) & (jobs.started > prediction.ended)]
    return comparisons.main(jobs, AXIS)


def observed(jobs: pd.DataFrame, learners: int) -> Estimate | None:
    """The measured speed-up of so many GPUs over one, in their allocation; None where one of both is missing."""
    of, to = jobs[jobs.learners == learners], jobs[jobs.learners == 1]
    if of.empty or to.empty:
        return None
    return comparisons.ratio(jobs, of=at(of.iloc[0]), to=at(to.iloc[0]))


def tbl_scaling_ahead(rows: pd.DataFrame, runs: pd.DataFrame) -> str | Missing:
    """The speed-up over one GPU: predicted from one and two, and measured afterwards where such a job ran."""
    lines = []
    for point in records(rows.sort_values(["setting", "scaling", "learners"], ascending=[True, False, True])):
        found = observed(later(runs, point), int(point.learners))
        measured = "not run" if found is None else found.brief("")
        error = None if found is None else signed(point.speed_up / found.value - 1)
        within = None if pd.isna(point.least) else f"{point.least:.2f}–{point.most:.2f}"
        name = short_name(point.setting.removeprefix(HOMEWORK).replace(" pixels", " px"))
        lines.append(
            (name, point.scaling, int(point.learners), batch(point), f"{point.speed_up:.2f}", within, measured, error)
        )
    if not lines:
        return Missing("A prediction for more GPUs", AHEAD)
    headers = ["GPUs", "Scaling", "N", "Batch", "Projected", "80 % interval", "Measured", "Error"]
    return show.table_text(show.once(lines), headers, "llrrrrrr")


def text_scaling_ahead(rows: pd.DataFrame, runs: pd.DataFrame) -> str:
    """How far the predictions that were tested are off, and when they were made."""
    errors = []
    for point in records(rows):
        found = observed(later(runs, point), int(point.learners))
        if found is not None:
            errors.append((point.scaling, int(point.learners), point.speed_up / found.value - 1, point.started))
    if not errors:
        return "None of these jobs has been run since."
    parts = [f"{signed(error)} for {n} GPUs with {scaling} scaling" for scaling, n, error, _ in errors]
    when = min(started for *_, started in errors)
    return f"The predictions were written at {when:%Y-%m-%d %H:%M} UTC, before the jobs. Their errors: {show.listing(parts)}."
