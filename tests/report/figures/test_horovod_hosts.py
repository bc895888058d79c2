"""Problem 1.4 on hand-made runs: two hosts against one."""

from __future__ import annotations

import pytest

from report.answers import Answer, Missing
from report.figures import horovod_hosts
from tests.frames import cpu
from tests.p1_runs import TWO_HOSTS, cores, data, lines, runs, text, two_hosts


def test_two_hosts_against_one_in_words() -> None:
    answer = horovod_hosts.answer_p1_hosts(TWO_HOSTS)
    # 16 · 32 images in 4 s against 8 · 32 in 2 s and 16 · 32 in 3 s; with 1 Gbit/s in 6 s.
    assert text(answer) == (
        "On two hosts with 10 Gbit/s between them, 16 CPU learners (TensorFlow) train "
        "1.00 times as many images per second as eight on "
        "one host (three repetitions, 1.00–1.00), and 75.0 % as many as 16 on one host (75.0–75.0 %). "
        "The 2 epochs of 2 steps take 2.00 times (2.00–2.00) as long as with eight. "
        "With 1 Gbit/s, they train 0.67 times (0.67–0.67) as many images per second as the eight."
    )
    assert isinstance(answer, Answer) and answer.runs == 15


def test_two_hosts_are_compared_within_their_allocation() -> None:
    elsewhere = cores({8: 0.1, 16: 0.1}, allocation="two")
    assert set(horovod_hosts.on_two_hosts(runs(*elsewhere, *two_hosts(4.0, 10.0, 9.5))).allocation) == {"one"}
    alone = runs(*elsewhere, *two_hosts(4.0, 10.0, 9.5))
    assert isinstance(horovod_hosts.answer_p1_hosts(alone), Missing)


def test_the_table_of_hosts_has_run_times_only_of_one_length() -> None:
    head, *rows = lines(str(horovod_hosts.tbl_p1_hosts(TWO_HOSTS)))
    assert head == ["N", "Hosts", "Gbit/s (measured)", "Images/s (range)", "Step (s)", "Epochs (s)", "Ring's least (s)"]
    # 2 · 15/16 of 102,228,128 bytes at 9.5 Gbit/s.
    assert [*rows[3][:2], *rows[3][4:]] == ["16", "2", "2.00", "8.0 (8.0–8.0)", "0.16"]
    assert pytest.approx(0.16, abs=0.005) == 2 * 15 / 16 * 102_228_128 * 8 / 9.5e9
    assert [row[2].replace("\u00a0", " ") for row in rows] == ["–", "–", "1 (0.95)", "10 (9.5)", "no limit (40)"]
    longer = cpu([2.0] * 10, learners=8, repeat=4)
    head, *_ = lines(str(horovod_hosts.tbl_p1_hosts(runs(longer, *two_hosts(4.0, 10.0, 9.5)))))
    assert "Epochs (s)" not in head


def test_throughput_is_drawn_against_the_measured_link() -> None:
    rows = data(horovod_hosts.fig_p1_link(TWO_HOSTS))
    assert sorted((row["link"], row["value"]) for row in rows if "link" in row) == [
        (0.95, pytest.approx(512 / 6)),
        (9.5, pytest.approx(128.0)),
        (40.0, pytest.approx(160.0)),
    ]
    assert {row["name"]: row["value"] for row in rows if "name" in row} == {
        "8 learners on one host": pytest.approx(128.0),
        "16 learners on one host": pytest.approx(512 / 3),
    }
