"""Problem 1's runs as its figures take them: one row a run, named after its series, and which series are shown."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pandas as pd

from experiments.machine.device_names import short_name
from experiments.store import epochs, parquet
from experiments.store.files import RESULTS
from report import comparisons, palette, show
from report.answers import Missing
from report.estimates import word
from report.used import selects

EXPERIMENT = "p1_horovod"
SCRIPT = f"python experiments/{EXPERIMENT}.py"
ON_CORES = f"{SCRIPT} --sweep --repeats 3 --independent-too --image-size 64 --batch-size 16"
ON_GPUS = f"{SCRIPT} --sweep --repeats 3 --independent-too --framework torch --device gpu --batch-size 256"
ON_TWO_HOSTS = f"{SCRIPT} --learners 16 --hosts 2 --gbit 10 --repeats 3 --image-size 64 --batch-size 16"
FRAMEWORKS = {"tensorflow": "TensorFlow", "torch": "PyTorch"}
# What is said of a series where another one has the same framework, device and precision.
APART = {
    "batch_size": "B\u00a0=\u00a0{}",
    "image_size": "{}\u00a0px",
    "threads": "{} threads",
    "model": "{}",
}
SIZE, HALF = {"width": 560, "height": 200}, {"width": 560, "height": 160}
LEARNERS = alt.X(
    "learners:Q", title="learners", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=[1, 2, 4, 8, 16])
)


def load(results: Path = RESULTS) -> pd.DataFrame:
    """The measured runs of Problem 1."""
    return prepared(epochs.read(EXPERIMENT, results), parquet.read(EXPERIMENT, results))


def prepared(of_epochs: pd.DataFrame, steps: pd.DataFrame) -> pd.DataFrame:
    """`comparisons.jobs` of the epochs, with a name for each run's series, and of runs whose rows are steps:

    mean_step: the mean over learners and steps (s).
    slowest_step: the mean over steps of the slowest learner's (s): a step's length if learners waited for each other
        at its end and did nothing else.
    """
    kept = of_epochs[(of_epochs.kind == "measured") & (of_epochs.model != "tiny")]
    train = steps[steps.phase == "train"]
    slowest = train.groupby(["run_id", "epoch", "step"]).seconds.max().groupby("run_id").mean()
    means = pd.DataFrame({"mean_step": train.groupby("run_id").seconds.mean(), "slowest_step": slowest})
    return named(
        comparisons.jobs(kept).merge(
            means.astype(float).rename_axis("run_id").reset_index().astype({"run_id": object}), on="run_id", how="left"
        )
    )


def named(jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs with the name of their series: PyTorch, H200, mixed. What tells two series apart is said of
    both. Two hosts, or learners that don't average, make no other series."""
    name = jobs.framework.map(FRAMEWORKS) + ", " + jobs.device.map(gpu).where(jobs.device_kind == "gpu", "CPU")
    name += jobs.precision.map({"mixed": ", mixed"}).fillna("")
    name += jobs.compiled.map({True: ", compiled"}).fillna("")
    for column, form in APART.items():
        several = jobs[column].groupby([name, jobs.hosts, jobs.allreduce]).transform("nunique") > 1
        name = name.where(~several, name + ", " + jobs[column].map(form.format))
    return jobs.assign(series=name)


@selects
def shown(runs: pd.DataFrame) -> pd.DataFrame:
    """The series of the figures: learners of one host that average; of runs that differ in where they ran or in what
    started them alone, those of the allocation and launcher with most sizes and runs. A single size is no series."""
    found = comparisons.main(runs[runs.allreduce.astype(bool) & (runs.hosts == 1)])
    if found.empty:
        return found
    where = ["series", "allocation", "launcher"]
    rank = found.groupby(where, as_index=False).agg(sizes=("learners", "nunique"), jobs=("run_id", "nunique"))
    best = rank.sort_values(["sizes", "jobs"], ascending=False).drop_duplicates("series")
    return found.merge(best[best.sizes > 1][where], on=where)


