"""A session of requests that counts every byte of every answer and keeps a clock.

Status lines, headers, redirects, trailers and bodies all count. Invariant: whatever a server sends,
and however slowly, a transfer ends. Imported where something is fetched, nowhere else.
"""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter

GRACE_SECONDS = 30.0
"""What a transfer may take beside its bytes: connections, redirects, pauses."""

LEAST_BYTES_PER_SECOND = 4096
"""Of a transfer as a whole, beyond the grace."""


class Meter:
    """What has arrived and how long that took; `verdict` says which limit was broken.

    Time is extended by what `deliver` counts: pieces of a body. So whatever else a server sends,
    it cannot buy time.
    """

    def __init__(self, limit_bytes: int, read_seconds: float) -> None:
        """read_seconds: the longest silence."""
        self._limit_bytes = limit_bytes
        self._read_seconds = read_seconds
        self._received_bytes = 0
        self._delivered_bytes = 0
        self._start = time.monotonic()
        self.verdict: str | None = None

    def patience(self) -> float:
        """Seconds that the next piece may take; TimeoutError where the transfer's time is over."""
        allowed = GRACE_SECONDS + self._delivered_bytes / LEAST_BYTES_PER_SECOND
        seconds = time.monotonic() - self._start
        if seconds >= allowed:
            self.verdict = (
                f"too slow: {self._delivered_bytes} bytes in {seconds:.0f} s, expected "
                f"{LEAST_BYTES_PER_SECOND} a second after {GRACE_SECONDS:g} s"
            )
            raise TimeoutError(self.verdict)
        return min(self._read_seconds, allowed - seconds)

    def expect(self, body_bytes: int) -> None:
        """Let so much more arrive: a body comes now."""
        self._limit_bytes += body_bytes

    def deliver(self, body_bytes: int) -> None:
        """Take in that so much of a body has arrived: the transfer gets on."""
        self._delivered_bytes += body_bytes

    def count(self, received_bytes: int) -> None:
        """Take in what arrived; OSError where it is too much."""
        self._received_bytes += received_bytes
        if self._received_bytes > self._limit_bytes:
            self.verdict = f"sends more than {self._limit_bytes} bytes for what was asked"
            raise OSError(self.verdict)


def session(meter: Meter) -> requests.Session:
    """A session whose answers are metered; proxies and certificates as requests has them."""
    made = _Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, _MeteredAdapter(meter))
    return made


class _Session(requests.Session):
    def resolve_redirects(self, *args: Any, **options: Any) -> Iterator[Any]:
        """None: requests would read a redirect's whole body, even where it does not follow."""
        return iter(())


class _MeteredAdapter(HTTPAdapter):
    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        return self._watch(manager)

    def _watch(self, manager: Any) -> Any:
        """Make a pool manager open connections whose answers are metered."""
        meter = self._meter
        watched = {}
        for scheme, pool in manager.pool_classes_by_scheme.items():

            class Connection(pool.ConnectionCls):  # type: ignore[misc, name-defined]
                def __init__(self, *args: Any, **options: Any) -> None:
                    super().__init__(*args, **options)
                    self.response_class = lambda *a, **o: _MeteredResponse(meter, *a, **o)

            watched[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": Connection})
        manager.pool_classes_by_scheme = watched
        return manager


class _MeteredResponse(http.client.HTTPResponse):
    """An answer of which each byte passes the meter on its way from the socket."""

    def __init__(self, meter: Meter, sock: Any, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_MeteredSocket(meter, sock, raw))


class _MeteredSocket(io.RawIOBase):
    def __init__(self, meter: Meter, sock: Any, raw: io.RawIOBase) -> None:
        self._meter = meter
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._meter.patience())
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            self._meter.patience()  # it was the transfer's time that is over, not the silence's
            raise
        self._meter.count(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
