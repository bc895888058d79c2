"""What a person sees when a script can't do what was asked, and the exit status that goes with it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from argparse import ArgumentTypeError, Namespace
from pathlib import Path
from typing import IO, Any

import pytest

from experiments.cli import RunError, UsageError, check_at_least, check_positive, exit_status, listed, path
from experiments.store import parquet
from experiments.store.files import ROOT
from experiments.store.provenance import CommitError


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UsageError("give --M a\nnumber"), 2, "me: give --M a number\n"),
        (parquet.SchemaError("x.parquet: torn"), 2, "me: x.parquet: torn\n"),
        (CommitError("no commit"), 2, "me: no commit\n"),
        (
            FileNotFoundError(2, "No such file", "x"),
            2,
            "me: [Errno 2] No such file: 'x'; earlier results are as they were\n",
        ),
        (RunError("learner 1 died"), 1, "me: learner 1 died\n"),
        (KeyboardInterrupt(), 130, "me: interrupted; nothing was written\n"),
    ],
)
def test_errors_are_one_line(error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> int:
        raise error

    assert exit_status("me", work) == status
    assert capsys.readouterr().err == line


def test_what_is_no_error_of_the_user_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status("me", lambda: 1 // 0)
    assert exit_status("me", lambda: 7) == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_script_cleans_up(number: signal.Signals) -> None:
    script = """
        import time
        from experiments.cli import exit_status
        def work():
            try:
                print("ready", flush=True)
                time.sleep(30)
            finally:
                print("cleaned")
        raise SystemExit(exit_status("me", work, "--resume goes on"))
    """
    lines = "\n".join(line[8:] for line in script.splitlines())
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", lines], cwd=ROOT, text=True, **pipes)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    began = time.monotonic()
    os.kill(process.pid, number)
    how = f"me: ended by {number.name}; --resume goes on\n"
    assert process.communicate(timeout=20) == ("cleaned\n", how)
    assert process.returncode == 128 + number and time.monotonic() - began < 10


def test_handlers_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    exit_status("me", lambda: 0)
    assert signal.getsignal(signal.SIGTERM) is before


def test_lists_have_each_value_once() -> None:
    assert listed()("4,1,2") == [4, 1, 2] and listed("weak", "strong")("strong") == ["strong"]
    for text, message in {"1,x": "'x' is no whole number", "1,1": "1 is named twice"}.items():
        with pytest.raises(ArgumentTypeError, match=message):
            listed()(text)
    with pytest.raises(ArgumentTypeError, match="'slow' is none of weak, strong"):
        listed("weak", "strong")("weak,slow")


def test_options_have_bounds() -> None:
    options = Namespace(steps=1, learners=[2, 0], workers=None, some_seconds=0.5, minutes=float("nan"))
    check_at_least(1, options, "steps", "workers")
    check_positive(options, "some_seconds", "workers")
    with pytest.raises(UsageError, match="--learners must be at least 1, not 0"):
        check_at_least(1, options, "steps", "learners")
    with pytest.raises(UsageError, match="--minutes must be positive and finite, not nan"):
        check_positive(options, "some_seconds", "minutes")
    with pytest.raises(UsageError, match=r"--some-seconds must be at least 1, not 0\.5"):
        check_at_least(1, options, "some_seconds")


def python(code: str, stdout: int | IO[str] = subprocess.PIPE, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run some code in the project's root, with these variables beside the environment's."""
    run = [sys.executable, "-c", code]
    return subprocess.run(
        run, cwd=ROOT, env=os.environ | settings, stdout=stdout, stderr=subprocess.PIPE, text=True, errors="replace"
    )


@pytest.mark.parametrize("how", ["print('here')", "print('here', flush=True)"])
def test_a_full_standard_output_is_told_as_such(how: str) -> None:
    with open("/dev/full", "w") as full:
        done = python(
            f"from experiments.cli import exit_status\nraise SystemExit(exit_status('me', lambda: {how} or 0))", full
        )
    assert done.returncode == 1
    assert re.fullmatch(r"me: standard output: \[Errno 28\] No space left on device; .* kept\n", done.stderr)


def test_help_is_printed_on_any_terminal() -> None:
    code = "from experiments.cli import Parser\nParser('me', '2 × 2 – √4').parse_args(['--help'])"
    done = python(code, PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and "2 ? 2 ? ?4" in done.stdout


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path("~/res") == tmp_path / "res" and path("a/~") == Path("a/~")
    with pytest.raises(ArgumentTypeError, match="~nobody-here"):
        path("~nobody-here/res")
