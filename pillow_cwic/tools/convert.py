"""`pillow-cwic convert`: many pictures, in worker processes here or on a Dask cluster.

Paths are fsspec's: local ones, or URLs of any storage it knows. Invariant: under its final name an
output is complete, so that a rerun does only what is missing. This module leaves torch to the
workers' codec.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, UnidentifiedImageError

from ..runtime.machine import available_cores
from ..runtime.processes import worker_processes
from .recode import CWIC, recode_picture

FAILURES = (
    OSError,
    ValueError,
    TypeError,
    SyntaxError,  # Pillow's plugins on broken files
    EOFError,
    MemoryError,
    Image.DecompressionBombError,
)
"""What a picture can do to whoever converts it."""

AHEAD = 2  # jobs handed out for every worker: one waits while another is done

Workers = Callable[[], AbstractContextManager[tuple[Executor, int]]]
"""Opens an executor, and says how many jobs it does at a time."""


@dataclass(frozen=True)
class Place:
    """A file of some storage."""

    store: fsspec.AbstractFileSystem  # travels as what it takes to open it again
    path: str

    def __str__(self) -> str:
        """As people write it: with its protocol, unless it is a file of this machine."""
        if isinstance(self.store, LocalFileSystem):
            return self.path
        return str(self.store.unstrip_protocol(self.path))

    @classmethod
    def of(cls, url: str) -> Self:
        """A path or URL.

        ValueError for a protocol that is not known, OSError for one that needs another package.
        """
        try:
            return cls(*fsspec.core.url_to_fs(url))
        except ImportError as error:
            raise OSError(f"{url}: {error}") from error


@dataclass(frozen=True)
class Job:
    """One picture to convert; goes to another process, or another machine."""

    source: Place
    target: Place
    format_name: str  # as Pillow calls it
    options: dict[str, Any] = field(default_factory=dict)  # of Pillow's save


@dataclass(frozen=True)
class Plan:
    """What `plan` found."""

    jobs: list[Job]
    done: int  # outputs that are there already
    refused: list[str]  # a message each


def plan(
    sources: Iterable[str], out: str, format_name: str, suffix: str, options: dict[str, Any]
) -> Plan:
    """Which pictures go where: folders are searched, and keep their structure under `out`.

    A folder's pictures are those that could become another format: all that Pillow reads by their
    extension but the target's own, and only .cwic files if they are to become something else.
    OSError where a source doesn't exist.
    """
    # What is there, and what could go there.
    folder = Place.of(out)
    root = folder.path.rstrip("/")
    existing = set(folder.store.find(folder.path)) if folder.store.exists(folder.path) else set()
    extensions = _convertible_extensions(format_name)
    pictures = chain.from_iterable(_pictures(source, extensions) for source in sources)

    # Two sources of one target would overwrite each other: the first one has it.
    first_source: dict[str, Place] = {}
    jobs: list[Job] = []
    refused: list[str] = []
    done = 0
    for source, name in pictures:
        target = Place(folder.store, f"{root}/{PurePosixPath(name).with_suffix(suffix)}")
        first = first_source.setdefault(target.path, source)
        if first is not source:
            if first.path != source.path:  # else it was named twice
                refused.append(f"{source}: not converted, {first} becomes {target} already")
        elif target.path in existing:
            done += 1
        else:
            jobs.append(Job(source, target, format_name, options))
    return Plan(jobs, done, refused)


def _convertible_extensions(format_name: str) -> frozenset[str]:
    extensions = Image.registered_extensions()
    formats = {CWIC} if format_name != CWIC else Image.OPEN.keys() - {CWIC}
    return frozenset(suffix for suffix, name in extensions.items() if name in formats)


def _pictures(url: str, extensions: frozenset[str]) -> Iterator[tuple[Place, str]]:
    """Pictures of a file or folder, and the names that they have in it."""
    source = Place.of(url)
    store = source.store
    root = source.path
    if store.isfile(root):
        yield source, PurePosixPath(root).name
        return
    if not store.isdir(root):
        raise FileNotFoundError(f"{url}: there is no such file or folder")
    for path in sorted(store.find(root)):
        if PurePosixPath(path).suffix.lower() in extensions:
            yield Place(store, path), path.removeprefix(root).lstrip("/")


def convert(job: Job) -> str | None:
    """Convert one picture; an error message if that failed. Runs in a worker."""
    try:
        with Image.open(BytesIO(job.source.store.cat_file(job.source.path))) as image:
            data = recode_picture(image, job.format_name, **job.options)
        write_complete(job.target, data)
    except UnidentifiedImageError:
        return "no picture that Pillow can read"
    except FAILURES as error:
        return str(error) or type(error).__name__
    return None


def write_complete(target: Place, data: bytes) -> None:
    """Write a file under another name and give it its own at last: nobody finds half of it."""
    store = target.store
    parent, name = target.path.rsplit("/", 1)
    store.makedirs(parent, exist_ok=True)
    partial = f"{parent}/.{name}.{uuid.uuid4().hex}.partial"
    try:
        store.pipe_file(partial, data)
        store.mv(partial, target.path)
    except BaseException:
        if store.exists(partial):
            store.rm_file(partial)
        raise


def run(jobs: Iterable[Job], workers: Workers) -> Iterator[tuple[Job, str | None]]:
    """Each job with its error, if any, as they end.

    Where worker processes died, the jobs they had are lost.
    """
    waiting = iter(jobs)
    first = next(waiting, None)
    while first is not None:
        with workers() as (executor, count):
            pending = _submit(executor, [first, *islice(waiting, max(0, AHEAD * count - 1))])
            while pending:
                ended = wait(pending, return_when=FIRST_COMPLETED).done
                yield from ((pending.pop(future), _outcome(future)) for future in ended)
                if not any(_died(future) for future in ended):
                    pending |= _submit(executor, islice(waiting, len(ended)))
        first = next(waiting, None)


def _submit(executor: Executor, jobs: Iterable[Job]) -> dict[Future[str | None], Job]:
    return {_submit_job(executor, job): job for job in jobs}


def _submit_job(executor: Executor, job: Job) -> Future[str | None]:
    try:
        return executor.submit(convert, job)
    except BrokenProcessPool as error:
        # A worker died just now: this job's turn comes to nothing, too.
        lost: Future[str | None] = Future()
        lost.set_exception(error)
        return lost


def _outcome(future: Future[str | None]) -> str | None:
    """The message of a job that failed, None for one that is done."""
    if future.cancelled():
        return "the scheduler gave it up"
    error = future.exception()
    return f"the worker failed: {error or type(error).__name__}" if error else future.result()


def _died(future: Future[str | None]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenProcessPool)


@contextmanager
def processes(count: int) -> Iterator[tuple[Executor, int]]:
    """Worker processes of this machine, which share its processors."""
    threads = max(1, available_cores() // count)
    with worker_processes(count, _limit_threads, threads) as pool:
        yield pool, count


@contextmanager
def cluster(address: str) -> Iterator[tuple[Executor, int]]:
    """The workers of a Dask cluster, by its scheduler's address.

    Pillow-cwic must be installed there, too.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise OSError("a scheduler needs Dask: pip install 'pillow-cwic[dask]'") from error
    with Client(address) as client:  # type: ignore[no-untyped-call]
        yield client.get_executor(pure=False), sum(client.ncores().values())


def _limit_threads(threads: int) -> None:
    # torch reads it when it is imported, which is later.
    os.environ["OMP_NUM_THREADS"] = str(threads)
