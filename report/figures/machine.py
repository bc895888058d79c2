"""The reader's own machine: what was measured on it, its answers, its all-reduces, and what more learners would bring.

Each function takes one of the reader's folders (`yours.own`).
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import groupby
from typing import Any

import altair as alt
import pandas as pd

from experiments.cli import UsageError
from experiments.scaling import outlook, published
from experiments.store import parquet
from experiments.store.files import RESULTS
from report import palette, show, yours
from report.answers import Answer, Missing
from report.comparisons import relative, series, trusted
from report.figures import (
    augmentation,
    augmentation_runs,
    augmentation_time,
    horovod,
    horovod_hosts,
    horovod_runs,
    machine_cores,
    scaling_link,
    strategy,
    strategy_costs,
    strategy_efficiency,
    strategy_reductions,
    strategy_runs,
)
from report.figures.horovod_runs import LEARNERS, SIZE, rate_text
from report.yours import MEASURE, Own

PRICE = "DLPERF_PRICE"  # USD an hour of one learner's device, for the projection
NUMBERS = [2, 4, 8, 16]
OF_HOROVOD = (
    horovod.answer_p1_throughput,
    horovod.answer_p1_scaling,
    horovod.answer_p1_batch,
    horovod_hosts.answer_p1_hosts,
)
OF_STRATEGY = (
    strategy.answer_p2_throughput,
    strategy.answer_p2_time,
    strategy_costs.answer_p2_cost,
    strategy_efficiency.answer_p2_efficiency,
    strategy_reductions.answer_p2_allreduce,
    strategy_reductions.answer_p2_communication,
)
OF_AUGMENTATION = (augmentation.answer_p4_baseline, augmentation_time.answer_p4_augmentation)


def display() -> None:
    """Display the page about each of the reader's folders."""
    for piece in (piece for own in yours.own() for piece in pieces(own)):
        show.markdown(piece) if isinstance(piece, str) else show.chart(piece)


def pieces(own: Own) -> list[Any]:
    """All of the page about a folder, in its order: Markdown and charts."""
    made: list[Any] = [f"## {show.capitalised(own.name)}", text_machine_runs(own), tbl_machine_runs(own)]
    made += ["### Answers", tbl_machine_answers(own), "### Speed-up beside the committed machines"]
    made += [fig_machine_speedup(own), "### All-reduce", fig_machine_allreduce(own)]
    return [*made, "### Projection", tbl_machine_projection(own)]


def text_machine_runs(own: Own) -> str:
    """How many runs the folder has, of which version and allocations."""
    found = parquet.origins(results=own.folder)
    where = len({run.where for run in found})
    first, last = min(run.started for run in found), max(run.ended for run in found)
    text = f"{len(found)} runs from {where} allocation{'s' * (where > 1)}, {first:%Y-%m-%d %H:%M} to {last:%H:%M} UTC."
    if any(run.config.get("dataset") == "synthetic" for run in found):
        text += " The images of Problem 2 or 4 are synthetic, in place of the data set."
    return " ".join(filter(None, [text, yours.other_version(own.folder)]))


def tbl_machine_runs(own: Own) -> str:
    """The folder's runs by experiment, with the longest and all of their time."""
    found = parquet.origins(results=own.folder)
    rows = []
    for experiment, count in sorted(Counter(run.experiment for run in found).items()):
        spans = [(run.ended - run.started).total_seconds() for run in found if run.experiment == experiment]
        rows.append((experiment, count, show.seconds(max(spans)), show.seconds(sum(spans))))
    return show.table_text(rows, ["Experiment", "Runs", "Longest", "All"], "lrrr")


def answers(own: Own) -> dict[str, Answer | Missing]:
    """The parts' answers from the folder's runs alone; of those without runs, the command that makes them."""
    jobs = horovod_runs.load(own.folder), strategy_runs.load(own.folder, synthetic=True)
    frames = [jobs[0]] * len(OF_HOROVOD) + [jobs[1]] * len(OF_STRATEGY)
    frames += [augmentation_runs.load(own.folder)] * len(OF_AUGMENTATION)
    parts = ["1.1", "1.2", "1.3", "1.4", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "4.2", "4.3"]
    found: dict[str, Answer | Missing] = {}
    for part, answer, frame in zip(parts, [*OF_HOROVOD, *OF_STRATEGY, *OF_AUGMENTATION], frames, strict=True):
        found[part] = yours.tried(answer)(frame)
        if part[0] == "2":
            found[part] = machine_cores.stand_in(part, found[part], frame)
    return found


def tbl_machine_answers(own: Own) -> str:
    """Each part's answer, or what would make it; once for parts in a row that lack the same."""
    rows = []
    for lacks, group in groupby(answers(own).items(), key=lambda pair: getattr(pair[1], "command", None)):
        parts = list(group)
        if lacks is None:
            rows += [(part, answer.sentence, answer.device) for part, answer in parts if isinstance(answer, Answer)]
        else:
            commands = " or ".join(f"`{command}`" for command in lacks.splitlines())
            which = "–".join(dict.fromkeys((parts[0][0], parts[-1][0])))
            rows.append((which, f"*Not measured here:* {commands}", "–"))
    return show.table_text(rows, ["Part", "Answer", "On"], "lll")


