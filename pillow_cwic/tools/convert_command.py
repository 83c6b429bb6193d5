"""`pillow-cwic convert`: its arguments, progress and report.

Invariant: storage and processes are imported by `run` alone, so that other commands need not wait
for them.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from ..runtime.machine import available_cores
from ..weights import models
from . import arguments
from .recode import CWIC, format_of
from .terminal import complain

if TYPE_CHECKING:
    from .convert import Plan

SUMMARY = "convert many pictures to .cwic, or .cwic files to another format"
DESCRIPTION = (
    "Convert many pictures to .cwic, or .cwic files to another format. A file that fails is "
    "reported and the others are converted; outputs that are there already are left alone, so the "
    "same command again does what is missing."
)
SOURCE_HELP = (
    "a file, or a folder with all that is below it; paths, or URLs that fsspec knows (s3://...)"
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the `convert` command.

    Its `func` takes the parsed arguments and returns the exit code.
    """
    parser = subparsers.add_parser("convert", help=SUMMARY, description=DESCRIPTION)

    # What, and into what.
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=SOURCE_HELP)
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where the results go, a path or a URL"
    )
    parser.add_argument(
        "--to", default=".cwic", metavar="EXT", help="format to write, by extension; default: cwic"
    )

    # By whom: processes of this machine, or a cluster.
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="worker processes; default: one for each processor, which is too many for a GPU",
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="work on the Dask cluster at tcp://... instead"
    )

    # The encoder's options, and the usual ones.
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, no summary; errors only"
    )
    arguments.add(parser)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Plan, convert, report; 1 if any file failed."""
    from . import convert

    # What is wrong with the command line, before anything is opened.
    suffix = "." + args.to.lower().removeprefix(".")
    try:
        format_name = format_of(suffix)
        options = _checked_options(args, format_name, suffix)
    except ValueError as error:
        args.usage_error(str(error))

    # What can't be converted is said at once, the model fetched once and not in every worker.
    plan = convert.plan(args.sources, args.out, format_name, suffix, options)
    failures = list(plan.refused)
    for message in failures:
        complain(message)
    if plan.jobs and format_name == CWIC:
        models.locate(models.find(options.get("model")), quiet=args.quiet)

    failures += _convert_all(args, plan)
    if not args.quiet:
        converted = len(plan.jobs) + len(plan.refused) - len(failures)
        counts = f"{converted} converted, {plan.done} there already, {len(failures)} failed"
        print(f"{args.out}: {counts}", file=sys.stderr)
    return 1 if failures else 0


def _checked_options(args: argparse.Namespace, format_name: str, suffix: str) -> dict[str, Any]:
    """The encoder's options; ValueError where they mean nothing for this format."""
    options = arguments.chosen_options(args)
    if options and format_name != CWIC:
        name = next(iter(options)).replace("_", "-")
        raise ValueError(f"--{name} is for .cwic files, not for {suffix}")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs is at least 1, found {args.jobs}")
    return options


def _convert_all(args: argparse.Namespace, plan: Plan) -> list[str]:
    """Do the plan's jobs under a progress bar; a message for each that failed."""
    from tqdm import tqdm

    from . import convert

    # No more processes than pictures.
    jobs = min(args.jobs or available_cores(), max(1, len(plan.jobs)))
    workers = partial(convert.processes, jobs)
    if args.scheduler:
        workers = partial(convert.cluster, args.scheduler)

    failures = []
    with tqdm(
        total=len(plan.jobs), desc="converting", unit="file", disable=args.quiet or None, delay=1
    ) as bar:
        for job, problem in convert.run(plan.jobs, workers):
            if problem is not None:
                failures.append(f"{job.source}: {problem}")
                with bar.external_write_mode(file=sys.stderr):
                    complain(failures[-1])
            bar.update()
    return failures
