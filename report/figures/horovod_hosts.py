"""Problem 1.4: as many learners as the homework's two nodes have, on two hosts and on one."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from experiments.machine.device_names import short_name
from experiments.scaling.link import ring_seconds
from report import palette, show
from report.answers import Answer, Missing
from report.comparisons import Incomparable, length, ratio, series, spread
from report.estimates import word
from report.figures.horovod_runs import ON_TWO_HOSTS, SIZE, median_range, rates_text
from report.used import selects

PLACE = ["learners", "hosts", "gbit", "launcher"]
ASKED = 10.0  # Gbit/s between nodes, as Amazon stated for instances with 8 K80


@selects
def on_two_hosts(runs: pd.DataFrame) -> pd.DataFrame:
    """The jobs to compare, of one allocation: the largest number of learners N on two hosts, and N and N/2 on one."""
    best = runs.iloc[:0]
    for one in series(runs[runs.allreduce.astype(bool)], PLACE):
        two = one[one.hosts == 2]
        n = two.learners.max()
        kept = pd.concat([two[two.learners == n], one[(one.hosts == 1) & one.learners.isin([n // 2, n])]])
        if len(two) and _kinds(kept) > _kinds(best):
            best = kept
    return best


def _kinds(jobs: pd.DataFrame) -> tuple[int, int]:
    return len(jobs[PLACE].drop_duplicates()), len(jobs)


def _place(job: Any) -> dict[str, Any]:
    """What tells a job from the others of the comparison."""
    return {name: None if pd.isna(getattr(job, name)) else getattr(job, name) for name in PLACE}


def _alone(jobs: pd.DataFrame, learners: int) -> dict[str, Any] | None:
    """That many learners on one host, if they ran."""
    found = jobs[(jobs.hosts == 1) & (jobs.learners == learners)]
    return _place(found.iloc[0]) if len(found) else None


def answer_p1_hosts(runs: pd.DataFrame) -> Answer | Missing:
    """1.4: N learners on two hosts against N/2 on one and N on one, in throughput and in time."""
    jobs = on_two_hosts(runs)
    if jobs.empty or _alone(jobs, int(jobs.learners.max()) // 2) is None:
        return Missing("Jobs on two hosts, beside half as many learners on one", ON_TWO_HOSTS)
    n = int(jobs.learners.max())
    half, full = _alone(jobs, n // 2), _alone(jobs, n)
    links = jobs[jobs.hosts == 2].drop_duplicates("gbit").sort_values("gbit", na_position="last")
    first = links.iloc[int((links.gbit - ASKED).abs().argmin())] if links.gbit.notna().any() else links.iloc[0]
    of, to = _place(first), half or {}
    framework = str(jobs.series.iloc[0]).partition(",")[0]
    faster = ratio(jobs, of=of, to=to).text("times", f"as many images per second as {word(n // 2)} on one host")
    text = f"On two hosts with {_link(first)} between them, {n} CPU learners ({framework}) train {faster}"
    if full is not None:
        text += f", and {ratio(jobs, of=of, to=full).brief(after=f'as many as {word(n)} on one host')}"
    text += f". {_longer(jobs, of, to)}"
    slow = links.iloc[0]
    if slow.gbit < first.gbit:
        rate = ratio(jobs, of=_place(slow), to=to).brief("times")
        text += f" With {_link(slow)}, they train {rate} as many images per second as the {word(n // 2)}."
    device = f"{n} cores of an {short_name(jobs.device.iloc[0])}, two hosts emulated"
    return Answer("1.4", text, device, len(jobs), "measured", "tbl-p1-hosts")


def _link(job: Any) -> str:
    return "no limit to the link" if pd.isna(job.gbit) else f"{job.gbit:g} Gbit/s"


def _longer(jobs: pd.DataFrame, of: dict[str, Any], to: dict[str, Any]) -> str:
    """The run time against the smaller job's, or where their lengths differ a step's."""
    try:
        job, times = jobs.iloc[0].to_dict(), ratio(jobs, of=of, to=to, value="train_seconds").brief("times")
        return f"The {length(job)} take {times} as long as with {word(to['learners'])}."
    except Incomparable:
        times = ratio(jobs, of=of, to=to, value="step_seconds").brief("times")
        return f"A step takes {times} as long as with {word(to['learners'])}."


def tbl_p1_hosts(runs: pd.DataFrame) -> str | Missing:
    """Throughput, a step and run time of these jobs, and the least time that the link needs for a step's gradients."""
    jobs = on_two_hosts(runs)
    if jobs.empty:
        return Missing("Jobs on two hosts", ON_TWO_HOSTS)
    one_length = len({length(job) for job in jobs.to_dict("records")}) == 1
    lines = []
    for _, group in jobs.sort_values(["hosts", "learners", "gbit"]).groupby(PLACE, dropna=False, sort=False):
        job, two = group.iloc[0], group.hosts.iloc[0] == 2
        measured = group.link_gbit.median()
        link = ("no limit" if pd.isna(job.gbit) else f"{job.gbit:g}") + f" ({measured:.3g})"
        times = [median_range(group.train_seconds)] if one_length else []
        lines.append(
            (int(job.learners), int(job.hosts), link if two else "–", rates_text(group.rate),
             f"{group.step_seconds.median():.2f}", *times, f"{_least(job, measured):.2f}" if two else "–")
        )  # fmt: skip
    headers = ["N", "Hosts", "Gbit/s (measured)", "Images/s (range)", "Step (s)", "Epochs (s)", "Ring's least (s)"]
    if not one_length:
        headers.remove("Epochs (s)")
    return show.table_text(lines, headers, "r" * len(headers))


