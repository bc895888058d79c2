"""Problem 2's runs as its figures take them: one row a run, named after its series, and which series are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.machine.device_names import short_name
from experiments.scaling import prices
from experiments.store import epochs, parquet
from experiments.store.files import RESULTS
from report import comparisons, show
from report.answers import Missing
from report.estimates import ENOUGH, Estimate, word
from report.used import remembered, selects

EXPERIMENT = "p2_strategy"
SCRIPT = f"python experiments/{EXPERIMENT}.py"
_SERIES = "--scaling weak,strong --repeats 3"
ON_GPUS = f"{SCRIPT} --device gpu --strategy mirrored --learners 1,2,4,8 {_SERIES} --image-size 224 --jit-compile"
ON_CORES = f"{SCRIPT} --learners 1,2,4,8,16 {_SERIES} --steps-per-epoch 2 --no-evaluate"
MADE_BY = f"{ON_GPUS}\n{ON_CORES}"
LEARNERS = (1, 2, 4, 8, 16)  # the homework's
BASES = {"weak": 64, "strong": 256}  # its example's batch of a learner, and its effective batch
LOADS = {"weak": "weak, 64 images a learner", "strong": "strong, 256 images in all"}
EPOCHS, IMAGES = 10, 60_000  # the homework's epochs, and Fashion-MNIST's training images
AXIS = ["learners", "workers", "hosts", "gbit"]  # what changes when learners are added
STRATEGIES = {"mirrored": "Mirrored", "multiworker": "MultiWorker"}


def load(results: Path = RESULTS, synthetic: bool = False) -> pd.DataFrame:
    """The measured runs of ResNet-50 on Fashion-MNIST whose learners have a core or GPU of their own; on request, also
    those on `synthetic` images of the same size, in series of their own."""
    own = {run.run_id for run in parquet.origins(EXPERIMENT, results) if not run.config.get("oversubscribe", False)}
    of_epochs = epochs.read(EXPERIMENT, results)
    return prepared(of_epochs[of_epochs.run_id.isin(own)], ("fashion", "synthetic") if synthetic else ("fashion",))


def prepared(of_epochs: pd.DataFrame, datasets: Sequence[str] = ("fashion",)) -> pd.DataFrame:
    """`comparisons.jobs` of the epochs, and of each run:

    unit, series: what a learner is, and with it all that describes the run but its size.
    ten_seconds, ten_basis: training time of the homework's ten epochs; measured where the run has them whole, else
        projected: the steps of ten epochs times the time of a step.
    accuracies: after each epoch, as far as it was tested.
    """
    asked = (of_epochs.kind == "measured") & (of_epochs.network == "resnet50") & of_epochs.dataset.isin(datasets)
    kept = of_epochs[asked]
    jobs = named(comparisons.jobs(kept))
    whole = jobs.whole_epochs.astype(bool) & (jobs.epochs == EPOCHS) & (jobs.dataset == "fashion")
    jobs["ten_seconds"] = jobs.train_seconds.where(whole, ten_projected(jobs)).astype(float)
    jobs["ten_basis"] = np.where(whole, "measured", "projected")
    tested = kept.groupby(["run_id", "epoch"]).test_accuracy.first()
    jobs["accuracies"] = [tuple(tested[run].dropna()) for run in jobs.run_id]
    return jobs


def ten_projected(jobs: pd.DataFrame) -> pd.Series:
    """Seconds of ten epochs' steps at the job's `step_seconds`."""
    return EPOCHS * (IMAGES // jobs.effective_batch.astype(float)) * jobs.step_seconds.astype(float)


def named(jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs with `unit` and `series`: H200, and H200, 224 px, XLA."""
    unit = [unit_of(kind, device) for kind, device in zip(jobs.device_kind, jobs.device, strict=True)]
    return jobs.assign(unit=unit, series=[_series(job) for job in jobs.to_dict("records")])


def unit_of(device_kind: str, device: str) -> str:
    """What a learner computes on, in short: H200, or CPU."""
    return short_name(device).removeprefix("NVIDIA ") if device_kind == "gpu" else "CPU"


def _series(job: dict[Any, Any]) -> str:
    gpu = job["device_kind"] == "gpu"
    how = setting(job).removeprefix("float32").removeprefix(", ")  # float32 goes without saying
    words = [unit_of(str(job["device_kind"]), str(job["device"])), f"{job['image_size']:g} px", *filter(None, [how])]
    if not gpu or job["strategy"] == "multiworker":
        words.insert(1, str(STRATEGIES[str(job["strategy"])]))
    if job["dataset"] == "synthetic":
        words.append("synthetic images")
    if not gpu and job["threads"] != 1:
        words.append(f"{job['threads']} cores a learner")
    return ", ".join(words)


def setting(job: dict[Any, Any]) -> str:
    """How a job computes: float32, XLA, 10 steps a call."""
    words = [str(job["precision"]), "XLA" if job["jit_compile"] else ""]
    words.append(f"{job['steps_per_execution']} steps a call" if job["steps_per_execution"] != 1 else "")
    return ", ".join(filter(None, words))


