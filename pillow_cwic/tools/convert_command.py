"""`pillow-cwic convert`: its arguments, progress and report.

Invariant: storage and processes are imported by `run` alone, so that other commands need not wait
for them.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.machine import available_cores
from ..weights import models
from . import arguments, sources
from .recode import CWIC, format_of
from .terminal import bar, report_beside, say

if TYPE_CHECKING:
    from .convert import Plan, Work
    from .terminal import Outcome

SUMMARY = "convert many pictures to .cwic, or .cwic files to another format"
DESCRIPTION = (
    "Convert many pictures to .cwic, or .cwic files to another format. SOURCE is a file or a "
    "folder, a path or a URL that fsspec knows (s3://...). What fails is reported, results that "
    "are there are left alone: the same command again does what is missing."
)


def add_parser(commands: Any) -> None:
    """Adds the command; its `func` takes the parsed arguments and returns the exit code."""
    parser = commands.add_parser(
        "convert",
        help=SUMMARY,
        description=DESCRIPTION,
        usage="%(prog)s [options] SOURCE [SOURCE ...] --out DIR",
    )

    # What, and into what.
    parser.add_argument("paths", nargs="+", metavar="SOURCE", help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for the results, a path or a URL"
    )
    parser.add_argument(
        "--to", default=".cwic", metavar="EXT", help="format to write, by extension; default: cwic"
    )

    # By whom: processes of this machine, or a cluster.
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs", type=int, metavar="N", help="worker processes; default: one for each core"
    )
    where.add_argument(
        "--scheduler", metavar="URL", help="work on the Dask cluster at tcp://... instead"
    )

    # How pictures are read, coded, and written.
    arguments.add(parser)
    arguments.add_reading(parser)
    arguments.add_writing(parser)
    arguments.add_usual(parser)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Plan, convert, report; 1 if any file failed."""
    from . import convert
    from .storage import Place

    # What is wrong with the command line, before anything is opened.
    try:
        work = _checked_work(args)
    except ValueError as error:
        args.usage_error(str(error))
    for name in (*args.paths, args.out):
        if Place.of(name).is_in_memory:
            raise OSError(
                f"{name}: worker processes have a memory of their own: name a folder, or a storage "
                "that all of them reach"
            )
    if Place.of(args.out).is_local:
        sources.check_folder(Path(Place.of(args.out).path).resolve(), args.out, True)

    # What can't be converted is said at once, the model fetched once and not in every worker.
    plan = convert.plan(args.paths, args.out, work)
    for outcome in plan.refused:
        outcome.report()
    if plan.jobs and work.format_name == CWIC and not args.lossless:
        models.locate(models.find(work.options.get("model")), quiet=args.quiet)

    outcomes = _convert_all(args, plan)
    failures = sum(outcome.problem is not None for outcome in outcomes)
    if not args.quiet:
        converted = sum(bool(outcome.result) for outcome in outcomes)
        done = plan.done + len(outcomes) - failures - converted
        counts = f"{converted} converted, {done} there already"
        counts += f", {failures + len(plan.refused)} failed"
        counts += f", {plan.left_out} left out: no regular pictures" if plan.left_out else ""
        say(f"{args.out}: {counts}")
    return 1 if failures or plan.refused else 0


def _checked_work(args: argparse.Namespace) -> Work:
    """What is asked for; ValueError where it means nothing for this format."""
    from .convert import Work

    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is at least 1, found {args.jobs}")
    suffix = "." + args.to.lower().removeprefix(".")
    format_name = format_of(suffix)
    if format_name == CWIC:
        options = arguments.chosen_options(args)
        for name in ("background", "option"):
            if getattr(args, name):
                raise ValueError(f"--{name} is for other formats, not for .cwic files")
    else:
        for name in arguments.ENCODER_OPTIONS:
            if name not in ("quality", "device") and getattr(args, name) is not None:
                option = name.replace("_", "-")
                raise ValueError(f"--{option} is for .cwic files, not for {suffix}")
        options = arguments.save_options(args, format_name)
    reading = arguments.chosen_reading(args)
    return Work(format_name, suffix, options, reading, args.background, args.force)


def _convert_all(args: argparse.Namespace, plan: Plan) -> list[Outcome]:
    """Do the plan's jobs under a progress bar; what became of each."""
    from . import convert

    # No more processes than pictures.
    jobs = min(args.jobs or available_cores(), max(1, len(plan.jobs)))
    workers = partial(convert.processes, jobs)
    if args.scheduler:
        workers = partial(convert.cluster, args.scheduler)

    outcomes = []
    with bar(len(plan.jobs), "converting", "file", args.quiet) as progress:
        for _, outcome in convert.run(plan.jobs, workers):
            outcomes.append(outcome)
            report_beside(progress, outcome)
            progress.update()
    return outcomes
