"""`pillow-cwic convert`: its arguments, progress and report."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from ..weights import models
from . import arguments
from .recode import CWIC, format_of
from .terminal import complain


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the `convert` command.

    Its `func` takes the parsed arguments and returns the exit code.
    """
    text = "convert many pictures to .cwic, or .cwic files to another format"
    parser = subparsers.add_parser(
        "convert",
        help=text,
        description="Convert many pictures to .cwic, or .cwic files to another format. A file that fails is reported "
        "and the others are converted; outputs that are there already are left alone, so the same "
        "command again does "
        "what is missing.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a file, or a folder with all that is below it; paths, or URLs that fsspec knows (s3://...)",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="where the results go, a path or a URL"
    )
    parser.add_argument(
        "--to", default=".cwic", metavar="EXT", help="format to write, by extension; default: cwic"
    )
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
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, no summary; errors only"
    )
    arguments.add(parser)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Plan, convert, report; 1 if any file failed."""
    from tqdm import tqdm

    from ..runtime import machine  # storage and processes: what other commands need not wait for
    from . import convert

    suffix = "." + args.to.lower().removeprefix(".")
    try:
        options, format_name = arguments.given(args), format_of(suffix)
        if options and format_name != CWIC:
            raise ValueError(
                f"--{next(iter(options)).replace('_', '-')} is for .cwic files, not for {suffix}"
            )
        if args.jobs is not None and args.jobs < 1:
            raise ValueError(f"--jobs is at least 1, found {args.jobs}")
    except ValueError as error:
        args.usage_error(str(error))
    plan = convert.plan(args.sources, args.out, format_name, suffix, options)
    failures = list(plan.refused)
    for message in failures:
        complain(message)
    if plan.jobs and format_name == CWIC:  # once, not in every worker
        models.locate(models.find(options.get("model")), quiet=args.quiet)
    jobs = min(args.jobs or machine.available_cores(), max(1, len(plan.jobs)))
    workers = (
        partial(convert.cluster, args.scheduler)
        if args.scheduler
        else partial(convert.processes, jobs)
    )
    with tqdm(
        total=len(plan.jobs), desc="converting", unit="file", disable=args.quiet or None, delay=1
    ) as bar:
        for job, problem in convert.run(plan.jobs, workers):
            if problem is not None:
                failures.append(f"{job.source}: {problem}")
                with bar.external_write_mode(file=sys.stderr):
                    complain(failures[-1])
            bar.update()
    if not args.quiet:
        converted = len(plan.jobs) + len(plan.refused) - len(failures)
        counts = f"{converted} converted, {plan.done} there already, {len(failures)} failed"
        print(f"{args.out}: {counts}", file=sys.stderr)
    return 1 if failures else 0
