"""Servers that do not want a transfer to end, or to be told what they are.

Each is a real server on the loopback interface that writes its answer by hand.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socketserver
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import BODY, PATH, SHA256, Page, Server, entry_for, names, python_fetch

from pillow_cwic.errors import WeightsError
from pillow_cwic.weights import cache, download, manifest, metered_http, transfer

pytest_plugins = ["loopback"]
pytestmark = pytest.mark.usefixtures("cache_dir")

Send = Callable[[bytes], object]
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n" % len(BODY)
JUNK = b"x" * (1 << 16)


def endless(send: Send, piece: bytes, seconds: float = 0) -> None:
    """A piece again and again, until the other side has gone."""
    while True:
        send(piece)
        time.sleep(seconds)


def redirect_that_never_ends(send: Send) -> None:
    """A redirect with a body."""
    send(b"HTTP/1.1 302 Found\r\nLocation: /next\r\n\r\n")
    endless(send, JUNK)


def slow_body(send: Send) -> None:
    """A byte of the file now and then."""
    send(OK + LENGTH)
    endless(send, BODY[:1], 0.02)


def slow_headers(send: Send) -> None:
    """A header that comes letter by letter."""
    send(OK + b"X-Slow: ")
    endless(send, b"a", 0.02)


def endless_continue(send: Send) -> None:
    """Interim answers alone."""
    endless(send, b"HTTP/1.1 100 Continue\r\n\r\n", 0.001)


def endless_trailers(send: Send) -> None:
    """A whole body, and then trailers."""
    send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    send(b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY))
    endless(send, b"X-More: 1\r\n" * 100)


def endless_chunk_line(send: Send) -> None:
    """The length of a chunk, with an extension."""
    send(OK + b"Transfer-Encoding: chunked\r\n\r\n5;")
    endless(send, JUNK)


def endless_header(send: Send) -> None:
    """Headers, as many as can be."""
    send(OK)
    endless(send, b"X-Header: 1\r\n" * 100)


ENDLESS = [
    redirect_that_never_ends,
    slow_body,
    slow_headers,
    endless_continue,
    endless_trailers,
    endless_chunk_line,
    endless_header,
]


@contextlib.contextmanager
def answering(answer: Callable[[Send], None]) -> Iterator[str]:
    """A server that answers every request so; gives its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                pass
            with contextlib.suppress(OSError):
                answer(self.wfile.write)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/model"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("answer", ENDLESS)