# ---- which are shown -----------------------------------------------------------------------------------------------


@selects
def homework(jobs: pd.DataFrame) -> pd.DataFrame:
    """The homework's ten jobs: default all-reduce, or AUTO; 64 images a learner, or 256 in all."""
    default = (jobs.strategy == "mirrored") & (jobs.all_reduce == "default")
    automatic = (jobs.strategy == "multiworker") & (jobs.communication == "auto")
    return in_both(jobs[(default | automatic) & (jobs.base == jobs.scaling.map(BASES))])


def in_both(jobs: pd.DataFrame) -> pd.DataFrame:
    """With 4 learners weak scaling's job is strong scaling's: 64 images a learner, 256 in all. It stands in both, and
    `shared` marks it. A frame that has this column is returned as it is: its jobs were asked for before."""
    if "shared" in jobs:
        return jobs
    jobs = jobs.assign(shared=(jobs.per_learner_batch == BASES["weak"]) & (jobs.effective_batch == BASES["strong"]))
    other = jobs[jobs.shared]
    scaling = other.scaling.map({"weak": "strong", "strong": "weak"})
    return pd.concat([jobs, other.assign(scaling=scaling, base=scaling.map(BASES))])


@selects
@remembered
def shown(jobs: pd.DataFrame) -> pd.DataFrame:
    """The homework's jobs that form series of at least two sizes, weak and strong scaling each from one allocation
    (`comparisons.main`)."""
    asked = homework(jobs)
    found = [comparisons.main(own, AXIS) for _, own in asked.groupby("scaling")]
    if not found:
        return asked
    # Runs whose host had other settings are another series of the same name: of those, too, one is shown.
    whole = pd.concat(found)
    where = ["series", "scaling", "allocation", "device", "environment"]
    rank = whole.groupby(where, as_index=False).agg(sizes=("learners", "nunique"), started=("started", "max"))
    best = rank.sort_values(["sizes", "started"], ascending=False).drop_duplicates(["series", "scaling"])
    kept = whole.merge(best[best.sizes > 1][where], on=where)
    return kept.sort_values(["series", "scaling", "learners", "repeat"]).reset_index(drop=True)


def ordered(frame: pd.DataFrame) -> list[str]:
    """The names of its series, the most telling first: GPUs, a job of one learner, larger images, more sizes."""
    ranked = frame.groupby("series").agg(
        gpu=("device_kind", lambda kind: (kind == "gpu").any()),
        one=("learners", lambda n: (n == 1).any()),
        pixels=("image_size", "first"),
        sizes=("learners", "nunique"),
        strategy=("strategy", "first"),  # the one for several nodes before the other
    )
    return list(ranked.sort_values(["gpu", "one", "pixels", "sizes", "strategy"], ascending=False).index)


def headlines(jobs: pd.DataFrame) -> list[pd.DataFrame]:
    """The series that answers are about: the first one on GPUs and the first one on cores, as far as there are any."""
    found = shown(jobs)
    of_kind = [found[found.device_kind == kind] for kind in ("gpu", "cpu")]
    return [frame[frame.series == ordered(frame)[0]] for frame in of_kind if len(frame)]


def on_gpus(jobs: pd.DataFrame) -> list[pd.DataFrame]:
    """The series on GPUs that answers about run times and cost are about."""
    return [frame for frame in headlines(timed(jobs)) if frame.device_kind.iloc[0] == "gpu"]


@selects
def drawn(jobs: pd.DataFrame) -> pd.DataFrame:
    """Of `shown` all series on GPUs and the first one on cores, in the order of `ordered`."""
    found = shown(jobs)
    if found.empty:
        return found
    names = ordered(found)
    cores = set(found.series[found.device_kind == "cpu"])
    first = next((name for name in names if name in cores), None)
    place = {name: i for i, name in enumerate(names) if name not in cores or name == first}
    kept = found[found.series.isin(place)]
    return kept.sort_values("series", key=lambda series: series.map(place), kind="stable")


def ten_epochs(jobs: pd.DataFrame) -> pd.DataFrame:
    """The runs of ten whole epochs."""
    return jobs[jobs.ten_basis == "measured"]


@selects
@remembered
def timed(jobs: pd.DataFrame) -> pd.DataFrame:
    """The jobs that run times come from: of each series of `shown` those of ten whole epochs in the allocation that has
    most sizes of them, which may be another one; else those from whose steps ten epochs are projected."""
    whole, rest = shown(ten_epochs(jobs)), shown(jobs)
    return pd.concat([whole, rest[~rest.series.isin(whole.series)]]) if len(whole) else rest


