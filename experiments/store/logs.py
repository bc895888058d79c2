"""A run's log against its rows: what a script printed while it ran must be what it stored, as far as it printed it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pandas as pd

from experiments.store import epochs

NUMBER = r"-?[\d,]*\.?\d+(?:e[-+]\d+)?|nan|NaN|<NA>"


class Lines(NamedTuple):
    """What an experiment's scripts print of their rows."""

    pattern: re.Pattern[str]  # of a line; its groups are named as the columns of `rows`
    keys: list[str]  # which of the groups tell the lines apart; without any, a line is of the row in its place
    rows: Callable[[pd.DataFrame], pd.DataFrame]  # what the lines of runs should say, from their stored rows
    slack: float = 0.0  # of a rate, where the row has the slowest learner's and the line the first one's


def _lines(text: str, keys: str, rows: Callable[[pd.DataFrame], pd.DataFrame], slack: float = 0.0) -> Lines:
    """{name} stands for a number of that name, {name:} for a word; spaces for any."""
    named = re.sub(r"\{(\w+):\}", r"(?P<\1>\\S+)", text)
    named = re.sub(r"\{(\w+)\}", lambda found: f"(?P<{found[1]}>{NUMBER})", named)
    return Lines(re.compile(r"\s*" + re.sub(" +", r"\\s+", named)), keys.split(), rows, slack)


def _first(rows: pd.DataFrame, experiment: str) -> pd.DataFrame:
    """Epochs of the first learner or worker, which is the one that prints."""
    rows = rows[rows[epochs.MEMBER[experiment]] == 0]
    found = epochs.derive(rows, experiment) if "phase" in rows else rows
    return found.rename(columns={"train_loss": "loss"})


def _p2(rows: pd.DataFrame) -> pd.DataFrame:
    found = _first(rows, "p2_strategy")
    return found.assign(rate=found.steps * found.effective_batch / found.seconds)


def _p4(rows: pd.DataFrame) -> pd.DataFrame:
    percent = {f"{name}_percent": 100 * rows[f"{name}_error"] for name in ("train", "val")}
    return rows.assign(rate=rows.images / rows.train_seconds, **percent)


def _windows(rows: pd.DataFrame, *by: str) -> pd.DataFrame:
    rate = ("images_per_second", "median")
    least, most = ("images_per_second", "min"), ("images_per_second", "max")
    return rows.groupby(["run_id", *by], as_index=False).agg(rate=rate, least=least, most=most)


def _allreduce(rows: pd.DataFrame) -> pd.DataFrame:
    found = rows.groupby(["run_id", "bytes"], as_index=False).agg(
        seconds=("seconds", "median"), learners=("learners", "first"), iterations=("iterations", "first")
    )
    bus = 2 * (found.learners - 1) / found.learners * found.bytes / found.seconds
    return found.assign(microseconds=1e6 * found.seconds, bus=bus / 1e9)


P2_INPUT = {"fed": "pipeline:", "resident": "batch:"}
FIT = "(?:fitted|projected|chosen on|held out) {learners} {per_learner_batch} {observed} {predicted} {low} {high}"
LINES = {
    "allreduce": _lines(
        "{bytes} bytes {microseconds} µs bus {bus} GB/s {iterations} iterations a window", "bytes", _allreduce
    ),
    "p1_horovod": _lines(
        r"epoch {epoch} of {epochs_planned}: loss {loss}, {images_per_second} images/s a learner",
        "epoch",
        lambda rows: _first(rows, "p1_horovod"),
    ),
    "p2_input": _lines(
        r"(?:input|resident) {contender:} {rate} images/s \({least} to {most}\)",
        "contender",
        lambda rows: _windows(rows, "contender").replace({"contender": P2_INPUT}),
    ),
    "p2_strategy": _lines(r"epoch {epoch} of {epochs_planned}: loss {loss}, {rate} images/s$", "epoch", _p2),
    "p3_crosscheck": _lines(
        r"{net:} {counter:} {layers} {kernel} {quantity:} {value}$", "net counter layers kernel quantity", lambda r: r
    ),
    "p4_cutout": _lines(
        "epoch {epoch} lr {learning_rate} train {train_loss} {train_percent}% val {val_loss} {val_percent}% "
        "{rate} images/s {wall_seconds} s",
        "epoch",
        _p4,
    ),
    "p4_split": _lines("epoch {epoch}: train {train_loss}, {images_per_second} images/s", "epoch", lambda r: r, 0.05),
    "p4_throughput": _lines(
        r"{M} {contender:} {rate} \({least}–{most}\)", "M contender", lambda rows: _windows(rows, "M", "contender")
    ),
    "scaling_ahead": _lines(f".*{FIT}$", "", lambda rows: rows),
    "scaling_fit": _lines(f".*{FIT} {{error}}$", "", lambda rows: rows),
}


