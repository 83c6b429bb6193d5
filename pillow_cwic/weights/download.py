"""Fetches a weights file into the cache, from every URL in turn, resumed where it was cut.

Invariant: one downloader per model across processes, holding the cache's lock; the final name
appears only when size and SHA-256 are right. The partial file is named by the hash, so whoever
takes the lock next resumes it, from any URL. Nothing a server says is trusted: not a name, not a
length, not a range. This module knows no torch.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, urlsplit

from ..errors import WeightsError
from . import cache
from .manifest import Entry

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

MIRROR_VARIABLE = "PILLOW_CWIC_WEIGHTS_URL"
OFFLINE_VARIABLE = "PILLOW_CWIC_OFFLINE"
CONNECT_SECONDS = 10.0  # to a connection
READ_SECONDS = 30.0  # between two pieces of an answer
CHUNK_BYTES = 1 << 14  # a cut loses less than this: an unfilled piece never leaves the HTTP library
MAX_ATTEMPTS = 6  # per URL, each resuming where the one before was cut
RETRY_SECONDS = 0.2


class _RefusedError(Exception):
    """This URL does not give the file: the message says why, the next URL may."""


class _CutError(_RefusedError):
    """The transfer broke off; what has arrived is kept and can be resumed."""


class _MismatchError(_RefusedError):
    """All bytes arrived and they are the wrong ones."""


@dataclass
class _Transfer:
    """One download under the lock: where it goes and how it is shown."""

    entry: Entry
    partial: Path
    quiet: bool
    resumed: bool = False  # the partial file holds bytes from an earlier answer


def is_offline() -> bool:
    """True when PILLOW_CWIC_OFFLINE forbids the network."""
    return os.environ.get(OFFLINE_VARIABLE, "").lower() not in ("", "0", "false", "no")


def sources(entry: Entry) -> list[str]:
    """Every URL to try in turn: the mirror PILLOW_CWIC_WEIGHTS_URL first, then the entry's own."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    mirrored = [f"{mirror.rstrip('/')}/{quote(entry.file)}"] if mirror else []
    return list(dict.fromkeys(mirrored + entry.remote_urls()))


def fetch(entry: Entry, *, quiet: bool = False) -> Path:
    """The entry's file in the cache, downloaded unless another process has done it meanwhile.

    `quiet` hides the progress bar, which is shown on stderr only where that is a terminal. A
    WeightsError lists each URL with what was wrong, and says what to do.
    """
    final = cache.model_path(entry.sha256)
    _require_network(entry)

    def say_waiting() -> None:
        _say(f"waiting for another download of {entry}", quiet)

    with cache.locked(entry.sha256, on_wait=say_waiting):
        # Whoever held the lock before may have fetched it.
        if cache.is_intact(final, entry.sha256):
            return final

        transfer = _Transfer(entry, cache.partial_path(entry.sha256), quiet)
        failures: list[str] = []
        mismatches = 0
        for url in sources(entry):
            try:
                _from_url(transfer, url)
                with cache.disk_errors(final.parent):
                    transfer.partial.replace(final)
                return final
            except _RefusedError as error:
                failures.append(f"{_presentable(url)}: {error}")
                mismatches += isinstance(error, _MismatchError)
                # Two servers agree on wrong bytes: the manifest is suspect, not the line.
                if mismatches == 2:
                    break
    raise WeightsError(_failure_report(entry, failures))


def fetch_small(url: str, limit_bytes: int) -> bytes:
    """A small document at a URL.

    WeightsError when it can't be had or is longer than `limit_bytes`.
    """
    if is_offline():
        raise WeightsError(f"{_presentable(url)} was not fetched: {OFFLINE_VARIABLE} is set")
    data = bytearray()
    try:
        with _get(url, {}) as response:
            for chunk in _chunks(response):
                data += chunk
                if len(data) > limit_bytes:
                    raise _RefusedError(f"longer than {limit_bytes} bytes")
    except _RefusedError as error:
        raise WeightsError(
            f"cannot fetch {_presentable(url)}: {error}; check the address and the network or proxy"
        ) from error
    return bytes(data)


def _require_network(entry: Entry) -> None:
    target = cache.model_path(entry.sha256)
    if is_offline():
        raise WeightsError(
            f"the model {entry} is not on this machine and {OFFLINE_VARIABLE} is set: copy its "
            f"file to {target}, "
            f"or unset {OFFLINE_VARIABLE}"
        )
    if not sources(entry):
        raise WeightsError(
            f"the model {entry} is not on this machine and {entry.origin} gives no URL for it: "
            "copy its file to "
            f"{target}, or set {MIRROR_VARIABLE} to a server that has {entry.file}"
        )