@selects
def elsewhere(jobs: pd.DataFrame, one: pd.DataFrame) -> pd.DataFrame:
    """For a series of weak or of strong scaling that rests on fewer repetitions: the sizes of it that another
    allocation repeated at least three times, of the allocation with most such sizes. Empty where there are not two."""
    asked, job = homework(jobs), first(one)
    none = asked.iloc[:0]
    if _repeats(one).min() >= ENOUGH:
        return none
    alike = asked[(asked.series == job.series) & (asked.scaling == job.scaling) & (asked.allocation != job.allocation)]
    often = [other[_repeats(other) >= ENOUGH] for other in comparisons.series(alike, AXIS)]
    several = [other for other in often if other.learners.nunique() > 1]
    return max(several, key=lambda other: (other.learners.nunique(), other.started.max()), default=none)


def _repeats(jobs: pd.DataFrame) -> pd.Series:
    """How often each job of a series was run."""
    return jobs.groupby(AXIS, dropna=False).run_id.transform("size")


def at(job: Any) -> dict[str, Any]:
    """Where on the axis a job is."""
    return {name: None if pd.isna(job[name]) else job[name] for name in AXIS}


def each(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Weak and strong scaling's jobs, as far as more than one size ran."""
    for scaling in BASES:
        one = frame[frame.scaling == scaling]
        if one.learners.nunique() > 1:
            yield scaling, one


def repeated(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Each job with its repetitions: series in the frame's order, weak scaling first, few learners first."""
    for name in dict.fromkeys(frame.series):
        for scaling in BASES:
            own = frame[(frame.series == name) & (frame.scaling == scaling)]
            for _, job in own.groupby(AXIS, dropna=False, sort=True):
                yield job


def ends(one: pd.DataFrame) -> tuple[Any, Any]:
    """The job with fewest and the one with most learners."""
    ranked = one.sort_values(["learners", "hosts", "repeat"])
    return ranked.iloc[0], ranked.iloc[-1]


def like(one: pd.DataFrame, job: Any) -> pd.DataFrame:
    """The job and its repetitions."""
    return comparisons.select(one, **at(job))


# ---- rows and text -----------------------------------------------------------------------------------------------


def each_row(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows, one after the other, as pandas Series: their fields are attributes."""
    return (row for _, row in frame.iterrows())


def first(frame: pd.DataFrame) -> Any:
    """What describes jobs that differ in nothing that matters."""
    return frame.iloc[0]


def note(estimates: Sequence[Estimate]) -> str:
    """What the intervals or ranges of a sentence are worth."""
    counts = {min(one.repetitions, ENOUGH) for one in estimates}
    if counts == {ENOUGH}:
        return f"Brackets hold 95 % intervals over at least {word(ENOUGH)} repetitions."
    if counts == {1}:
        return "Single runs, too few for a verdict."
    if counts == {1, ENOUGH}:
        return f"Brackets hold 95 % intervals over at least {word(ENOUGH)} repetitions; the rest are single runs."
    if ENOUGH in counts:
        single = "; numbers without brackets are single runs" if 1 in counts else ""
        several = f"where {word(ENOUGH)} repetitions or more ran"
        return f"Brackets hold 95 % intervals {several}, else ranges: no verdict{single}."
    return f"Fewer than {word(ENOUGH)} repetitions give a range and no verdict."


def over(job: Any) -> str:
    """What its learners are spread over."""
    link = f", {job.gbit:g} Gbit/s" if job.gbit == job.gbit else ""
    return f"{job.hosts} emulated hosts{link}" if job.hosts > 1 else "one host"


def place(job: Any) -> str:
    """What a job's learners compute on: H200 GPUs (32 px, float32), or CPU cores."""
    if job.device_kind == "cpu":
        return "CPU cores"
    return f"{job.unit} GPUs ({conditions(job)})"


def conditions(job: Any) -> str:
    """Size of the images, and how a job computes: 224 px, float32, XLA."""
    return f"{job.image_size:g} px, {setting(job.to_dict())}"


def sized(job: Any) -> str:
    """A job as learners × images of each: weak, 2 × 64."""
    return f"{job.scaling}, {job.learners} × {job.per_learner_batch}"


def rate_text(value: float) -> str:
    """Images per second: three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def milliseconds(value: float) -> str:
    """Seconds in ms, three digits."""
    return f"{1000 * value:.3g}" if value < 1 else f"{1000 * value:,.0f}"


def median_range(values: pd.Series, write: Callable[[float], str] = rate_text) -> str:
    """The median and, of several values, the range."""
    several = f" ({write(values.min())}–{write(values.max())})" if len(values) > 1 else ""
    return write(values.median()) + several if len(values) else "–"


def within(low: float, high: float, form: str = "{:.2f}–{:.2f}") -> str | None:
    """An interval or range; None where a single run on each side leaves none."""
    return None if low == high else form.format(low, high)


def priced(unit: str) -> pd.DataFrame:
    """The prices of a device, dearest first; empty where the table has none."""
    table = prices.load()
    return prices.of(unit, table) if unit in set(table.device) else table.iloc[:0]


def table(lines: list[Any], headers: list[str], align: str, none: Missing) -> str | Missing:
    """A table whose first column says a thing once, or what is missing where there are no lines."""
    return show.table_text(show.once(lines), headers, align) if lines else none
