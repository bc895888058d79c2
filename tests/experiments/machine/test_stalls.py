"""Processes of a job that have been stopped: found by their environment, named, and ended with the job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.cli import RunError
from experiments.machine import processes, stalls
from tests.processes import started_for

SLEEP = "import sys, time; print('up', flush=True); time.sleep(600)"
# Stops itself; the shell that has started it waits.
STOP = "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)"


@pytest.fixture
def sleepers() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Ranks 0 and 1 of a job, and a process that belongs to none."""
    started = []
    for more in ({stalls.MARK: "a", "RANK_HERE": "0"}, {stalls.MARK: "a", "RANK_HERE": "1"}, {stalls.MARK: "ab"}):
        process = subprocess.Popen([sys.executable, "-c", SLEEP], env=os.environ | more, stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        started.append(process)
    yield started
    for process in started:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)


def test_a_jobs_processes_have_its_mark(sleepers: list[subprocess.Popen[bytes]]) -> None:
    assert {process.pid for process in stalls.of_job("a")} == {sleepers[0].pid, sleepers[1].pid}
    assert not list(stalls.of_job("a", "T"))
    stop(sleepers[1])
    stop(sleepers[2])
    (found,) = stalls.of_job("a", "T")
    assert found.pid == sleepers[1].pid and found.environment["RANK_HERE"] == "1"
    sleepers[0].kill()
    sleepers[0].wait()
    assert {process.pid for process in stalls.of_job("a")} == {sleepers[1].pid}


def test_all_of_a_job_end_even_those_that_are_stopped(sleepers: list[subprocess.Popen[bytes]]) -> None:
    stop(sleepers[1])
    stalls.end_all("a", grace=0.0)
    assert not list(stalls.of_job("a"))
    assert sleepers[0].wait(10) == sleepers[1].wait(10) == -signal.SIGKILL and sleepers[2].poll() is None


class Clock:
    """A clock that the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(stalls.time, "monotonic", lambda: self.now)

    def look(self, watch: stalls.Watch, seconds: float, launchers: tuple[int, ...] = ()) -> dict[str, int]:
        """What the watch says at that time."""
        self.now = seconds
        return watch.overdue(launchers)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[stalls.Process]:
    """The processes that are found to be stopped."""
    found: list[stalls.Process] = []
    monkeypatch.setattr("experiments.machine.stalls.of_job", lambda mark, state: list(found))
    return found


def test_a_process_is_late_when_it_was_stopped_all_the_time(
    stopped: list[stalls.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    watch = stalls.Watch("a", 10.0, "learner", ["RANK_HERE"])  # looks every 2 s
    process = stalls.Process(7, 1000, {"RANK_HERE": "3"})
    stopped.append(process)
    for seconds in (2, 4, 6, 8, 10):
        assert not clock.look(watch, seconds)
    stopped.clear()  # it goes on
    assert not clock.look(watch, 12)
    stopped.append(process)
    for seconds in (14, 16, 18, 20, 22):
        assert not clock.look(watch, seconds)
    assert not clock.look(watch, 23.9)  # too soon for another look
    assert clock.look(watch, 24) == {"learner 3": 7}


def test_a_pid_used_again_is_another_process(stopped: list[stalls.Process], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = stalls.Watch("a", 4.0, "learner", ["RANK_HERE"])
    for seconds, started in ((1, 1000), (3, 1000), (5, 2000), (7, 2000)):
        stopped[:] = [stalls.Process(7, started, {})]
        assert not clock.look(watch, seconds)


def test_time_that_the_watch_itself_was_stopped_does_not_count(
    stopped: list[stalls.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    watch = stalls.Watch("a", 10.0, "learner", ["RANK_HERE"])
    stopped.append(stalls.Process(7, 1000, {"RANK_HERE": "3"}))
    assert not clock.look(watch, 2)
    assert not clock.look(watch, 1000)  # counts as 4 s
    assert not clock.look(watch, 1004)
    assert clock.look(watch, 1006) == {"learner 3": 7}


def test_how_stopped_processes_are_called(stopped: list[stalls.Process], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    watch = stalls.Watch("a", 10.0, "worker", ["RANK_HERE", "RANK_THERE"])
    stopped += [
        stalls.Process(9, 1000, {"RANK_HERE": "0"}),  # such as nsenter, which has started the next one
        stalls.Process(4, 1001, {"RANK_HERE": "0", "RANK_THERE": "5"}),
        stalls.Process(5, 1002, {"RANK_THERE": "1"}),
        stalls.Process(6, 1003, {"RANK_HERE": "2"}),  # a launcher that was started from a process with a rank
    ]
    for seconds in (2, 4, 6, 8, 10):
        assert not clock.look(watch, seconds, (6,))
    assert clock.look(watch, 12, (6,)) == {"worker 0": 4, "worker 1": 5, "the launcher": 6}


@pytest.mark.parametrize("shell", [False, True])
def test_a_stopped_worker_ends_the_job(shell: bool, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", STOP, str(tmp_path), "--worker"]
    with (
        pytest.raises(
            RunError, match=r"^worker 1 \(process (\d+)\) has been stopped for 0\.5 s; all others were"
        ) as told,
        processes.Processes(print, stall_timeout=0.5, member="worker") as job,
    ):
        job.start([sys.executable, "-c", SLEEP, str(tmp_path), "--worker"], {processes.OWN_RANK: "0"})
        job.start(["sh", "-c", '"$@"; true', "sh", *argv] if shell else argv, {processes.OWN_RANK: "1"})
        job.wait()
    assert str(told.value).endswith("stopped for 0.5 s; all others were stopped and nothing was written")
    assert not list(started_for(tmp_path, "--worker"))


def test_several_stopped_workers_are_all_named() -> None:
    with (
        pytest.raises(
            RunError, match=r"^worker 0 \(process \d+\) and worker 1 \(process \d+\) have been stopped for 1 s;"
        ),
        processes.Processes(print, stall_timeout=1.0, member="worker") as job,
    ):
        both = [[sys.executable, "-c", SLEEP], [sys.executable, "-c", SLEEP]]
        for rank, argv in enumerate(both):
            job.start(argv, {processes.OWN_RANK: str(rank)})
        for process in job._started:
            process.send_signal(signal.SIGSTOP)
        job.wait()


def test_a_job_that_ends_is_no_longer_watched() -> None:
    with processes.Processes(print, stall_timeout=0.1) as job:
        job.start(["sh", "-c", "(sleep 1; kill -CONT $$)& kill -STOP $$; exit 3"], {processes.OWN_RANK: "0"})
        job.unwatch()
        assert job.wait() == (0, 3)


def test_a_peer_that_gives_up_first_is_not_blamed() -> None:
    """As TensorFlow's workers do, after less time than a stopped one is watched for."""
    waits = "import time; time.sleep(600)"
    with processes.Processes(lambda line: None, member="worker") as job:
        job.start([sys.executable, "-c", waits], {processes.OWN_RANK: "0"})
        gives_up = "import time; time.sleep(1.5); raise SystemExit(1)"
        job.start([sys.executable, "-c", gives_up], {processes.OWN_RANK: "1"})
        first, _ = job._started
        stop(first)  # type: ignore[arg-type]
        with pytest.raises(
            RunError, match=rf"^worker 0 \(process {first.pid}\) has been stopped, and its peers gave up"
        ):
            job.wait()
