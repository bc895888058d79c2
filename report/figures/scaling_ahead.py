"""What was predicted for more GPUs before they were run, beside what they did: the only test of a model that can't
have seen the answer."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from experiments.scaling.series import strategy_epochs, without_scaling
from experiments.store import parquet
from experiments.store.files import RESULTS
from report import comparisons, show
from report.answers import Missing
from report.estimates import Estimate
from report.figures import strategy_runs
from report.figures.scaling_runs import signed
from report.figures.strategy_runs import AXIS, at, each_row, homework
from report.used import selects

HOMEWORK = "tf.distribute mirrored default, "
AHEAD = "python experiments/scaling_ahead.py --learners 4,8"


def load(results: Path = RESULTS) -> pd.DataFrame:
    """Each prediction of Problem 2's throughput with TensorFlow's default all-reduce, and what it says of the speed-up
    over one GPU of the same fit: `speed_up`, `least` and `most`.

    Rates are compared within one allocation only, so the speed-up is what a later allocation can test.
    """
    rows = parquet.read("scaling_ahead", results)
    rows = rows[rows.series.str.startswith(HOMEWORK)]
    alone = rows[rows.learners == 1].set_index(["run_id", "series"]).predicted.rename("alone")
    ahead = rows[rows.role == "projected"].join(alone, on=["run_id", "series"], how="inner")
    scaling = ahead.series.str.extract(r", (weak|strong),", expand=False)
    speeds = {name: ahead[column] / ahead.alone for name, column in
              (("speed_up", "predicted"), ("least", "low"), ("most", "high"))}  # fmt: skip
    return ahead.assign(scaling=scaling, setting=without_scaling(ahead.series), **speeds)


def load_jobs(results: Path = RESULTS) -> pd.DataFrame:
    """Problem 2's jobs, of which each may test a prediction: its `setting` is the prediction's."""
    names = strategy_epochs(results).drop_duplicates("run_id").set_index("run_id").series
    jobs = homework(strategy_runs.load(results))
    return jobs.assign(setting=without_scaling(jobs.run_id.map(names).astype(object)))  # without jobs: of no type


@selects
def later(jobs: pd.DataFrame, prediction: pd.Series) -> pd.DataFrame:
    """The jobs that test a prediction: of its setting, started after it, from the one allocation to show."""
    own = jobs[(jobs.setting == prediction.setting) & (jobs.scaling == prediction.scaling)]
    return comparisons.main(own[own.started > prediction.ended], AXIS)


def observed(jobs: pd.DataFrame, learners: int) -> Estimate | None:
    """The measured speed-up of so many GPUs over one, in their allocation; None where one of both is missing."""
    of, to = jobs[jobs.learners == learners], jobs[jobs.learners == 1]
    if of.empty or to.empty:
        return None
    return comparisons.ratio(jobs, of=at(of.iloc[0]), to=at(to.iloc[0]))


def tbl_scaling_ahead(rows: pd.DataFrame, jobs: pd.DataFrame) -> str | Missing:
    """The speed-up over one GPU: predicted from one and two, and measured afterwards where such a job ran."""
    lines = []
    for point in each_row(rows.sort_values(["setting", "scaling", "learners"], ascending=[True, False, True])):
        found = observed(later(jobs, point), int(point.learners))
        measured = "not run" if found is None else found.brief("")
        error = None if found is None else signed(point.speed_up / found.value - 1)
        within = None if pd.isna(point.least) else f"{point.least:.2f}–{point.most:.2f}"
        name = point.setting.removeprefix(HOMEWORK + "NVIDIA ").replace(" pixels", " px")
        lines.append((name, point.scaling, int(point.learners), f"{point.speed_up:.2f}", within, measured, error))
    if not lines:
        return Missing("A prediction for more GPUs", AHEAD)
    headers = ["GPUs", "Scaling", "N", "Projected", "80 % interval", "Measured", "Error"]
    return show.table_text(show.once(lines), headers, "llrrrrr")


def text_scaling_ahead(rows: pd.DataFrame, jobs: pd.DataFrame) -> str:
    """How far the predictions that were tested are off, and when they were made."""
    errors = []
    for point in each_row(rows):
        found = observed(later(jobs, point), int(point.learners))
        if found is not None:
            errors.append((point.scaling, int(point.learners), point.speed_up / found.value - 1, point.started))
    if not errors:
        return "None of these jobs has been run since."
    parts = [f"{signed(error)} for {n} GPUs with {scaling} scaling" for scaling, n, error, _ in errors]
    when = min(started for *_, started in errors)
    written = f"{when:%Y-%m-%d %H:%M} UTC"
    return f"The predictions were written at {written}, before the jobs. Their errors: {show.listing(parts)}."
