"""What holds for all inputs, on examples that hypothesis draws: always the same ones, few and small."""

from __future__ import annotations

import itertools
import string
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from derivations import cutout, layers
from experiments.cli import UsageError
from experiments.p2 import fashion_mnist
from experiments.p4 import augment, cifar10_archives
from experiments.p4.checkpoint import load_checkpoint
from experiments.p4.training import Config
from experiments.scaling import prices, published
from experiments.store import ledger, parquet
from experiments.store.files import write_atomically
from report import comparisons
from report.chapter import parse
from report.comparisons import SETTING, WHERE, Incomparable
from report.engine import Book
from report.sources import BookError
from tests.bad_files import CONFIG
from tests.cifar10_files import binary_archive, binary_files, load, put
from tests.frames import H100, H200, p1
from tests.stored_run import counts, origin

few = settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
small = st.integers(1, 12)

# ---- the layer algebra ----------------------------------------------------------------------------------------------


@few
@given(small, small, st.integers(1, 4), st.integers(0, 3))
def test_a_layer_has_an_output_for_each_place_of_its_window(n: int, k: int, s: int, p: int) -> None:
    assume(k <= n + 2 * p)
    places = [left for left in range(-p, n + p) if left + k <= n + p][::s]
    assert layers.output_size(n, k, s, p) == len(places)


