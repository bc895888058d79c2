"""experiments.p4.cifar10_archives: the download, from a server that is made here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from experiments.p4 import cifar10_archives
from experiments.p4.cifar10 import DataError
from tests.cifar10_files import SPEC, TINY, assert_tiny, load, packed, planes, py2_batch, python_archive, python_files


class Server(BaseHTTPRequestHandler):
    content: ClassVar[bytes]
    claimed: ClassVar[int | None]
    requests: ClassVar[int]

    def do_GET(self) -> None:
        type(self).requests += 1
        if "gone" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        if self.claimed is not None:
            self.send_header("Content-Length", str(self.claimed))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.content = python_archive()
    Server.claimed, Server.requests = len(Server.content), 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_download(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "new" / "folder"
    target = cifar10_archives.download(folder, f"{server}/cifar-10-python.tar.gz", SPEC)
    assert target.read_bytes() == Server.content and os.listdir(folder) == ["cifar-10-python.tar.gz"]
    assert_tiny(load(folder))
    assert cifar10_archives.download(folder, f"{server}/cifar-10-python.tar.gz", SPEC) == target
    assert Server.requests == 1


def test_download_without_a_length(tmp_path: Path, server: str) -> None:
    Server.claimed = None
    assert_tiny(load(cifar10_archives.download(tmp_path, f"{server}/cifar-10-python.tar.gz", SPEC)))


def test_failed_downloads_leave_nothing(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: str, match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            cifar10_archives.download(tmp_path, f"{server}/{path}", SPEC)
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.iterdir())

    fails("gone/cifar-10-python.tar.gz", "404")
    good = Server.content
    Server.claimed = len(good) + 1000
    fails("cifar-10-python.tar.gz", "broke off|cannot be downloaded")
    Server.content, Server.claimed = b"<html>sorry</html>", None
    fails("cifar-10-python.tar.gz", "damaged archive")
    other = python_files() | {"test_batch": py2_batch(planes(TINY.test_images) ^ 1, TINY.test_labels.tolist())}
    Server.content = packed("cifar-10-batches-py", other)
    fails("cifar-10-python.tar.gz", "test_batch: not the official batch")
    Server.content = good

    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    fails("cifar-10-python.tar.gz", "No space left on device")


def test_download_from_nowhere(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be downloaded"):
        cifar10_archives.download(tmp_path, "http://127.0.0.1:9/cifar-10-python.tar.gz", SPEC)
