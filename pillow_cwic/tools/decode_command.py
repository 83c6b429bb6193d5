"""`pillow-cwic decode`: .cwic files into pictures of any format that Pillow writes."""

from __future__ import annotations

import argparse
from typing import Any

from PIL import Image

from .. import decode
from ..format.container import read_header
from ..weights import models
from . import arguments, recode, sources
from .batch import run_batch
from .metadata import upright
from .terminal import clock, say


def add_parser(commands: Any) -> None:
    """Adds the command; its `func` takes the parsed arguments and returns the exit code."""
    text = "decompress .cwic files into pictures of any format that Pillow writes"
    parser = commands.add_parser(
        "decode",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. IN is a file, a folder, a pattern or - for "
        "stdin; OUT a file, whose extension says the format, - for stdout, or a folder.",
        usage="%(prog)s [options] IN [IN ...] OUT",
    )
    parser.add_argument("paths", nargs="+", metavar="IN, OUT", help=argparse.SUPPRESS)
    parser.add_argument("--to", metavar="EXT", help="the format, where OUT does not say it")
    parser.add_argument(
        "--quality", type=float, metavar="N", help="of JPEG, WebP, AVIF, 0 to 100; default 95"
    )
    arguments.add_writing(parser)
    edges = ("LEFT", "UPPER", "RIGHT", "LOWER")
    parser.add_argument(
        "--region", nargs=4, type=int, metavar=edges, help="decode only these pixels"
    )
    parser.add_argument(
        "--strip", action="store_true", help="no metadata but the colour profile; turned upright"
    )
    arguments.add_max_pixels(parser)
    arguments.add_device(parser)
    arguments.add_usual(parser)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Decode all; 1 if any failed."""
    try:
        names, out = arguments.inputs_and_output(args)
        into_folder = sources.is_folder(out, names)
        name = "" if into_folder or out == sources.STREAM else out
        format_name, suffix = arguments.chosen_format(args.to, name)
        options = arguments.save_options(args, format_name)
        arguments.check_device(args.device)
    except ValueError as error:
        args.usage_error(str(error))

    def decode_file(task: sources.Task) -> None:
        data = sources.read_source(task.source.name)
        header = read_header(data)
        if not header.lossless:  # before the clock runs: a model to download
            models.locate(models.find(header.model_id), quiet=args.quiet)
        with clock(f"decoding {task.source.name}", args.quiet) as tell:
            pixels = decode(  # uint8 [H,W] or [H,W,C]
                data, device=args.device, region=args.region, progress=tell
            )

        # Through Pillow, with what was in the file beside the pixels.
        picture = Image.fromarray(pixels)
        blocks = header.metadata.present()
        if args.strip:
            picture, blocks = upright(picture, blocks)
            blocks = {name: value for name, value in blocks.items() if name == "icc_profile"}
        file = recode.write_picture(picture, blocks, format_name, options, args.background)
        sources.write_target(task.target, file)
        if not args.quiet:
            width, height = recode.size_of(file, format_name) or picture.size  # it may be turned
            figures = f"{width} x {height} pixels, {len(file):,} bytes"
            if not header.lossless:  # which needs no device
                figures += f", on {arguments.shown_device(args.device)}"
            say(f"{sources.output_name(task.target)}: {figures}")

    extensions = recode.readable_extensions(cwic=True)
    return run_batch(args, (names, out), (extensions, suffix), decode_file)
