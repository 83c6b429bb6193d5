"""Arguments that several commands have, and what they mean. No torch."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from PIL import ImageColor

from ..options import DEFAULT_QUALITY, OPTION_NAMES, EncodeOptions
from ..runtime.devices import describe_device, resolve_device
from .pictures import Reading, Scale
from .recode import CWIC, QUALITY_FORMATS, check_save_options, format_of

ENCODER_OPTIONS = tuple(name for name in OPTION_NAMES if name not in ("importance", "progress"))


class CommandParser(argparse.ArgumentParser):
    """A parser whose `paths` may stand on both sides of options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", _OneLineEach)
        super().__init__(*args, **kwargs)
        self._negative_number_matcher = re.compile(r"-\.?\d")  # -5,1000 is no option either

    def parse_known_args(  # type: ignore[override]
        self, args: Any = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """What argparse leaves over are paths, unless they look like options."""
        parsed, extra = super().parse_known_args(args, namespace)
        if hasattr(parsed, "paths") and not any(_is_option(word) for word in extra):
            parsed.paths += extra
            extra = []
        return parsed, extra


class _OneLineEach(argparse.HelpFormatter):
    """Room for an option and its help in one line, so that a command's help fits a screen."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


def add(parser: argparse.ArgumentParser) -> None:
    """Add --quality, --bpp, --max-bytes, --lossless, --effort, --model and --device."""
    # One way of saying how large the file may be.
    rate = parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--quality",
        type=float,
        metavar="Q",
        help=f"0 (smallest file) to 1 (best); default {DEFAULT_QUALITY}",
    )
    rate.add_argument("--bpp", type=float, help="come close to this many bits per pixel")
    rate.add_argument(
        "--max-bytes", type=int, metavar="N", help="the best quality whose file is not larger"
    )
    rate.add_argument(
        "--lossless", action="store_true", default=None, help="keep every pixel as it is"
    )

    # What does not change the rate.
    parser.add_argument(
        "--effort", type=int, metavar="N", help="passes of a search, 0 (default) to 100; 10 is good"
    )
    parser.add_argument(
        "--no-exact",
        dest="exact",
        action="store_false",
        default=None,
        help="no exact blocks for text and graphics",
    )
    parser.add_argument(
        "--exact-alpha", action="store_true", default=None, help="keep colours where alpha is 0"
    )
    parser.add_argument("--model", help="name, id or weights file")
    add_device(parser)


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device, which decoding has, too."""
    parser.add_argument("--device", help="cpu, torch, cuda, cuda:1 or auto (the default)")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what says how pictures are read; `chosen_reading` takes it."""
    frames = parser.add_mutually_exclusive_group()
    frames.add_argument(
        "--frame", type=count, metavar="N", help="of an animation or pages, counted from 0"
    )
    frames.add_argument("--all-frames", action="store_true", help="a file for each of them")
    add_scale(parser)
    parser.add_argument(
        "--strip", action="store_true", help="no metadata but the colour profile; turned upright"
    )


def add_scale(parser: argparse.ArgumentParser) -> None:
    """Add --scale and --max-pixels."""
    parser.add_argument(
        "--scale",
        type=_scale,
        metavar="RANGE",
        help="16 bits and floats: auto, or MIN,MAX for black and white",
    )
    add_max_pixels(parser)


def add_max_pixels(parser: argparse.ArgumentParser) -> None:
    """Add --max-pixels."""
    parser.add_argument(
        "--max-pixels", type=count, metavar="N", help="refuse larger pictures; 0: take any"
    )


def add_writing(parser: argparse.ArgumentParser) -> None:
    """Add what other formats have: --background and --option."""
    parser.add_argument(
        "--background", type=_colour, metavar="COLOUR", help="below what is transparent, as in JPEG"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_named_value,
        metavar="NAME=VALUE",
        help="of Pillow's save: progressive=true, lossless=true, ...",
    )


def add_usual(parser: argparse.ArgumentParser) -> None:
    """Add --force and --quiet."""
    parser.add_argument("-f", "--force", action="store_true", help="replace outputs that are there")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, no summary; problems only"
    )


def inputs_and_output(args: argparse.Namespace) -> tuple[list[str], str]:
    """The paths of a command that reads all but the last; ValueError where that is missing."""
    *names, out = args.paths
    if not names:
        raise ValueError(f"OUT is missing: where does {out} go?")
    return names, out


def chosen_reading(args: argparse.Namespace) -> Reading:
    """How pictures are to be read."""
    return Reading(
        frame=getattr(args, "frame", None),
        all_frames=getattr(args, "all_frames", None),
        scale=args.scale,
        strip=getattr(args, "strip", False),
        max_pixels=args.max_pixels,
    )


def chosen_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options that were given, as keywords of `encode`; ValueError where they mean nothing."""
    options = {
        name: getattr(args, name) for name in ENCODER_OPTIONS if getattr(args, name) is not None
    }
    EncodeOptions(**options)
    if args.lossless and args.scale is not None:
        raise ValueError("--scale rounds the values of deep pictures, --lossless does not")
    check_device(args.device)
    return options


def check_device(name: str | None) -> None:
    """ValueError for a device that is not known, or not there; the environment's is checked later.

    (It may be junk for a picture that needs no device.)
    """
    if name is not None:
        resolve_device(name)


def save_options(args: argparse.Namespace, format_name: str) -> dict[str, Any]:
    """Options of Pillow's save for another format than .cwic; ValueError where it has none such."""
    options = dict(args.option)
    check_save_options(format_name, options)
    if args.quality is not None:
        if format_name not in QUALITY_FORMATS:
            raise ValueError(f"--quality: {format_name} has none")
        if not 0 <= args.quality <= 100 or args.quality != int(args.quality):
            raise ValueError(
                f"--quality of {format_name} is a whole number from 0 to 100, found "
                f"{args.quality:g}"
            )
        options["quality"] = int(args.quality)
    return options


def shown_device(name: str | None = None) -> str:
    """What pixels are computed on here; what is wrong with the setting, where something is."""
    try:
        return describe_device(resolve_device(name))
    except ValueError as error:
        return f"nothing: {error}"


def chosen_format(to: str | None, name: str) -> tuple[str, str]:
    """Format and extension of what is decoded: as --to says, else by the output's extension.

    ValueError where there is none, where they contradict each other, or for .cwic.
    """
    suffix = name[name.rfind(".") :] if "." in name.rpartition("/")[2] else ""
    subject = f"{name}: " if name else ""  # a folder, or standard output, says nothing
    if to is None and not suffix:
        raise ValueError(f"{subject}--to says which format, for instance --to png")
    chosen = "." + to.lower().removeprefix(".") if to is not None else suffix
    format_name = format_of(chosen)
    if format_name == CWIC:
        raise ValueError(f"{subject}decoding makes other formats than .cwic, such as .png")
    if suffix and to is not None and _format_or_none(suffix) not in (None, format_name):
        raise ValueError(f"{subject}the extension says {_format_or_none(suffix)}, --to {to}")
    return format_name, chosen


def _format_or_none(suffix: str) -> str | None:
    try:
        return format_of(suffix)
    except ValueError:
        return None


def count(text: str) -> int:
    """A whole number from 0 up."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"a whole number from 0 up, found {text}")
    return value


def _scale(text: str) -> Scale:
    if text == "auto":
        return "auto"
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = 0.0
    if not low < high < float("inf") or low == -float("inf"):
        raise argparse.ArgumentTypeError(f"auto, or two rising numbers as 0,4095; found {text!r}")
    return low, high


def _colour(text: str) -> str:
    try:
        ImageColor.getrgb(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"a colour's name or #rrggbb, such as white or #ffffff; found {text!r}"
        ) from error
    return text


def _named_value(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"NAME=VALUE, such as progressive=true; found {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
