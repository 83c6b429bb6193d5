"""Fetches a weights file into the cache, from every URL in turn, resumed where it was cut.

Invariant: one downloader per model across processes, holding the cache's lock; the final name
appears only when size and SHA-256 are right. The partial file is named by the hash, so whoever
takes the lock next resumes it, from any URL. Nothing a server says is trusted: not a name, not a
length, not a range. This module knows no torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from ..errors import WeightsError
from . import cache, transfer
from .manifest import Entry, presentable
from .transfer import CutError, RefusedError

if TYPE_CHECKING:
    import requests
    from tqdm import tqdm

MIRROR_VARIABLE = "PILLOW_CWIC_WEIGHTS_URL"
OFFLINE_VARIABLE = "PILLOW_CWIC_OFFLINE"
MAX_ATTEMPTS = 6  # per URL, each resuming where the one before was cut
RETRY_SECONDS = 0.2


class _MismatchError(RefusedError):
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
        if cache.is_intact(final, entry.sha256, entry.bytes):
            return final

        job = _Transfer(entry, cache.partial_path(entry.sha256), quiet)
        failures: list[str] = []
        mismatches = 0
        for url in sources(entry):
            try:
                _from_url(job, url)
                with cache.disk_errors(final.parent):
                    job.partial.replace(final)
                return final
            except RefusedError as error:
                failures.append(f"{presentable(url)}: {error}")
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
        raise WeightsError(f"{presentable(url)} was not fetched: {OFFLINE_VARIABLE} is set")
    data = bytearray()
    try:
        with transfer.get(url, {}, limit_bytes) as answer:
            for chunk in answer.chunks():
                data += chunk
                if len(data) > limit_bytes:
                    raise RefusedError(f"longer than {limit_bytes} bytes")
    except RefusedError as error:
        raise WeightsError(
            f"cannot fetch {presentable(url)}: {error}; check the address and the network or proxy"
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
            f"the model {entry} is not on this machine and {presentable(entry.origin)} gives no "
            f"URL for it: copy its file to {target}, or set {MIRROR_VARIABLE} to a server that has "
            f"{entry.file}"
        )


def _from_url(job: _Transfer, url: str) -> None:
    """Completes the partial file from one URL and checks it; a cut is resumed, a few times."""
    for attempt in range(MAX_ATTEMPTS):
        try:
            _append(job, url)
            _check(job)
            return
        except CutError:
            if attempt + 1 == MAX_ATTEMPTS:
                raise
            time.sleep(RETRY_SECONDS)


def _append(job: _Transfer, url: str) -> None:
    """Adds to the partial file what it lacks.

    A CutError can be resumed, a RefusedError means another URL.
    """
    # What is there already; more than the whole file is no beginning of it.
    wanted = job.entry.bytes
    offset = cache.partial_size(job.partial)
    if offset == wanted:
        return
    if offset > wanted:
        offset = 0

    # Onto the end of it, or from zero, as the server answers.
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    with transfer.get(url, headers, wanted) as answer:
        offset = _checked_start(answer.response, offset, job)
        job.resumed = offset > 0
        with (
            _freed_when_full(job.partial),
            cache.open_partial(job.partial, append=offset > 0) as file,
            _bar(job, offset) as bar,
        ):
            for chunk in answer.chunks():
                offset += len(chunk)
                if offset > wanted:
                    raise RefusedError(f"sends more than the {wanted} bytes expected")
                file.write(chunk)
                bar.update(len(chunk))
    if offset < wanted:
        raise CutError(f"the transfer ended after {offset} of {wanted} bytes")


def _checked_start(response: requests.Response, offset: int, job: _Transfer) -> int:
    """Where in the file this answer starts: `offset`, or 0 from a server that ignores Range."""
    # Packed although it was asked not to: then offsets and lengths are of other bytes.
    packed = "Content-Encoding" in response.headers
    if response.status_code == 206:
        sent = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)", sent)
        if packed or match is None or int(match[1]) != offset:
            job.partial.unlink(missing_ok=True)  # from zero
            raise CutError(f"answered with another range than bytes {offset}-")
        total = match[2]
    elif packed:
        return 0
    else:
        offset = 0
        total = response.headers.get("Content-Length", "*")

    # A file of another size is another file.
    if total != "*" and total != str(job.entry.bytes):
        raise RefusedError(f"has {total[:20]} bytes, expected {job.entry.bytes}")
    return offset


def _check(job: _Transfer) -> None:
    """Compares the whole partial file with the entry's hash; a wrong file is deleted."""
    sha256 = cache.hash_file(job.partial)
    if sha256 != job.entry.sha256:
        job.partial.unlink(missing_ok=True)
        message = f"SHA-256 is {sha256}, expected {job.entry.sha256}"
        # Of a resumed file, the fault may lie in the older part.
        raise CutError(message) if job.resumed else _MismatchError(message)


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


def _bar(job: _Transfer, offset: int) -> tqdm[NoReturn]:
    from tqdm import tqdm

    return tqdm(
        total=job.entry.bytes,
        initial=offset,
        unit="B",
        unit_scale=True,
        desc=job.entry.name,
        disable=job.quiet or not _is_watched(),
    )


def _is_watched() -> bool:
    """Whether stderr is a terminal; it may be missing, or closed."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def _say(text: str, quiet: bool) -> None:
    """Tell whoever waits: on a terminal, else in the log."""
    if quiet:
        return
    if _is_watched():
        sys.stderr.write(text + "\n")
    else:
        logging.getLogger("pillow_cwic").warning("%s", text)


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