def headline(runs: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The series that answers are about, of learners of a kind (cpu or gpu): most sizes, then float32, not compiled and
    the largest batch, then TensorFlow, which the homework names. Empty where there is none."""
    of_kind = shown(runs)
    of_kind = of_kind[of_kind.device_kind == kind]
    ranked = of_kind.assign(
        sizes=of_kind.groupby("series").learners.transform("nunique"),
        plain=(of_kind.precision == "float32") & ~of_kind.compiled.astype(bool),
        asked=of_kind.framework == "tensorflow",
    )
    order = ["sizes", "plain", "batch_size", "asked"]
    best = ranked.sort_values(order, ascending=False, kind="stable").series.head(1)
    return of_kind[of_kind.series.isin(best)].sort_values(["learners", "repeat"])


def headlines(runs: pd.DataFrame) -> list[pd.DataFrame]:
    """The GPUs' and the cores', as far as there are any."""
    return [one for one in (headline(runs, "gpu"), headline(runs, "cpu")) if len(one)]


def unit(job: pd.Series, learners: int) -> str:
    """Learners in words: four H200 GPUs, one CPU core."""
    what = f"{gpu(job.device)} GPU" if job.device_kind == "gpu" else "CPU core"
    return f"{word(learners)} {what}{'s' * (learners > 1)}"


def gpu(device: str) -> str:
    """A GPU's short name: H200."""
    return short_name(device).removeprefix("NVIDIA ")


def devices(frames: list[pd.DataFrame]) -> str:
    """What the runs of these series used, each once: 1 to 4 NVIDIA H200 and 1 to 16 cores of an Intel Xeon."""
    parts = []
    for frame in frames:
        name = short_name(frame.device.iloc[0])
        least, most = frame.learners.min(), frame.learners.max()
        number = f"{least} to {most}" if most > least else f"{most}"
        parts.append(f"{number} {name}" if frame.device_kind.iloc[0] == "gpu" else f"{number} cores of an {name}")
    return show.listing(dict.fromkeys(parts))


def rate_text(value: float) -> str:
    """Images per second: three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def median_range(values: pd.Series, form: str = "{:.1f}") -> str:
    """The median and, of several values, the range."""
    several = f" ({form.format(values.min())}–{form.format(values.max())})" if len(values) > 1 else ""
    return form.format(values.median()) + several if len(values) else "–"


def rates_text(rates: pd.Series) -> str:
    """The median rate of repetitions and their range."""
    return median_range(rates, "{:,.0f}" if rates.median() >= 100 else "{:.1f}")


def colours(runs: pd.DataFrame, here: pd.DataFrame) -> alt.Color:
    """A series has one colour in all figures; a panel's legend has those that it shows."""
    names = sorted(shown(runs).series.unique())
    scale = alt.Scale(domain=names, range=palette.series(names))
    legend = alt.Legend(columns=1, labelLimit=300, values=sorted(here.series.unique()))
    return alt.Color("series:N", title=None, scale=scale, legend=legend)


def tbl_p1_runs(runs: pd.DataFrame) -> str | Missing:
    """All jobs: a line for each that may be compared with no other line's repetitions."""
    lines = []
    place = ["learners", "allreduce", "hosts", "gbit"]
    jobs = runs.sort_values(["allocation", "series", *place])
    for _, group in jobs.groupby(["allocation", "series", *place], dropna=False, sort=False):
        job = group.iloc[0]
        link = "" if pd.isna(job.gbit) else f" at {job.gbit:g}\u00a0Gbit/s"
        what = job.series + ("" if job.allreduce else ", independent")
        what += f", two hosts{link}" if job.hosts == 2 else ""
        lines.append(
            (job.allocation, what, int(job.learners), len(group), rates_text(group.rate),
             f"{group.train_seconds.median():.1f}", f"{group.setup_seconds.median():.0f}")
        )  # fmt: skip
    headers = ["Allocation", "Job", "N", "Runs", "Images/s", "Epochs (s)", "Set-up (s)"]
    return show.table_text(show.once(lines), headers, "llrrrrr") if lines else Missing("Runs of Problem 1", ON_CORES)