def test_whatever_a_server_sends_a_transfer_ends(
    answer: Callable[[Send], None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its bytes and its time are limited, memory does not follow it, and the next URL is asked."""
    monkeypatch.setattr(metered_http, "GRACE_SECONDS", 0.3)
    with answering(answer) as url:
        tracemalloc.start()
        path = download.fetch(entry_for(url, server.url(PATH)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert path.read_bytes() == BODY
    assert peak < 4 * len(BODY) + (1 << 24)


@pytest.mark.parametrize("answer", ENDLESS)
def test_a_manifest_that_never_ends_is_refused(
    answer: Callable[[Send], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Manifests are fetched under the same limits; the error says which was broken."""
    monkeypatch.setattr(metered_http, "GRACE_SECONDS", 0.3)
    with answering(answer) as url, pytest.raises(WeightsError) as error:
        download.fetch_small(url, 1000)
    reasons = (
        "too slow: ",
        "sends more than ",
        "longer than 1000 bytes",
        "redirects more than 10",
        "its headers are too many",
        "are not framed",
    )
    assert any(reason in str(error.value) for reason in reasons), str(error.value)


def test_progress_extends_the_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow line that keeps the least rate is let alone, however long the whole takes."""

    def steady(send: Send) -> None:
        send(OK + LENGTH)
        for begin in range(0, len(BODY), 1 << 18):
            send(BODY[begin : begin + (1 << 18)])
            time.sleep(0.05)

    monkeypatch.setattr(metered_http, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(metered_http, "LEAST_BYTES_PER_SECOND", 1 << 20)
    with answering(steady) as url:
        assert download.fetch(entry_for(url)).read_bytes() == BODY


def test_a_redirect_leads_to_the_web_alone(server: Server) -> None:
    """file:// and other schemes, loops, and addresses that cannot be read are refused."""
    for number, (target, reason) in enumerate(
        [
            ("file:///etc/passwd", "redirects to 'file:///etc/passwd', expected an http"),
            ("ftp://127.0.0.1/x", "redirects to 'ftp://127.0.0.1/x', expected an http"),
            ("/loop3", "redirects more than 10 times"),
            ("http://[bad", "the URL cannot be read"),
        ],
        1,
    ):
        path = f"/loop{number}"
        server.pages[path] = Page(status=302, headers={"Location": target})
        with pytest.raises(WeightsError) as error:
            download.fetch(entry_for(server.url(path)))
        assert reason in str(error.value)


def test_what_a_server_says_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Escape sequences in a reason phrase or a header come out as text."""

    def coloured(send: Send) -> None:
        send(b"HTTP/1.1 404 \x1b[31mred\x1b]0;title\x07\r\nContent-Length: 0\r\n\r\n")

    with answering(coloured) as url, pytest.raises(WeightsError) as error:
        download.fetch(entry_for(url))
    assert "\x1b" not in str(error.value)
    assert r"HTTP 404 \x1b[31mred" in str(error.value)


def test_secrets_stay_out_of_every_message(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with an address that holds a password and a signature."""
    port = server.server_address[1]
    addresses = [
        f"http://me:hunter2@127.0.0.1:{port}/gone?signature=hunter2#hunter2",
        "http://me:hunter2@127.0.0.1:1/refused?signature=hunter2",
        "http://me:hunter2@[bad/unreadable?signature=hunter2",
        "http://me:hunter2@127.0.0.1:99999/port?signature=hunter2",
        "http://me:hunter2@/nowhere?signature=hunter2",
        "http://me:hunter2@xn--a/label?signature=hunter2",
    ]
    with pytest.raises(WeightsError) as error:
        download.fetch(entry_for(*addresses))
    assert "hunter2" not in str(error.value)
    assert len(str(error.value).splitlines()) == len(addresses) + 2
    for address in addresses:
        with pytest.raises(WeightsError) as error:
            download.fetch_small(address, 1000)
        assert "hunter2" not in str(error.value)
        with pytest.raises(WeightsError) as error:
            manifest.parse(b"{}", address)
        assert "hunter2" not in str(error.value)


def test_an_address_that_cannot_be_read_stops_no_other(server: Server) -> None:
    """The good URLs behind a bad one are asked."""
    bad = ["http://[bad", "http://127.0.0.1:port/x", "http:///x", "http://a" + "b" * 70 + "/x"]
    path = download.fetch(entry_for(*bad, server.url(PATH)))
    assert path.read_bytes() == BODY


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe", "folder's link"])
def test_nothing_outside_is_written(
    kind: str, server: Server, cache_dir: Path, tmp_path: Path
) -> None:
    """What someone put in the place of an unfinished download is replaced, not written through."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    cache_dir.mkdir()
    partial = cache_dir / f"{SHA256}.partial"
    if kind == "link":
        partial.symlink_to(victim)
    elif kind == "hard link":
        partial.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(partial)
    else:
        partial.symlink_to(tmp_path)
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY
    assert victim.read_bytes() == b"precious"
    assert names(cache_dir) == {f"{SHA256}.safetensors"}


@pytest.mark.parametrize("suffix", ["safetensors", "lock"])
def test_a_pipe_in_the_cache_keeps_no_one_waiting(
    suffix: str, server: Server, cache_dir: Path
) -> None:
    """It is not read, and the model is fetched."""
    cache_dir.mkdir()
    os.mkfifo(cache_dir / f"{SHA256}.{suffix}")
    assert download.fetch(entry_for(server.url(PATH))).read_bytes() == BODY


def test_waiting_for_another_is_told_and_ends(
    server: Server,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Who waits is told so; if nothing arrives any more, an error names the lock."""
    monkeypatch.setattr(cache, "PATIENCE_SECONDS", 0.2)
    server.gate.clear()
    with python_fetch(entry_for(server.url(PATH))) as holder:
        try:
            while not server.requests:
                time.sleep(0.02)
            with (
                caplog.at_level(logging.WARNING, "pillow_cwic"),
                pytest.raises(WeightsError, match=rf"{SHA256}\.lock is held by another process"),
            ):
                download.fetch(entry_for(server.url(PATH)))
            assert "waiting for another download of 'mine'" in caplog.text
        finally:
            holder.kill()
            server.gate.set()


def test_the_least_rate_is_documented() -> None:
    """docs/weights.md states the limits that the code has."""
    text = (Path(__file__).parents[2] / "docs" / "weights.md").read_text()
    assert f"{metered_http.LEAST_BYTES_PER_SECOND} bytes a second" in text
    assert f"{metered_http.GRACE_SECONDS:g} s" in text
    assert f"{transfer.MAX_REDIRECTS} redirects" in text
