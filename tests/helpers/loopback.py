"""A real HTTP server on the loopback interface whose answers a test can spoil.

Cut, hang, lie, count. A test module gets its fixtures by `pytest_plugins = ["loopback"]`.
PYTEST_DONT_REWRITE: nothing is asserted here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pillow_cwic.weights import download
from pillow_cwic.weights.manifest import Entry

BODY = random.Random(4).randbytes(3_000_000)  # download.py does not care what the bytes mean
SHA256 = hashlib.sha256(BODY).hexdigest()
PATH = "/models/mine.safetensors"
FETCH = """
import json, sys
from pillow_cwic.weights import download
from pillow_cwic.weights.manifest import Entry
entry = Entry(**json.loads(sys.argv[1]))
print("ready", flush=True)
print(download.fetch(entry), flush=True)
"""


@dataclass
class Page:
    """What one path answers.

    `cuts` and `hangs` are used up one per request: bytes of body sent before the event.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ranges: bool = True  # answers Range with 206
    range_shift: int = 0  # a server that can't count: starts that many bytes off
    send_length: bool = True
    cuts: list[int] = field(default_factory=list)
    hangs: list[int] = field(default_factory=list)


@dataclass
class Request:
    """One request as the server saw it, and how much body it sent."""

    path: str
    range: str | None
    sent_bytes: int = 0


class Server(ThreadingHTTPServer):
    """Serves `pages` and keeps `requests`; `gate` holds every answer back until it is set.

    `freed` ends the hangs.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        self.gate, self.freed = threading.Event(), threading.Event()
        self.gate.set()

    def url(self, path: str) -> str:
        """Where this server has `path`."""
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def paths(self) -> list[str]:
        """The path of every request so far."""
        return [request.path for request in self.requests]

    def ranges(self) -> list[str | None]:
        """The Range header of every request so far."""
        return [request.range for request in self.requests]

    def sent_bytes(self) -> list[int]:
        """How much body each request got."""
        return [request.sent_bytes for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        request = Request(self.path, self.headers.get("Range"))
        self.server.requests.append(request)
        self.server.gate.wait(30)
        page = self.server.pages.get(self.path, Page(b"not here", 404))
        body, status, headers = page.body, page.status, dict(page.headers)
        start = re.fullmatch(r"bytes=(\d+)-", request.range or "")
        if start and page.ranges and status == 200:
            offset = int(start[1]) + page.range_shift
            headers["Content-Range"] = f"bytes {offset}-{len(body) - 1}/{len(body)}"
            body, status = body[offset:], 206
        if page.send_length:
            headers.setdefault("Content-Length", str(len(body)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self._send(request, page, body)

    def _send(self, request: Request, page: Page, body: bytes) -> None:
        stop = page.cuts.pop(0) if page.cuts else None
        hang = page.hangs.pop(0) if page.hangs else None
        end = min(len(body), *(n for n in (stop, hang, len(body)) if n is not None))
        with contextlib.suppress(ConnectionError):
            for begin in range(0, end, 1 << 16):
                self.wfile.write(body[begin : min(end, begin + (1 << 16))])
                request.sent_bytes += min(end, begin + (1 << 16)) - begin
            if hang is not None:
                self.server.freed.wait(30)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the tests look at `requests`."""


@contextlib.contextmanager
def serving() -> Iterator[Server]:
    """A running server; its port is free again afterwards."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.freed.set()
        server.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that has BODY at PATH."""
    with serving() as server:
        server.pages[PATH] = Page(BODY)
        yield server


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the test's own, and no mirror, proxy or manifests around it.

    The folder is not made yet.
    """
    folder = tmp_path / "cache"
    monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    proxies = [name + end for name in ("http", "https", "all") for end in ("_proxy", "_PROXY")]
    ours = ["PILLOW_CWIC_WEIGHTS_URL", "PILLOW_CWIC_MANIFEST", "PILLOW_CWIC_OFFLINE"]
    for name in [*ours, *proxies, *(name.upper() for name in proxies)]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "RETRY_SECONDS", 0.01)
    return folder


def entry_for(*urls: str) -> Entry:
    """The manifest entry of BODY, to be fetched from these URLs."""
    return Entry(
        "mine", "mine.safetensors", SHA256, len(BODY), origin="/nowhere/manifest.json", urls=urls
    )


def python_fetch(entry: Entry, **options: object) -> subprocess.Popen[str]:
    """Another Python process that prints "ready", then fetches the entry and prints the path."""
    fields = {"name": entry.name, "file": entry.file, "sha256": entry.sha256, "bytes": entry.bytes}
    argument = json.dumps({**fields, "origin": entry.origin, "urls": entry.urls})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([sys.executable, "-c", FETCH, argument], text=True, **pipes)


def names(folder: Path) -> set[str]:
    """The files of a folder but for locks."""
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@contextlib.contextmanager
def unprivileged(files: dict[str, bytes] | None = None) -> Iterator[Path]:
    """A folder with these files and no write permission, seen by a user who is bound by that.

    Root is not.
    """
    folder = Path(tempfile.mkdtemp())
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)