def _number(text: str) -> tuple[float, float]:
    """A printed number and half of its last digit; NaN for none."""
    plain = text.replace(",", "")
    if plain in ("nan", "NaN", "<NA>"):
        return float("nan"), 0.0
    digits, _, power = plain.partition("e")
    decimals = len(digits.partition(".")[2]) - int(power or 0)
    return float(plain), 0.5 * 10.0**-decimals


def _agrees(said: str, row: object, slack: float = 0.0) -> bool:
    if isinstance(row, str):
        return said == row
    number, half = _number(said)
    value = float("nan") if pd.isna(row) else float(row)  # type: ignore[call-overload, arg-type]
    return (number != number and value != value) or abs(number - value) <= 1.001 * half + (1e-9 + slack) * abs(value)


def _key(values: Iterable[object]) -> tuple[object, ...]:
    """What tells a line apart, alike from a log and from a row: numbers as such, and NaN as none."""
    found = (_number(v)[0] if isinstance(v, str) and re.fullmatch(NUMBER, v) else v for v in values)
    return tuple(None if pd.isna(v) else v for v in found)  # type: ignore[call-overload]


def should_say(rows: pd.DataFrame, experiment: str) -> dict[str, pd.DataFrame]:
    """What the logs of these runs should say, by run id; empty for an experiment whose logs say nothing of rows."""
    form = LINES.get(experiment)
    if form is None or rows.empty:
        return {}
    return {str(name): own for name, own in form.rows(rows).groupby("run_id")}


def differences(log: str, should: pd.DataFrame, experiment: str) -> list[str] | None:
    """What the log of a run says otherwise than its rows; None where it says nothing of them."""
    form = LINES[experiment]
    named = [name for name in should.columns if name in form.pattern.groupindex]
    records = should[named].to_dict("records")
    by_key = {_key(row[name] for name in form.keys): row for row in records}
    matched = [found for line in log.splitlines() if (found := form.pattern.match(line))]
    wrong = []
    for place, found in enumerate(matched):
        said, line = found.groupdict(), found[0].strip()
        in_place = records[place] if place < len(records) else None
        row = by_key.get(_key(said[name] for name in form.keys)) if form.keys else in_place
        if row is None:
            wrong.append(f"its log has a line of no row: {line}")
            continue
        slack = {"images_per_second": form.slack}
        other = [name for name, value in said.items() if not _agrees(value, row[name], slack.get(name, 0.0))]
        wrong += [f"its log says {name} {said[name]}, its rows {row[name]}: {line}" for name in other]
    return wrong if matched else None


def foreign(log: str, run_id: str, device: str) -> list[str]:
    """Where the log names the run and its device, as "… RUN on DEVICE", another device."""
    named = re.search(rf"^\S+ {re.escape(run_id)} on (.+?)(?:, set-up .*)?$", log, re.MULTILINE)
    return [f"its log names the device {named[1]}, its provenance {device}"] if named and named[1] != device else []
