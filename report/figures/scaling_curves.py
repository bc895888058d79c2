"""More learners from few: the fitted model beside two simple rules, and where it fails."""

from __future__ import annotations

import altair as alt
import pandas as pd

from experiments.scaling import published
from experiments.scaling.series import records
from report import palette, show
from report.answers import Answer, Missing
from report.figures.horovod_runs import rate_text
from report.figures.scaling_runs import (
    FIT,
    OBSERVED,
    RULES,
    batch,
    held,
    interval,
    loss_per_doubling,
    mean_errors,
    signed,
    straight_line,
)

NONE = Missing("Predictions of held-out points", FIT)
BEYOND = (8, 16)  # the homework's numbers of GPUs that this project had no machine for
FORMS = {
    "bandwidth": "a ring's bandwidth",
    "latency": "a ring's latency",
    "tree": "a tree",
    "mean": "the mean of the three",
}
WIDTH = 560


def answer_scaling_rules(rows: pd.DataFrame) -> Answer | Missing:
    """Which of the three rules comes nearest to the held-out points, by its mean absolute error."""
    points = held(rows)
    known = points[points.basis == "published"]
    if known.empty:
        return NONE
    answers = [f"Over {len(known)} held-out points of published curves, {_misses(known)}."]
    own = points[points.basis == "measured"]
    if len(own):
        cores = int((~own.series.str.contains("NVIDIA")).sum())
        answers.append(f"Over {len(own)} points of this project's runs, {cores} of them on CPU cores, {_misses(own)}.")
    best = {_order(each)[0] for each in (known, own) if len(each)}
    return Answer(
        "5.2", f"{' '.join(answers)} {_verdict(best)}", "held-out points", len(known) + len(own), "projected",
        "tbl-scaling-rules",
    )  # fmt: skip


def _order(points: pd.DataFrame) -> list[str]:
    """The rules, the best first."""
    errors = mean_errors(points)
    return sorted(RULES, key=lambda name: errors[name])


def _misses(points: pd.DataFrame) -> str:
    """Each rule's mean absolute error over these points."""
    errors, names = mean_errors(points), _order(points)
    first, *others = (f"{_article(name)} by {show.percent(errors[name], 1)}" for name in names)
    return f"{first.replace(' by ', ' misses by ')} on average, {show.listing(others)}"


def _article(name: str) -> str:
    return {"model": "the fitted model", "line": "a straight line", "doubling": "a constant loss per doubling"}[name]


def _verdict(best: set[str]) -> str:
    """What to use, by the rules that came first: over published curves, and over this project's runs."""
    if best == {"model"}:
        return "The model is better than both simple rules."
    if len(best) > 1:
        return (
            "**No rule is best for both**, so take the difference between the rules as part of a projection's "
            "uncertainty. Only the model covers another batch, link or price."
        )
    return (
        "**The model does no better than this simple rule**, so use the rule as long as only the number of learners "
        "changes. The model is for what no such rule covers: another batch, link or price."
    )


def tbl_scaling_rules(rows: pd.DataFrame) -> str | Missing:
    """Mean and largest absolute error of each rule, over published and over measured points."""
    points = held(rows)
    if points.empty:
        return NONE
    bases = {name: own for name, own in ((b, points[points.basis == b]) for b in OBSERVED) if len(own)}
    lines = []
    for rule, name in RULES.items():
        line: list[str] = [name]
        for own in bases.values():
            worst = own.iloc[int(own[rule].abs().argmax())]
            line += [show.percent(mean_errors(own)[rule], 1), signed(worst[rule], 0)]
        lines.append(line)
    headers = ["Rule"]
    for basis, own in bases.items():
        headers += [f"Mean of {len(own)} {basis}", "Largest"]
    return show.table_text(lines, headers, "l" + "rr" * len(bases))


