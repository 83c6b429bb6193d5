"""`pillow-cwic encode`: pictures of any format that Pillow reads into .cwic files.

Invariant: an output is touched only once its bytes are there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..format.container import read_header
from ..metrics import bits_per_pixel
from ..weights import models
from . import arguments, recode, sources
from .batch import run_batch
from .pictures import Reading, chosen_frames, importance_mask, load_frame, open_picture
from .terminal import clock, name_in_errors, say


def add_parser(commands: Any) -> None:
    """Adds the command; its `func` takes the parsed arguments and returns the exit code."""
    text = "compress pictures, of any format that Pillow reads, into .cwic files"
    parser = commands.add_parser(
        "encode",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. IN is a file, a folder, a pattern or - for "
        "stdin; OUT a file, - for stdout, or a folder where there are several pictures.",
        usage="%(prog)s [options] IN [IN ...] OUT",
    )
    parser.add_argument("paths", nargs="+", metavar="IN, OUT", help=argparse.SUPPRESS)
    arguments.add(parser)
    parser.add_argument(
        "--importance", metavar="FILE", help="grey picture: 128 neutral, lighter gets more bits"
    )
    arguments.add_reading(parser)
    arguments.add_usual(parser)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Encode all; 1 if any failed."""
    try:
        options = arguments.chosen_options(args)
        names, out = arguments.inputs_and_output(args)
        into_folder = sources.is_folder(out, names)
        if not into_folder and out != sources.STREAM:
            recode.check_cwic_name(out)
    except ValueError as error:
        args.usage_error(str(error))

    # Before the first picture: a model to download, a mask that is none.
    if not args.lossless:
        models.locate(models.find(args.model), quiet=args.quiet)
    if args.importance is not None:
        with sources.open_source(args.importance) as file, name_in_errors(args.importance):
            options["importance"] = importance_mask(file)

    def encode(task: sources.Task) -> None:
        _encode_file(task, args, options)

    extensions = recode.readable_extensions(cwic=False)
    return run_batch(args, (names, out), (extensions, ".cwic"), encode)


def _encode_file(task: sources.Task, args: argparse.Namespace, options: dict[str, Any]) -> None:
    """One file, each of its frames that is asked for."""
    reading = arguments.chosen_reading(args)
    with sources.open_source(task.source.name) as file, open_picture(file) as image:
        frames = chosen_frames(image, reading)
        targets = frame_targets(task.target, frames, reading)
        for target in targets:
            sources.check_target(
                target, [task.source.name], force=args.force, makes_folder=task.makes_folder
            )
        for frame, target in zip(frames, targets, strict=True):
            with clock(f"encoding {task.source.name}", args.quiet) as tell:
                picture, blocks = load_frame(image, frame, reading)
                asked = {**options, "progress": tell}
                data = recode.write_picture(picture, blocks, recode.CWIC, asked)
            sources.write_target(target, data)
            _tell(target, data, args)


def frame_targets(target: str, frames: range, reading: Reading) -> list[str]:
    """A file for each frame: numbered where there are several and all are asked for."""
    if not reading.all_frames or len(frames) == 1:
        return [target]
    if target == sources.STREAM:
        raise ValueError(f"standard output takes one picture, found {len(frames)} frames")
    digits = len(str(len(frames) - 1))
    path = Path(target)
    return [str(path.with_stem(f"{path.stem}-{frame:0{digits}}")) for frame in frames]


def _tell(target: str, data: bytes, args: argparse.Namespace) -> None:
    """What it cost."""
    if args.quiet:
        return
    header = read_header(data)
    rate = bits_per_pixel(len(data), *header.size)
    dial = models.quality_of_file(header)
    quality = "lossless" if header.lossless else "quality unknown"
    if dial is not None:
        quality = f"quality {dial:.2f}"
    figures = f"{len(data):,} bytes, {rate:.3f} bpp, {quality}"
    if not header.lossless:  # which needs no device
        figures += f", on {arguments.shown_device(args.device)}"
    say(f"{sources.output_name(target)}: {figures}")