def speedups(own: Own) -> pd.DataFrame:
    """Problem 1's speed-up of every series: the folder's, and the committed ones; `whose`, `name`, `learners`."""
    found = []
    for whose, folder in ((own.name, own.folder), (yours.COMMITTED, RESULTS)):
        for one in series(horovod_runs.shown(horovod_runs.load(folder))):
            if (one.learners == 1).any() and one.learners.nunique() > 1:
                found.append(relative(one).assign(whose=whose))
    if not found:
        return pd.DataFrame(columns=["whose", "name", "learners", "speedup", "speedup_low", "speedup_high"])
    points = pd.concat(found, ignore_index=True)
    return points.assign(
        name=[n if w != own.name else f"{w}, {n}" for w, n in zip(points.whose, points.series, strict=True)]
    )


def fig_machine_speedup(own: Own) -> alt.TopLevelMixin | str:
    """The speed-up of Horovod's learners, the reader's series first."""
    points = speedups(own)
    if own.name not in set(points.whose):
        return f"*Not measured here:* `{MEASURE} --problems 1`"
    names = list(dict.fromkeys(points.name))
    columns = ["name", "learners", "speedup", "speedup_low", "speedup_high"]
    color = alt.Color("name:N", title=None, scale=alt.Scale(domain=names, range=palette.series(names)),
                      legend=alt.Legend(columns=1, labelLimit=400))  # fmt: skip
    log = alt.Scale(type="log", base=2)
    base = alt.Chart(points[columns]).encode(x=LEARNERS, color=color)
    bars = base.mark_rule().encode(y=alt.Y("speedup_low:Q", scale=log), y2="speedup_high:Q")
    lines = base.mark_line().encode(y=alt.Y("speedup:Q", title="speed-up over one learner", scale=log))
    marks = base.mark_point(**palette.MEASURED_POINT).encode(
        y="speedup:Q", tooltip=["name", "learners", alt.Tooltip("speedup", format=".3~g")]
    )
    most = int(points.learners.max())
    ideal = alt.Chart(pd.DataFrame({"learners": [1, most], "speedup": [1, most]}))
    ideal = ideal.mark_line(**palette.IDEAL_LINE).encode(x=LEARNERS, y="speedup:Q")
    return alt.layer(ideal, bars, lines, marks).properties(**SIZE)


def fig_machine_allreduce(own: Own) -> alt.TopLevelMixin | str:
    """The folder's all-reduces above the committed ones."""
    mine = scaling_link.fig_scaling_links(trusted("allreduce", own.folder))
    if isinstance(mine, Missing):
        return f"*Not measured here:* `{MEASURE} --problems 1`"
    theirs = scaling_link.fig_scaling_links(trusted("allreduce", RESULTS))
    if isinstance(theirs, Missing):
        return mine
    titled: list[Any] = [mine.properties(title=own.name), theirs.properties(title=yours.COMMITTED)]
    return alt.vconcat(*titled).resolve_scale(color="independent", shape="independent", x="independent")


def price() -> float | None:
    """What the reader says that an hour of one device costs (USD). Raises UsageError for no number."""
    text = os.environ.get(PRICE)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UsageError(f"{PRICE} must be a positive number of US dollars, not {text!r}")
    return value


def tbl_machine_projection(own: Own) -> str:
    """What more learners would bring and cost, marked as the projection that it is, with its known errors."""
    try:
        alone = outlook.series(own.folder)
    except UsageError:
        return f"*No projection without one learner's runs:* `{MEASURE} --problems 1`"
    link = outlook.measured_link(own.folder, alone.allocation)
    if link is None:
        return f"*No projection without a timed all-reduce of the same allocation:* `{MEASURE} --problems 1`"
    committed = outlook.on_committed(RESULTS)
    found = outlook.project(alone, link, NUMBERS, outlook.most_promised(committed), price())
    rows = [
        (
            *(p.learners, f"{rate_text(p.rate)} ({rate_text(p.low)}–{rate_text(p.high)})"),
            *(show.percent(p.efficiency, 1), show.seconds(3600 * p.hours)),
            None if p.cost is None else f"${p.cost:,.2f}",
            None if p.measured is None else rate_text(p.measured),
        )
        for p in found
    ]
    headers = ["N", "Images/s, projected", "Efficiency", "Time", "Cost", "Measured"]
    errors = outlook.errors_text(committed, outlook.on_published(published.load()), found)
    return "\n".join(
        [
            f"**A projection** from one learner of {alone.name} with {alone.batch:g} images a step; all-reduce: "
            f"{link.source}. Time and cost are those of Problem 2's ten epochs. `python experiments/predict.py --from "
            "DIR --link 100gbit --price USD` projects other networks.",
            "",
            show.table_text(rows, headers, "rrrrrr"),
            "",
            "Predicted against measured, by the same method:",
            "",
            *(f"- {line}" for line in errors),
        ]
    )