def _least(job: pd.Series, gbit: float) -> float:
    """Seconds that a ring's busiest link needs for a step's gradients at that speed, without latency."""
    return ring_seconds(int(job.learners), int(job.gradient_bytes), 0, 8 / (gbit * 1e9))


def fig_p1_link(runs: pd.DataFrame) -> alt.TopLevelMixin | Missing:
    """Throughput on two hosts against the measured speed of their link, beside N and N/2 learners on one host."""
    jobs = on_two_hosts(runs)
    if jobs.empty:
        return Missing("Throughput against the link's speed", ON_TWO_HOSTS)
    two = jobs[jobs.hosts == 2]
    links = two.groupby("gbit", dropna=False).link_gbit.median().rename("link")
    points = spread(two, PLACE).merge(links, left_on="gbit", right_index=True)
    points = points[["link", "gbit", "value", "low", "high", "repetitions"]]
    axis = alt.Axis(values=[m * 10**e for e in range(-1, 4) for m in (1, 2, 5)], format="~g")
    scale = alt.Scale(type="log", nice=False, padding=15)
    x = alt.X("link:Q", title="link, measured (Gbit/s, log)", scale=scale, axis=axis)
    cores = palette.DEVICES["CPU"]
    y = alt.Y("value:Q", title="images/s", scale=alt.Scale(zero=True))
    base = alt.Chart(points).encode(x=x)
    tips = ["gbit", "link", "value", "low", "high"]
    layers = [
        base.mark_rule(color=cores).encode(y=alt.Y("low:Q", title="images/s"), y2="high:Q"),
        base.mark_point(**palette.MEASURED_POINT, color=cores).encode(y=y, tooltip=tips),
    ]
    alone = jobs[jobs.hosts == 1].groupby("learners").rate.median().reset_index(name="value")
    if len(alone):
        alone["name"] = alone.learners.map("{} learners on one host".format)
        rules = alt.Chart(alone).encode(y=y)
        layers.append(rules.mark_rule(color="black").encode(tooltip=["name", "value"]))
        layers.append(rules.mark_text(align="left", x=4, dy=-7, fontSize=12).encode(text="name:N"))
    return alt.layer(*layers).properties(**SIZE)
