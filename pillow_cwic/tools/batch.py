"""One command over several files: what each becomes, in turn, and a report of those that failed.

Invariant: a file that fails spoils nothing for the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from functools import partial

from . import sources
from .pictures import pixel_limit
from .sources import Task
from .terminal import Outcome, attempt, say


def run_batch(
    args: argparse.Namespace,
    paths: tuple[list[str], str],
    extensions: tuple[Collection[str], str],
    work: Callable[[Task], None],
) -> int:
    """Do the work for each file; the exit code.

    paths: what to read, and where it goes; extensions: of what is read below a folder, and of what
    is written.
    """
    names, out = paths
    found, missing = sources.expand(names, extensions[0])
    into_folder = sources.is_folder(out, names)
    tasks = [Task(source, out, False) for source in found]
    if into_folder:
        tasks, left_out = sources.tasks_into(out, found, extensions[1])
        missing += left_out
    failures = len(missing)
    for name, problem in missing:
        Outcome(name, problem).report()

    # What is wrong with an output is known before the first one is made.
    everything = [source.name for source in found]
    ready = []
    for task in tasks:
        check = partial(
            sources.check_target,
            task.target,
            everything,
            force=args.force or getattr(args, "all_frames", False),  # they get names of their own
            makes_folder=task.makes_folder,
        )
        outcome = attempt(task.source.name, check, task.target)
        outcome.report()
        ready += [task] if outcome.problem is None else []
    failures += len(tasks) - len(ready)
    done = 0

    # One after the other; what fails is told, and the others are made.
    with pixel_limit(args.max_pixels):
        for task in ready:
            outcome = attempt(task.source.name, partial(work, task), task.target)
            outcome.report()
            done += outcome.problem is None
    failures += len(ready) - done
    if len(names) + len(tasks) > 2 and not args.quiet:
        say(f"{out}: {done} done, {failures} failed")
    return 1 if failures else 0