def _from_url(transfer: _Transfer, url: str) -> None:
    """Completes the partial file from one URL and checks it; a cut is resumed, a few times."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            _append(transfer, url)
            _check(transfer)
            return
        except _CutError:
            if attempt + 1 == MAX_ATTEMPTS:
                raise
            time.sleep(RETRY_SECONDS)


def _append(transfer: _Transfer, url: str) -> None:
    """Adds to the partial file what it lacks.

    A _CutError can be resumed, a _RefusedError means another URL.
    """
    # What is there already; more than the whole file is no beginning of it.
    wanted = transfer.entry.bytes
    offset = _size(transfer.partial)
    if offset == wanted:
        return
    if offset > wanted:
        offset = 0

    # Onto the end of it, or from zero, as the server answers.
    with _get(url, {"Range": f"bytes={offset}-"} if offset else {}) as response:
        offset = _checked_start(response, offset, transfer)
        transfer.resumed = offset > 0
        with (
            _freed_when_full(transfer.partial),
            transfer.partial.open("ab" if offset else "wb") as file,
            _bar(transfer, offset) as bar,
        ):
            for chunk in _chunks(response):
                offset += len(chunk)
                if offset > wanted:
                    raise _RefusedError(f"sends more than the {wanted} bytes expected")
                file.write(chunk)
                bar.update(len(chunk))
    if offset < wanted:
        raise _CutError(f"the transfer ended after {offset} of {wanted} bytes")


def _checked_start(response: requests.Response, offset: int, transfer: _Transfer) -> int:
    """Where in the file this answer starts: `offset`, or 0 from a server that ignores Range."""
    # Packed although it was asked not to: then offsets and lengths are of other bytes.
    packed = "Content-Encoding" in response.headers
    if response.status_code == 206:
        sent = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", sent)
        if packed or match is None or int(match[1]) != offset:
            transfer.partial.unlink(missing_ok=True)  # from zero
            raise _CutError(f"answered with another range than bytes {offset}-")
        total = match[2]
    elif packed:
        return 0
    else:
        offset = 0
        total = response.headers.get("Content-Length", "*")

    # A file of another size is another file.
    if total != "*" and total != str(transfer.entry.bytes):
        raise _RefusedError(f"has {total} bytes, expected {transfer.entry.bytes}")
    return offset


def _check(transfer: _Transfer) -> None:
    """Compares the whole partial file with the entry's hash; a wrong file is deleted."""
    sha256 = cache.hash_file(transfer.partial)
    if sha256 != transfer.entry.sha256:
        transfer.partial.unlink(missing_ok=True)
        message = f"SHA-256 is {sha256}, expected {transfer.entry.sha256}"
        # Of a resumed file, the fault may lie in the older part.
        raise _CutError(message) if transfer.resumed else _MismatchError(message)


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    """The open answer to a GET with status 200 or 206.

    Redirects, proxies and certificates as requests does.
    """
    import requests

    # Unpacked: offsets and lengths must be of the file's own bytes.
    try:
        response = requests.get(
            url,
            headers={"Accept-Encoding": "identity", **headers},
            stream=True,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
        )
    except (requests.RequestException, ValueError) as error:
        raise _RefusedError(_reason(error)) from error

    # Everything else has no body worth reading.
    if response.status_code in (200, 206):
        return response
    response.close()
    raise _RefusedError(f"HTTP {response.status_code} {response.reason}")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """The body in pieces.

    Errors become _CutError (resume here) or _RefusedError (resume from the next URL).
    """
    import requests

    try:
        yield from response.iter_content(CHUNK_BYTES)
    except requests.ConnectionError as error:  # what requests makes of a read time-out
        raise _RefusedError(_reason(error)) from error
    except requests.RequestException as error:
        raise _CutError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What went wrong in a few words: requests' messages are nested representations of objects."""
    import requests

    text = str(error).lower()
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {CONNECT_SECONDS:g} s"
    if isinstance(error, requests.ReadTimeout) or "read timed out" in text:
        return f"no answer for {READ_SECONDS:g} s"
    for sign, words in _SIGNS.items():
        if sign in text:
            return words
    return f"{type(error).__name__}: {error}"


_SIGNS = {  # a piece of an error's text: what it means
    "name or service not known": "the host name is unknown, or there is no network",
    "failed to resolve": "the host name is unknown, or there is no network",
    "network is unreachable": "there is no network",
    "connection refused": "the connection was refused",
    "certificate verify failed": "its certificate is not trusted",
    "incompleteread": "the transfer broke off",
}


@contextlib.contextmanager
def _freed_when_full(partial: Path) -> Iterator[None]:
    """File errors as advice.

    On a full disk the partial file goes, so that the user's disk isn't left full.
    """
    try:
        with cache.disk_errors(partial.parent):
            yield
    except WeightsError as error:
        if error.errno in cache.DISK_FULL:
            partial.unlink(missing_ok=True)
        raise


def _bar(transfer: _Transfer, offset: int) -> tqdm[NoReturn]:
    from tqdm import tqdm

    disable = True if transfer.quiet else None  # None: shown where stderr is a terminal
    return tqdm(
        total=transfer.entry.bytes,
        initial=offset,
        unit="B",
        unit_scale=True,
        desc=transfer.entry.name,
        disable=disable,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _say(text: str, quiet: bool) -> None:
    if not quiet and sys.stderr.isatty():
        sys.stderr.write(text + "\n")


def _presentable(url: str) -> str:
    """The URL without a password or a query, which may hold a signature."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _failure_report(entry: Entry, failures: list[str]) -> str:
    return "\n".join(
        [
            f"cannot fetch the model {entry}:",
            *(f"  {failure}" for failure in failures),
            f"Check the network or proxy, set {MIRROR_VARIABLE} to a server that has "
            f"{entry.file}, or copy the file to "
            f"{cache.model_path(entry.sha256)}.",
        ]
    )