def fig_scaling_rules(rows: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The error of each held-out point, by rule; published points above measured ones."""
    points = held(rows)
    if points.empty:
        return NONE
    marks = pd.DataFrame(
        {"rule": name.replace(" through the last fitted point", ""), "error": 100 * getattr(p, rule), "basis": p.basis}
        | {"series": p.series, "learners": p.learners, "batch": batch(p) or "not stated"}
        for p in records(points)
        for rule, name in RULES.items()
    )
    marked = palette.PROJECTED_POINT | {"size": 40, "strokeDash": [], "opacity": 0.8, "color": palette.MODEL}
    views = []
    for basis, title in OBSERVED.items():
        own = marks[marks.basis == basis]
        if own.empty:
            continue
        tips = ["series", "learners", "batch", alt.Tooltip("error", format="+.1f", title="error (%)")]
        x = alt.X("error:Q", title="projected over observed (%)")
        y = alt.Y("rule:N", title=None, sort=None, axis=alt.Axis(labelLimit=200))
        dots = alt.Chart(own).mark_point(**marked).encode(x=x, y=y, tooltip=tips)
        zero = alt.Chart(pd.DataFrame({"error": [0]})).mark_rule().encode(x="error:Q")
        count = len(own) // len(RULES)
        heading = f"{title}, {count} point{'s' * (count != 1)}"
        views.append(alt.layer(zero, dots).properties(width=WIDTH, height=66, title=heading))
    return alt.vconcat(*views)


def text_scaling_split(rows: pd.DataFrame) -> str:
    """What was fitted and what held out, from the rows."""
    points = held(rows)
    if points.empty:
        return "The fit has no curves."
    counts = points.groupby("fit_points").size().sort_values(ascending=False)
    each = show.listing(f"{count} from {_sizes(str(fitted))} learners" for fitted, count in counts.items())
    return f"A series' smaller numbers of learners are fitted, its largest never. Held-out points: {each}."


def text_scaling_choice(rows: pd.DataFrame) -> str:
    """How the form that predicts was chosen, with the errors that decided."""
    tried = rows[rows.role == "chosen on"]
    if tried.empty:
        return "The fit has no rows of the choice."
    errors = tried.error.abs().groupby(tried.method.str.removeprefix("choice, ")).mean().sort_values()
    count = len(tried) // len(errors)
    each = show.listing(f"{show.percent(error, 1)} for {FORMS[str(name)]}" for name, error in errors.items())
    return (
        "The form was chosen once, on fitted points alone: each was fitted to all but the largest of them and scored "
        f"on that. Over {count} such points of published curves the mean absolute errors are {each}. No held-out "
        "point took part in the choice."
    )


def text_scaling_intervals(rows: pd.DataFrame) -> str:
    """How many 80 % intervals hold their point."""
    points = held(rows)
    points = points[points.low.notna()]
    inside = int((points.low.le(points.observed) & points.high.ge(points.observed)).sum())
    should = 0.8 * len(points)
    return f"Of {len(points)} intervals {inside} hold their point; with 80 % intervals, about {should:.0f} should."


def text_scaling_more(rows: pd.DataFrame) -> str:
    """What both simple rules project for the homework's larger numbers of GPUs, from those that were measured."""
    on_gpus = set(rows[rows.method.str.startswith("link, ")].series)
    curves = rows[(rows.method == "curve") & rows.series.isin(on_gpus)]
    said = []
    for name, own in curves.groupby("series", sort=False):
        for _, points in own.groupby("per_learner_batch"):
            size = batch(points.iloc[0])
            ahead = [p for p in BEYOND if p > points.learners.max()]
            if points.learners.nunique() < 2 or not ahead:
                continue
            each = show.listing(f"{_both_rules(points, p)} images/s on {p}" for p in ahead)
            said.append(f"{str(name).removeprefix('Horovod ')} ({size} images each): {each}")
    if not said:
        return "No measured series of GPUs can be extended."
    return (
        "Projected from a constant loss per doubling to a straight line, the measured GPUs would reach:\n\n"
        + "\n".join(f"- {line}" for line in said)
        + "\n\nThis assumes that more GPUs are linked as well as these are, which holds inside one host at most."
    )


def _both_rules(points: pd.DataFrame, learners: int) -> str:
    """Images/s by a constant loss per doubling and by a straight line; once where both say the same."""
    rates = [rate_text(rule(points, learners)) for rule in (loss_per_doubling, straight_line)]
    return " to ".join(dict.fromkeys(rates))


def tbl_scaling_held(rows: pd.DataFrame) -> str | Missing:
    """Every held-out point, published or measured."""
    points = rows[(rows.role == "held out") & rows.method.isin(["curve", "borrowed"])]
    if points.empty:
        return NONE
    lines = [
        (
            *(p.series, batch(p), p.fit_points, p.learners, rate_text(p.observed)),
            *(rate_text(p.predicted) + (f" ({interval(p)})" if interval(p) else ""), signed(p.error)),
        )
        for p in records(points)
    ]
    headers = ["Series", "Batch", "Fitted to", "p", "Observed", "Projected (interval)", "Error"]
    return show.table_text(show.once(lines), headers, "lrlrrrr")


# ---- where it fails ------------------------------------------------------------------------------------------------


def demanding(rows: pd.DataFrame) -> pd.DataFrame:
    """Published held-out points whose batch is stated and gradient derived, with `demand`: the gradient's bytes for
    each second of computing."""
    points = held(rows)
    points = points[(points.basis == "published") & points.gradient_bytes.notna() & points.per_learner_batch.notna()]
    seconds = points.compute_seconds * points.per_learner_batch + points.overhead_seconds.fillna(0)
    return points.assign(demand=points.gradient_bytes / seconds)


def fig_scaling_demand(rows: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """The model's error against the demand."""
    points = demanding(rows)
    if points.empty:
        return NONE
    frame = points[["series", "network", "learners", "per_learner_batch"]].assign(
        demand=points.demand / 1e6, error=100 * points.error
    )
    legend = alt.Legend(columns=4)
    scale = alt.Scale(type="log", nice=False, padding=12)
    tips = ["series", "learners", alt.Tooltip("per_learner_batch", title="batch")]
    tips += [alt.Tooltip("demand", format=".0f", title="MB/s"), alt.Tooltip("error", format="+.1f", title="error (%)")]
    dots = (
        alt.Chart(frame)
        .mark_point(filled=False, size=60, strokeWidth=1.5, opacity=1)
        .encode(
            x=alt.X("demand:Q", title="gradient for a second of computing (MB, log)", scale=scale),
            y=alt.Y("error:Q", title="projected over published (%)"),
            color=alt.Color("network:N", title=None, legend=legend),
            shape=alt.Shape("network:N", title=None),
            tooltip=tips,
        )
    )
    zero = alt.Chart(pd.DataFrame({"error": [0]})).mark_rule().encode(y="error:Q")
    return alt.layer(zero, dots).properties(width=WIDTH, height=140)


def text_scaling_demand(rows: pd.DataFrame) -> str:
    """The largest error, what was fitted for it, and its demand among all."""
    points = demanding(rows)
    if points.empty:
        return "The fit has no such points."
    worst = points.iloc[int(points.error.abs().argmax())]
    rank = int((points.demand > worst.demand).sum())
    place = "the largest demand of all" if not rank else f"a demand that only {rank} of {len(points)} points exceed"
    far = points[points.learners == points.learners.max()]
    return (
        f"The largest error, {signed(worst.error, 0)}, is that of {worst.series} on {worst.learners} GPUs with "
        f"{batch(worst)} images each, which has {place}. It was fitted to {_sizes(worst.fit_points)} GPUs, and nothing "
        "on these tells what comes behind the next switch. The points with "
        f"{far.learners.iloc[0]} GPUs were fitted to {show.listing(dict.fromkeys(far.fit_points.map(_sizes)))}."
    )


def _sizes(points: str) -> str:
    return show.listing(points.split(", "))


def tbl_scaling_vgg(rows: pd.DataFrame) -> str | Missing:
    """VGG-16's efficiency from ResNet-101's, by what computing is measured in and what is hidden."""
    found = rows[rows.series == "Horovod VGG-16"]
    if found.empty:
        return Missing("The projection of VGG-16", FIT)
    lines = [
        (*p.method.removeprefix("bytes per ").split(", "), show.percent(p.predicted, 1), signed(p.error))
        for p in records(found)
    ]
    return show.table_text(lines, ["Computing by", "All-reduce", "Projected", "Error"], "llrr")


def text_scaling_vgg() -> str:
    """Why MACs mislead: the pace of both networks on one GPU."""
    sizes, seconds = published.networks(), published.p100_seconds(published.load())
    vgg, resnet = ((sizes[name], sizes[name][1] / seconds[name]) for name in ("VGG-16", "ResNet-101"))
    return (
        f"VGG-16 has {vgg[0][0] / resnet[0][0]:.1f} times the gradient and {vgg[0][1] / resnet[0][1]:.1f} times the "
        f"MACs. But MACs are not time: on a P100 its wide convolutions do {vgg[1] / resnet[1]:.1f} times as many of "
        "them in a second, so each byte has less computing beside it than the MACs suggest."
    )
