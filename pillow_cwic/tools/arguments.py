"""The encoder's options as arguments of a command line. No torch."""

from __future__ import annotations

import argparse
from typing import Any

from ..options import OPTION_NAMES, EncodeOptions

_OPTIONS = tuple(name for name in OPTION_NAMES if name != "importance")


def add(parser: argparse.ArgumentParser) -> None:
    """Add --quality, --bpp, --max-bytes, --effort, --model and --device."""
    # One way of saying how large the file may be.
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality", type=float, metavar="Q", help="0 (smallest file) to 1 (best); default 0.5"
    )
    rate.add_argument("--bpp", type=float, help="come close to this many bits per pixel")
    rate.add_argument(
        "--max-bytes", type=int, metavar="N", help="the best quality whose file is not larger"
    )

    # What does not change the rate.
    parser.add_argument(
        "--effort",
        type=int,
        metavar="N",
        help="passes of a search for better codes, 0 (default) to 100; 10 is good",
    )
    parser.add_argument("--model", help="name, id or weights file")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, which decoding has, too."""
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1 or auto; default PILLOW_CWIC_DEVICE, else auto"
    )


def chosen_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as keywords of `encode`; ValueError where they mean nothing."""
    options = {name: getattr(args, name) for name in _OPTIONS if getattr(args, name) is not None}
    EncodeOptions(**options)
    return options