@few
@given(small, small, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_a_convolution_counts_as_torch_builds_it(
    h: int, w: int, c: int, filters: int, k: int, s: int, bias: bool
) -> None:
    assume(k <= min(h, w))
    groups = c if filters % c == 0 else 1
    layer = layers.conv("one", layers.Shape(h, w, c), filters, k, s, groups=groups, bias=bias)
    built = torch.nn.Conv2d(c, filters, k, s, groups=groups, bias=bias, device="meta")
    out = built(torch.empty(1, c, h, w, device="meta"))
    assert (layer.out.c, layer.out.h, layer.out.w) == out.shape[1:]
    assert layer.parameters == sum(one.numel() for one in built.parameters())
    assert layer.macs == out.numel() * built.weight[0].numel()


@few
@given(st.lists(st.tuples(small, small), min_size=1, max_size=6), st.integers(0, 6))
def test_totals_of_parts_add_up(sizes: list[tuple[int, int]], cut: int) -> None:
    net = [layers.fc("one", layers.Shape(1, 1, a), b) for a, b in sizes]
    whole, left, right = layers.totals(net), layers.totals(net[:cut]), layers.totals(net[cut:])
    for name in ("activations", "weights", "biases", "macs", "parameters", "flops"):
        assert getattr(whole, name) == getattr(left, name) + getattr(right, name)


# ---- the comparison rule --------------------------------------------------------------------------------------------

runs = st.lists(
    st.fixed_dictionaries(
        {
            "allocation": st.sampled_from(["one", "two", ""]),
            "device": st.sampled_from([H100, H200]),
            "batch_size": st.sampled_from([32, 64]),
            "precision": st.sampled_from(["float32", "bfloat16"]),
            "learners": st.sampled_from([1, 2, 4]),
            "repeat": st.integers(1, 3),
            "environment": st.sampled_from(["{}", '{"TF32": "0"}']),
        }
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda run: tuple(run.values()),
)


def jobs(described: list[dict[str, Any]]) -> pd.DataFrame:
    frames = [p1([0.5, 0.4], **run).assign(run_id=f"run {k}") for k, run in enumerate(described)]
    return comparisons.jobs(pd.concat(frames, ignore_index=True))


def alike(frame: pd.DataFrame, *axis: str) -> bool:
    """Whether all jobs have one known allocation, one device and one setting but for the axis, or there is one job."""
    fixed = [name for name in [*WHERE, *SETTING] if name in frame and name not in axis]
    same = all(frame[name].nunique(dropna=False) == 1 for name in fixed)
    return same and (len(frame) == 1 or "" not in set(frame.allocation))


@few
@given(runs)
def test_a_series_shares_allocation_device_and_setting(described: list[dict[str, Any]]) -> None:
    frame = jobs(described)
    found = list(comparisons.series(frame))
    assert all(alike(one, "learners") for one in found)
    assert sorted(run for one in found for run in one.run_id) == sorted(frame.run_id)  # each is in one series
    shown = comparisons.main(frame)
    assert all(alike(one, "learners") for one in comparisons.series(shown)) and set(shown.run_id) <= set(frame.run_id)


@few
@given(runs)
def test_a_ratio_is_of_jobs_that_may_be_compared_or_refused(described: list[dict[str, Any]]) -> None:
    frame = jobs(described)
    for many, one in itertools.permutations([1, 2, 4], 2):
        try:
            comparisons.ratio(frame, of={"learners": many}, to={"learners": one})
        except Incomparable:
            continue
        compared = frame[frame.learners.isin([many, one])]
        assert alike(compared, "learners") and (compared.allocation != "").all()


@few
@given(runs)
def test_errors_are_pooled_over_allocations_of_one_device_and_code_alone(described: list[dict[str, Any]]) -> None:
    frame = pd.DataFrame(described).assign(code="one", error=range(len(described)))
    try:
        found = comparisons.pooled(frame, "error", ["batch_size", "precision"])
    except Incomparable:
        assert len(frame[["device", "batch_size", "precision"]].drop_duplicates()) > 1
    else:
        assert len(frame[["device", "batch_size", "precision"]].drop_duplicates()) == 1
        assert found.value == np.median(range(len(described)))


# ---- cutout ---------------------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 9), st.integers(1, 20))
def test_cutout_masks_a_box_inside_the_image_and_on_average_the_derived_share(side: int, hole: int) -> None:
    """Every centre once: the masked pixels are a box, its sides at most 2⌊L/2⌋, and their share is that of sympy."""
    centres = torch.tensor(list(itertools.product(range(side), repeat=2)))
    rows = torch.zeros(len(centres), 6, dtype=torch.int64)
    rows[:, [augment.TOP, augment.LEFT]] = augment.PAD
    rows[:, [augment.CENTRE_Y, augment.CENTRE_X]] = centres
    white = torch.full((1, side, side, 3), 255, dtype=torch.uint8)
    made = augment.transform(white, rows, hole, torch.zeros(3), torch.ones(3))
    assert made.shape == (side**2, 3, side, side) and set(made.unique().tolist()) <= {0.0, 1.0}
    for (y, x), masked in zip(centres.tolist(), (made[:, 0] == 0).numpy(), strict=True):
        ys, xs = (range(max(0, c - hole // 2), min(side, c + hole // 2)) for c in (y, x))
        expected = np.zeros((side, side), bool)
        expected[ys.start : ys.stop, xs.start : xs.stop] = True
        assert (masked == expected).all() and masked.sum() <= (2 * (hole // 2)) ** 2
    assert int((made[:, 0] == 0).sum()) == cutout.masked_share(hole, side) * side**4


# ---- readers: a value, or the documented error -----------------------------------------------------------------------


def afresh(path: Path) -> tuple[parquet.Run, pd.DataFrame]:
    """As it is now: a clock's tick may have room for two writes, which reading would take for one."""
    parquet._read_once.cache_clear()
    return parquet.read_run(path)


def stored_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return parquet.write(counts(1, 2, 3), origin(), results=Path(folder)).read_bytes()


def at(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """A reader of a file with this name in a folder."""

    def reading(folder: Path, content: bytes) -> object:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read(path)

    return reading


def archive(folder: Path, content: bytes) -> object:
    return load(put(folder, {"cifar-10-binary.tar.gz": content}))


def batches(folder: Path, content: bytes) -> object:
    return load(put(folder, binary_files() | {"data_batch_1.bin": content}))


CONFIGURATION = Config("synthetic", "cutout", 1, 16, 4, "authors", "fp32", "plain", 14, "cpu", 0)

READERS: dict[str, tuple[Callable[[Path, bytes], object], type[Exception], Callable[[], bytes]]] = {
    "a results file": (
        at("results/p3_crosscheck/a.parquet", afresh),
        parquet.SchemaError,
        stored_bytes,
    ),
    "an archive": (archive, cifar10_archives.DataError, binary_archive),
    "batches": (batches, cifar10_archives.DataError, lambda: binary_files()["data_batch_1.bin"]),
    "an idx file": (
        lambda _, content: fashion_mnist.decode(content, "test_labels", "a", compressed=True),
        fashion_mnist.DataError,
        lambda: b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff",
    ),
    "a checkpoint": (at("a.ckpt", lambda path: load_checkpoint(path, CONFIGURATION)), UsageError, lambda: b"PK\3\4"),
    "published series": (at("a.csv", published.load), UsageError, published.SOURCE.read_bytes),
    "prices": (at("a.csv", prices.load), UsageError, prices.SOURCE.read_bytes),
    "the ledger": (at("a.csv", ledger.read.__wrapped__), UsageError, ledger.LEDGER.read_bytes),
    "a configuration": (at("_quarto.yml", lambda path: Book.read(path.parent)), BookError, CONFIG.encode),
}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Random bytes, or a whole file with a piece of it replaced by them."""
    noise = draw(st.binary(max_size=40))
    if draw(st.booleans()):
        return noise
    begin, length = draw(st.integers(0, len(whole))), draw(st.integers(0, 40))
    return whole[:begin] + noise + whole[begin + length :]


@pytest.mark.usefixtures("fixed_commit")
@pytest.mark.parametrize("what", READERS)
def test_random_bytes_give_a_value_or_the_documented_error(what: str, tmp_path: Path) -> None:
    read, documented, make = READERS[what]

    @few
    @given(damaged(make()))
    def reading(content: bytes) -> None:
        try:
            read(tmp_path, content)
        except documented as error:
            assert str(error) and len(str(error)) < 1000

    reading()


LINES = ["# T", "```{python}", "```", "::: {.callout-note}", ":::", "#| a: [", "#| label: fig-a", "---", "x", "", "==="]
LINES += ["`{python} 1`", "{{< a >}}", "~~~~"]


@few
@given(st.lists(st.sampled_from(LINES), max_size=12))
def test_random_chapters_are_taken_apart_or_refused_with_their_line(lines: list[str]) -> None:
    try:
        parts = parse("a.qmd", "\n".join(lines))
    except BookError as error:
        assert str(error).startswith("a.qmd:") and error.code == 2
    else:
        assert all(isinstance(part, str) or part.line <= len(lines) for part in parts)


# ---- the store ------------------------------------------------------------------------------------------------------

plain = st.text(string.ascii_letters + " éß–·", min_size=1, max_size=8)
rows_of_counts = st.lists(
    st.tuples(plain, st.integers(0, 2**63 - 1), st.one_of(st.none(), st.integers(0, 9))),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[0],
)


@pytest.mark.usefixtures("fixed_commit")
def test_rows_come_back_as_they_went_in(tmp_path: Path) -> None:
    made = origin()

    @few
    @given(rows_of_counts)
    def round_trip(rows: list[tuple[str, int, int | None]]) -> None:
        names, values, sizes = zip(*rows, strict=True)
        frame = counts(*values).assign(net=names, kernel=pd.array(sizes, dtype="Int64"))
        run, read = afresh(parquet.write(frame, made, results=tmp_path))
        assert read.net.tolist() == list(names) and read.value.tolist() == list(values)
        assert [None if pd.isna(size) else int(size) for size in read.kernel] == list(sizes)
        assert run.rows == len(rows) and run.provenance == made

    round_trip()


@pytest.mark.usefixtures("fixed_commit")
def test_a_flipped_bit_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = parquet.write(counts(*range(50)), origin(), results=tmp_path)
    content, (run, rows) = path.read_bytes(), afresh(path)

    @few
    @given(st.integers(0, 8 * len(content) - 1))
    def flip(bit: int) -> None:
        path.write_bytes(content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :])
        try:
            found, read = afresh(path)
        except parquet.SchemaError as error:
            assert str(path) in str(error)
        else:
            assert found == run
            pd.testing.assert_frame_equal(read, rows)

    flip()


@few
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_write_leaves_the_new_content_and_nothing_else(tmp_path: Path, first: bytes, second: bytes) -> None:
    for content in (first, second):
        write_atomically(tmp_path / "a", content)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": content}
