"""`pillow-cwic compare` and `pillow-cwic demo`: their arguments, and which files they take."""

from __future__ import annotations

import argparse
from typing import Any

from . import arguments, recode, sources
from .pictures import pixel_limit
from .terminal import Outcome


def add_parser(commands: Any) -> None:
    """Adds `compare`; its `func` takes the parsed arguments and returns the exit code."""
    text = "show pictures beside JPEG, JPEG 2000, WebP and AVIF of the same size"
    parser = commands.add_parser(
        "compare",
        help=text,
        description=f"{text[0].upper()}{text[1:]}, as a web page. PICTURE is a file, a folder, a "
        "pattern or - for stdin.",
        usage="%(prog)s [options] PICTURE [PICTURE ...]",
    )
    parser.add_argument("paths", nargs="+", metavar="PICTURE", help=argparse.SUPPRESS)
    _add_out(parser, "cwic-compare")
    arguments.add(parser)
    _add_frame(parser)
    arguments.add_scale(parser)
    arguments.add_usual(parser)
    parser.set_defaults(func=_compare, usage_error=parser.error)


def add_demo_parser(commands: Any) -> None:
    """Adds `demo`, likewise."""
    text = "compress a picture at five qualities, beside JPEG and JPEG 2000"
    parser = commands.add_parser(
        "demo",
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        usage="%(prog)s [options] [PICTURE]",
    )
    parser.add_argument(
        "picture", nargs="?", metavar="PICTURE", help="default: one that ships (NASA, 1992)"
    )
    _add_out(parser, "cwic-demo")
    _add_frame(parser)
    arguments.add_scale(parser)
    arguments.add_usual(parser)
    parser.set_defaults(func=_demo, usage_error=parser.error)


def _add_out(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument(
        "--out", default=folder, metavar="DIR", help="folder for the results; default: %(default)s"
    )


def _add_frame(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--frame", type=arguments.count, metavar="N", help="of animations or pages, counted from 0"
    )


def _compare(args: argparse.Namespace) -> int:
    from . import compare

    try:
        options = arguments.chosen_options(args)
    except ValueError as error:
        args.usage_error(str(error))
    found, missing = sources.expand(args.paths, recode.readable_extensions(cwic=False))
    for name, problem in missing:
        Outcome(name, problem).report()
    failures = len(missing)
    if found:
        reading = arguments.chosen_reading(args)
        with pixel_limit(reading.max_pixels):
            report = compare.Report(args.out, force=args.force, quiet=args.quiet)
            failures += report.run([source.name for source in found], reading, options)
    return 1 if failures else 0


def _demo(args: argparse.Namespace) -> int:
    from . import demo

    reading = arguments.chosen_reading(args)
    with pixel_limit(reading.max_pixels):
        demo.run(args.picture, args.out, reading, force=args.force, quiet=args.quiet)
    return 0
