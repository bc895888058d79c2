"""GPUs from one of them and their link, and timed all-reduces, on hand-made rows."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from report.answers import Answer, Missing
from report.figures import scaling_link
from tests.scaling_rows import cells, drawn, fitted, frame, row


def timed(p: int, latency: float, per_byte: float, gbit: float | None = None, **more: Any) -> list[dict[str, Any]]:
    """Rings of known latency and speed; the second of three windows of the smallest vector was disturbed."""
    run = {
        "backend": "gloo",
        "device": "a device",
        "hosts": 2 if gbit else 1,
        "gbit": gbit,
        "threads": 1,
        "learners": p,
    }
    rows = []
    for size in (2**k for k in range(10, 31, 5)):
        for window in (1, 2, 3):
            seconds = 2 * (p - 1) * (latency + size / p * per_byte) * (50 if window == 2 and size == 1024 else 1)
            rows.append(run | {"allocation": "one", "bytes": size, "window": window, "seconds": seconds} | more)
    return rows


SUMS = pd.DataFrame(timed(2, 1e-5, 1e-11) + timed(4, 2e-4, 1e-9, gbit=10.0)).astype({"gbit": float})


def test_the_answer_names_device_numbers_and_errors() -> None:
    answer = scaling_link.answer_scaling_link(fitted())
    assert isinstance(answer, Answer) and answer.basis == "projected"
    assert "on NVIDIA H200, +5.0 % for 2 GPUs." in answer.sentence  # 168 projected of 160 measured
    assert (answer.part, answer.device, answer.figure) == ("5.1", "NVIDIA H200", "tbl-scaling-link")


def test_devices_are_never_pooled() -> None:
    step = {"compute_seconds": 0.01, "exposed_seconds": 0.0, "per_learner_batch": 64.0, "observed": 100.0}
    other = [row("Horovod torch, NVIDIA H100, 224 pixels", m, "held out", 2, 90.0, **step) for m in BOUNDS]
    answer = scaling_link.answer_scaling_link(pd.concat([fitted(), frame(other)]))
    assert isinstance(answer, Answer)
    assert "on NVIDIA H100, −10.0 % for 2 GPUs; on NVIDIA H200, +5.0 % for 2 GPUs." in answer.sentence


BOUNDS = (scaling_link.EXPOSED, scaling_link.HIDDEN)


def test_the_table_has_both_bounds() -> None:
    assert cells(scaling_link.tbl_scaling_link(fitted())) == [
        ["Horovod", "Batch", "GPUs", "Measured", "Nothing hidden", "All hidden", "Error"],
        ["torch, NVIDIA H200, 224 pixels", "64", "2", "160", "168", "200", "+5.0 %"],
    ]


def test_a_job_of_two_allocations_keeps_its_own_bounds() -> None:
    again = fitted()
    again = again[again.method.isin(BOUNDS)].assign(predicted=[170.0, 210.0], error=[170 / 160 - 1, 210 / 160 - 1])
    both = scaling_link.linked(pd.concat([fitted(), again]))
    assert list(zip(both.exposed, both.hidden, strict=True)) == [(168.0, 200.0), (170.0, 210.0)]


def test_the_text_says_what_part_the_all_reduce_is() -> None:
    text = scaling_link.text_scaling_link(fitted())  # 2.5 of 10 + 2.5 ms an image
    assert "at most 20.0 % of a predicted step (64 images a GPU)" in text


def test_links_are_fitted_and_a_disturbed_window_changes_nothing() -> None:
    assert cells(scaling_link.tbl_scaling_links(SUMS)) == [
        ["Link", "p", "α (µs)", "1/β (GB/s)", "Bus (GB/s)", "Half at", "Largest error"],
        # Half of the speed: p α / β bytes. 4 · 200 µs · 1 GB/s = 800 kB; 2 · 10 µs · 100 GB/s = 2 MB.
        ["Gloo, a device, 2 hosts, 10 Gbit/s", "4", "200", "1", "0.999", "781 KiB", ANY],
        ["Gloo, a device, one host", "2", "10.0", "100", "99.8", "1.91 MiB", ANY],
    ]


class _Any:
    """Equal to every text: the error of an exact fit is rounding."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str)


ANY = _Any()


def test_a_link_comes_from_the_allocation_with_most_sizes() -> None:
    few = [r | {"allocation": "two", "seconds": 9.0} for r in timed(2, 1e-5, 1e-11) if r["bytes"] > 2**20]
    (link,) = scaling_link.links(pd.DataFrame(timed(2, 1e-5, 1e-11) + few).astype({"gbit": float}))
    assert link.learners == 2 and link.alpha == pytest.approx(1e-5) and link.beta == pytest.approx(1e-11)
    # 2·(2 − 1)/2 of a GiB in 2·(10 µs + half a GiB at 100 GB/s).
    assert link.bus(2**30, 0.5) == pytest.approx(2**31)
    assert link.fitted(2**30) == pytest.approx(2 * (1e-5 + 2**29 * 1e-11))


def test_the_figure_has_a_mark_for_each_size_of_each_link() -> None:
    marks = drawn(scaling_link.fig_scaling_links(SUMS))
    assert len(marks) == 2 * 5
    assert marks[0]["link"] == "Gloo, a device, 2 hosts, 10 Gbit/s, 4 learners" and marks[0]["size"] == "1 KiB"
    # 1.5 · 1024 bytes in 2·3·(200 µs + 256 ns).
    assert marks[0]["bus"] == pytest.approx(1536 / (6 * (2e-4 + 2.56e-7)))


def test_without_rows_the_command_is_named() -> None:
    nothing, no_sums = fitted().iloc[:0], SUMS.iloc[:0]
    for found in (scaling_link.answer_scaling_link(nothing), scaling_link.tbl_scaling_link(nothing)):
        assert isinstance(found, Missing) and "scaling_fit.py" in found.command
    assert scaling_link.text_scaling_link(nothing).startswith("Without these rows")
    for shown in (scaling_link.fig_scaling_links(no_sums), scaling_link.tbl_scaling_links(no_sums)):
        assert isinstance(shown, Missing) and "allreduce.py" in shown.command


@pytest.mark.parametrize(
    ("size", "text"), [(1, "1 B"), (1023, "1.02e+03 B"), (1536, "1.5 KiB"), (16 * 2**20, "16 MiB")]
)
def test_bytes_have_a_binary_prefix(size: float, text: str) -> None:
    assert scaling_link.binary(size) == text
