"""Hosts on one machine: apart from each other, joined at the asked speed, and gone whatever happens to their maker."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from experiments.cli import UsageError
from experiments.machine import hosts
from experiments.machine.hosts import Hosts
from tools import emulate_hosts

SCRIPT = Path(emulate_hosts.__file__)
SECONDS = 10  # until something that must happen has not


def have(*names: str) -> bool:
    try:
        return all(hosts.tool(name) for name in names)
    except UsageError:
        return False


def namespaces_allowed() -> bool:
    """Root in an unprivileged container may not make any."""
    return subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True).returncode == 0


CAN = have("unshare", "nsenter", "setpriv", "ip", "tc") and os.geteuid() == 0 and namespaces_allowed()
makes_hosts = pytest.mark.skipif(not CAN, reason="needs root, namespaces and: apt-get install iproute2")
needs_ssh = pytest.mark.skipif(
    not have("sshd", "ssh", "ssh-keygen"), reason="needs: apt-get install openssh-server openssh-client"
)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where hosts keep their files, in this process and its children."""
    monkeypatch.setattr(hosts.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def output(made: Hosts, host: str, *argv: str) -> str:
    done = subprocess.run(made.command(host, argv), check=True, capture_output=True, text=True, timeout=SECONDS)
    return done.stdout.strip()


def processes_in(network: str) -> list[int]:
    """Processes whose network is this one, given as readlink /proc/<pid>/ns/net gives it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns" / "net") == network:
                found.append(int(entry.name))
        except OSError:
            continue  # has ended meanwhile
    return found


def outside() -> str:
    """What the machine itself shows of networks: interfaces and named namespaces."""
    commands = (["-o", "link"], ["netns", "list"])
    return "".join(subprocess.check_output([hosts.tool("ip"), *command], text=True) for command in commands)


def wait_until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + SECONDS
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.02)
    return held


# ---- hosts ---------------------------------------------------------------------------------------------------------


@pytest.mark.root
@makes_hosts
def test_hosts_are_apart_and_reach_each_other(folder: Path) -> None:
    before = outside()
    with Hosts(count=3, ssh=False) as made:
        assert outside() == before  # even while they exist, nothing of them is outside
        assert [output(made, name, "hostname") for name in made.names] == ["host1", "host2", "host3"]
        networks = {output(made, name, "readlink", "/proc/self/ns/net") for name in made.names}
        assert len(networks) == 3 and os.readlink("/proc/self/ns/net") not in networks
        assert output(made, "host3", "getent", "hosts", "host2").split() == ["10.77.0.2", "host2"]
        interfaces = output(made, "host2", hosts.tool("ip"), "-o", "link")
        assert [line.split(": ")[1].split("@")[0] for line in interfaces.splitlines()] == ["lo", "eth0"]
        sleeper = subprocess.Popen(made.command("host1", ["sleep", "60"]), stdout=subprocess.DEVNULL)
        assert wait_until(lambda: "sleep" in output(made, "host1", "ps", "-eo", "comm"))
        assert "sleep" not in output(made, "host2", "ps", "-eo", "comm")
        assert output(made, "host1", "sh", "-c", "echo mine > /dev/shm/memory; ls /dev/shm") == "memory"
        assert output(made, "host2", "ls", "/dev/shm") == ""
    assert sleeper.wait(SECONDS) != 0  # killed with its host
    assert not any(processes_in(network) for network in networks)
    assert outside() == before and not list(folder.iterdir())


@pytest.mark.root
@makes_hosts
def test_a_command_keeps_folder_environment_and_status(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEARNER", "7")
    monkeypatch.chdir(folder)
    with Hosts(ssh=False) as made:
        assert output(made, "host2", "sh", "-c", "pwd; echo $LEARNER") == f"{folder}\n7"
        assert output(made, "host2", "cat", "/proc/self/status").count("NoNewPrivs") == 1  # its own /proc works
        assert subprocess.call(made.command("host1", ["sh", "-c", "exit 3"], cwd=Path("/"))) == 3


@pytest.mark.root
@makes_hosts
def test_orphans_are_reaped_and_their_end_is_not_the_hosts_end() -> None:
    with Hosts(ssh=False) as made:
        orphans = "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.0$i &); done; sleep 0.3"
        output(made, "host1", "sh", "-c", orphans)
        assert "sleep" not in output(made, "host1", "ps", "-eo", "comm")  # no zombies either
        assert made._first["host1"].poll() is None


@pytest.mark.root
@makes_hosts
def test_killing_a_commands_process_ends_the_command() -> None:
    with Hosts(ssh=False) as made:
        process = subprocess.Popen(made.command("host1", ["sleep", "60"]))
        assert wait_until(lambda: "sleep" in output(made, "host1", "ps", "-eo", "comm"))
        process.kill()
        process.wait()
        assert wait_until(lambda: "sleep" not in output(made, "host1", "ps", "-eo", "comm"))


@pytest.mark.root
@makes_hosts
def test_a_server_in_this_process_serves_a_host() -> None:
    read = "import socket, sys; print(socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(9).decode())"
    with Hosts(ssh=False) as made, made.inside("host1", lambda: socket.create_server(("", 0))) as server:
        server.settimeout(SECONDS)
        port = server.getsockname()[1]
        client = made.command("host2", [sys.executable, "-c", read, "host1", str(port)])
        with subprocess.Popen(client, stdout=subprocess.PIPE, text=True) as process:
            connection, (address, _) = server.accept()
            with connection:
                connection.sendall(b"hello")
            assert process.communicate()[0] == "hello\n" and address == made.addresses["host2"]


@pytest.mark.root
@makes_hosts
@needs_ssh
def test_ssh_needs_no_options_inside_and_one_file_outside() -> None:
    with Hosts() as made:
        assert output(made, "host1", "ssh", "host2", "hostname") == "host2"
        assert output(made, "host2", "ssh", "-F", str(made.ssh_config), "host1", "hostname") == "host1"
        assert made.ssh_key.stat().st_mode & 0o077 == 0


@pytest.mark.root
@makes_hosts
@pytest.mark.parametrize("gbit", [0.2, 1.0])
def test_a_limited_link_has_the_rate_asked_for(gbit: float) -> None:
    with Hosts(gbit=gbit, ssh=False) as made:
        assert made.measure(seconds=0.5).gbit == pytest.approx(gbit, rel=0.2)


@pytest.mark.root
@makes_hosts
def test_an_unlimited_link_is_faster_than_a_limited_one() -> None:
    with Hosts(ssh=False) as made:
        assert made.measure(seconds=0.2).gbit > 2


@pytest.mark.root
@makes_hosts
def test_delay_adds_to_a_round_trip_where_the_kernel_can() -> None:
    try:
        with Hosts(gbit=1, delay_us=5000, ssh=False) as made:
            assert made.measure(seconds=0.2, rounds=10).round_trip_us == pytest.approx(10_000, rel=0.2)
    except UsageError as error:
        assert str(error) == "--delay-us needs netem, which this kernel lacks (module sch_netem); leave it out"
        pytest.skip("this kernel has no netem")


# ---- always removed ------------------------------------------------------------------------------------------------

STEPS = "readlink /proc/self/ns/net; sleep 60 & sleep 60"


@pytest.fixture
def maker(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The script while its command runs on host1, and that host's network."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--no-ssh", "--", "sh", "-c", STEPS],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        network = process.stdout.readline().strip()
        assert processes_in(network) and any(folder.iterdir())
        yield process, network
        process.kill()


@pytest.mark.root
@makes_hosts
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_removes_everything(
    number: signal.Signals, status: int, maker: tuple[subprocess.Popen[str], str], folder: Path
) -> None:
    process, network = maker
    before = outside()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=SECONDS)
    assert process.returncode == status
    how = "interrupted" if number == signal.SIGINT else f"ended by {number.name}"
    assert stderr == f"emulate_hosts: {how}; the hosts are gone\n"
    assert not processes_in(network) and not list(folder.iterdir()) and outside() == before


@pytest.mark.root
@makes_hosts
def test_ctrl_c_at_a_terminal_reaches_the_command_too(maker: tuple[subprocess.Popen[str], str], folder: Path) -> None:
    process, network = maker
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert not processes_in(network) and not list(folder.iterdir())


@pytest.mark.root
@makes_hosts
def test_kill_9_of_the_maker_removes_everything(maker: tuple[subprocess.Popen[str], str], folder: Path) -> None:
    process, network = maker
    process.kill()
    assert wait_until(lambda: not processes_in(network) and not list(folder.iterdir()))


@pytest.mark.root
@makes_hosts
def test_an_exception_inside_removes_everything(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), Hosts(ssh=False) as made:
        network = output(made, "host1", "readlink", "/proc/self/ns/net")
        raise ZeroDivisionError
    assert not processes_in(network) and not list(folder.iterdir())


@pytest.mark.root
@makes_hosts
def test_a_forked_childs_copy_of_the_pipe_keeps_nothing_alive(folder: Path) -> None:
    made = Hosts(ssh=False).__enter__()
    network = output(made, "host1", "readlink", "/proc/self/ns/net")
    copies = [os.dup(first.stdin.fileno()) for first in made._first.values() if first.stdin]
    made.close()
    assert len(copies) == 3 and not processes_in(network) and not list(folder.iterdir())
    for copy in copies:
        os.close(copy)


@pytest.mark.root
@makes_hosts
def test_what_fails_half_way_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Hosts(ssh=False)
    started: list[str] = []

    def fail() -> None:
        started.extend(os.readlink(f"/proc/{pid}/ns/net") for pid in made._pid.values())
        raise KeyboardInterrupt

    monkeypatch.setattr(made, "_connect", fail)
    with pytest.raises(KeyboardInterrupt), made:
        pass
    assert len(started) == 3 and not any(processes_in(network) for network in started)
    assert not list(folder.iterdir())


# ---- the command line ----------------------------------------------------------------------------------------------


@pytest.mark.root
@makes_hosts
def test_the_script_measures_then_runs_and_passes_the_status_on(capfd: pytest.CaptureFixture[str]) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        assert emulate_hosts.main(["--no-ssh", "--gbit", "1", "--measure", "--", "sh", "-c", "hostname; exit 5"]) == 5
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    measured, name = capfd.readouterr().out.splitlines()
    words = measured.split()
    assert float(words[3]) == pytest.approx(1, rel=0.2) and float(words[7]) > 0 and name == "host1"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "nothing to do; give --measure, or a command after --"),
        (["--count", "1", "--measure"], "2 to 250 hosts can be emulated, not 1"),
        (["--gbit", "1e-9", "--measure"], "--gbit must be at least 0.001, not 1e-09"),
        (["--gbit", "0", "--measure"], "--gbit must be positive, not 0"),
        (["--gbit", "nan", "--measure"], "--gbit must be positive, not nan"),
        (["--delay-us", "-1", "--measure"], "--delay-us must be positive, not -1"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], complaint: str) -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), *argv], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"emulate_hosts: {complaint}\n")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("ip", "apt-get install iproute2"),
        ("tc", "apt-get install iproute2"),
        ("nsenter", "apt-get install util-linux"),
        ("sshd", "apt-get install openssh-server, or do without ssh (--no-ssh)"),
        ("ssh", "apt-get install openssh-client, or do without ssh (--no-ssh)"),
    ],
)
def test_a_missing_tool_is_named_with_its_package(name: str, advice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool, path: None if tool == name else f"/usr/sbin/{tool}")
    with pytest.raises(UsageError) as raised, Hosts():
        pass
    assert str(raised.value) == f"{name} is missing; on Debian or Ubuntu: {advice}"


def test_others_than_root_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root"), Hosts():
        pass


def test_where_namespaces_are_forbidden_the_reason_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = folder / "unshare"
    fake.write_text("#!/bin/sh\necho 'unshare: unshare failed: Operation not permitted' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr("experiments.machine.hosts.tool", lambda name: str(fake))
    with pytest.raises(UsageError, match=r"\(unshare: unshare failed: Operation not permitted\).*--privileged"):
        Hosts(ssh=False).__enter__()
    assert list(folder.iterdir()) == [fake]


@pytest.mark.root
@makes_hosts
def test_an_unknown_host_is_told() -> None:
    with Hosts(ssh=False) as made, pytest.raises(UsageError, match="unknown host host3; there are host1, host2"):
        made.command("host3", ["true"])
