"""`pillow-cwic convert`: many pictures, in worker processes here or on a Dask cluster.

Invariant: under its final name an output is complete, so that a rerun does only what is missing.
This module leaves torch to the workers' codec.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from ..runtime.machine import available_cores
from ..runtime.processes import worker_processes
from .pictures import PLAIN, Reading, chosen_frames, load_frame, open_picture, pixel_limit
from .recode import CWIC, readable_extensions, write_picture
from .sources import NOTHING_BELOW, is_litter
from .storage import Place
from .terminal import Outcome, attempt, choose_warnings

AHEAD = 2  # jobs handed out for every worker: one waits while another is done

SECONDS_FOR_A_CLUSTER = 10
"""To answer, and to have a worker."""

Workers = Callable[[], AbstractContextManager[tuple[Executor, int]]]
"""Opens an executor, and says how many jobs it does at a time."""


@dataclass(frozen=True)
class Work:
    """What becomes of every picture."""

    format_name: str  # as Pillow calls it
    suffix: str  # of the results
    options: dict[str, Any] = field(default_factory=dict)  # of Pillow's save
    reading: Reading = PLAIN
    background: str | None = None  # below what is transparent
    force: bool = False  # replace results that are there


@dataclass(frozen=True)
class Job:
    """One picture to convert; goes to another process, or another machine."""

    source: Place
    target: Place
    work: Work


@dataclass(frozen=True)
class Plan:
    """What `plan` found."""

    jobs: list[Job]
    done: int  # outputs that are there already
    left_out: int  # files with a picture's extension that are none
    refused: list[Outcome]


def plan(names: Iterable[str], out: str, work: Work) -> Plan:
    """Which pictures go where: folders are searched, and keep their structure under `out`.

    A folder's pictures are those that could become another format: all that Pillow reads by their
    extension but the target's own, and only .cwic files if they are to become something else.
    OSError where a source doesn't exist.
    """
    # What is there, and what could go there; an empty file is no result.
    folder = Place.of(out)
    existing = {folder.below(name).path for name, info in folder.files() if info["size"] != 0}
    extensions = readable_extensions(cwic=work.format_name != CWIC)
    found: list[tuple[Place, str]] = []
    refused: list[Outcome] = []
    left_out = 0
    for name in names:
        pictures, others = _pictures(name, extensions)
        found += pictures
        left_out += others
        if not pictures and not others:
            refused.append(Outcome(name, NOTHING_BELOW))

    # Two sources of one target would overwrite each other: the first one has it.
    first_source: dict[str, Place] = {}
    sources = {source.path for source, _ in found}
    jobs: list[Job] = []
    done = 0
    for source, relative in found:
        target = folder.below(str(PurePosixPath(relative).with_suffix(work.suffix)))
        first = first_source.setdefault(target.path, source)
        if first is not source:
            if first.path != source.path:  # else it was named twice
                problem = f"not converted, {first} becomes {target} already"
                refused.append(Outcome(source.name, problem))
        elif target.is_same(source) or (work.force and target.path in sources):
            problem = f"not converted, {target} would replace a source: choose another --out"
            refused.append(Outcome(source.name, problem))
        elif target.path in existing and not (work.force or work.reading.all_frames):
            done += 1  # with all frames only the picture itself tells which files are missing
        else:
            jobs.append(Job(source, target, work))
    return Plan(jobs, done, left_out, refused)


def _pictures(name: str, extensions: frozenset[str]) -> tuple[list[tuple[Place, str]], int]:
    """Pictures of a file or folder with the names that they have in it; how many were none."""
    source = Place.of(name)
    if source.store.isfile(source.path):
        return [(source, PurePosixPath(source.path).name)], 0
    if not source.store.isdir(source.path):
        if source.store.exists(source.path):
            raise OSError(f"{name}: convert reads regular files only; `encode` reads pipes")
        raise FileNotFoundError(f"{name}: there is no such file or folder")
    pictures = []
    others = 0
    for relative, info in source.files():
        path = PurePosixPath(relative)
        if path.suffix.lower() not in extensions:
            continue
        if info["type"] == "file" and not is_litter(path.name):
            pictures.append((source.below(relative), relative))
        else:
            others += 1
    return pictures, others


def convert(job: Job) -> Outcome:
    """Convert one picture, or each of its frames; what went wrong. Runs in a worker."""
    with warnings.catch_warnings():
        choose_warnings()
        with pixel_limit(job.work.reading.max_pixels):
            return attempt(job.source.name, lambda: _convert_frames(job))


def _convert_frames(job: Job) -> int:
    """How many files were missing."""
    work = job.work
    missing = 0
    with open_picture(BytesIO(job.source.read())) as image:
        frames = chosen_frames(image, work.reading)
        digits = len(str(len(frames) - 1))
        for frame in frames:
            target = job.target if len(frames) == 1 else job.target.numbered(frame, digits)
            if work.force or not target.is_done():
                picture, blocks = load_frame(image, frame, work.reading)
                options = (blocks, work.format_name, work.options, work.background)
                target.write(write_picture(picture, *options))
                missing += 1
    return missing


def run(jobs: Iterable[Job], workers: Workers) -> Iterator[tuple[Job, Outcome]]:
    """Each job with what became of it, as they end.

    Where worker processes died, the jobs they had are lost.
    """
    waiting = iter(jobs)
    first = next(waiting, None)
    while first is not None:
        with workers() as (executor, count):
            pending = _submit(executor, [first, *islice(waiting, max(0, AHEAD * count - 1))])
            while pending:
                ended = wait(pending, return_when=FIRST_COMPLETED).done
                for future in ended:
                    job = pending.pop(future)
                    yield job, _outcome(job, future)
                if not any(_died(future) for future in ended):
                    pending |= _submit(executor, islice(waiting, len(ended)))
        first = next(waiting, None)


def _submit(executor: Executor, jobs: Iterable[Job]) -> dict[Future[Outcome], Job]:
    return {_submit_job(executor, job): job for job in jobs}


def _submit_job(executor: Executor, job: Job) -> Future[Outcome]:
    try:
        return executor.submit(convert, job)
    except BrokenProcessPool as error:
        # A worker died just now: this job's turn comes to nothing, too.
        lost: Future[Outcome] = Future()
        lost.set_exception(error)
        return lost


def _outcome(job: Job, future: Future[Outcome]) -> Outcome:
    """What became of a job, also where its worker did not live to say so."""
    if future.cancelled():
        return Outcome(job.source.name, "the scheduler gave it up")
    error = future.exception()
    if error is not None:
        return Outcome(job.source.name, f"the worker failed: {error or type(error).__name__}")
    return future.result()


def _died(future: Future[Outcome]) -> bool:
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
    with Client(address, timeout=SECONDS_FOR_A_CLUSTER) as client:  # type: ignore[no-untyped-call]
        try:
            client.wait_for_workers(1, timeout=SECONDS_FOR_A_CLUSTER)
        except TimeoutError as error:
            raise OSError(
                f"the scheduler {address} has no worker after {SECONDS_FOR_A_CLUSTER} s: start "
                f"some, for instance `dask worker {address}`"
            ) from error
        yield client.get_executor(pure=False), sum(client.ncores().values())


def _limit_threads(threads: int) -> None:
    # torch reads it when it is imported, which is later.
    os.environ["OMP_NUM_THREADS"] = str(threads)
