"""The command line: `pillow-cwic` and `python -m pillow_cwic`.

What was asked for goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong
usage. Invariant: `--help` and `info` load no torch, and an output file is touched only once its
bytes are there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .. import __version__, decode
from ..format.container import Metadata, read_header
from ..metrics import bits_per_pixel
from ..runtime.devices import describe_device, resolve_device
from ..runtime.files import write_atomically
from ..weights import catalogue, models
from . import arguments, convert_command, recode, weights_command
from .terminal import PROGRAM, clock, complain, name_in_errors


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code.

    Wrong usage is SystemExit(2).
    """
    parser = _parser()
    args = parser.parse_args(argv)

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        # What users can do something about is a line, everything else a traceback.
        try:
            return int(args.func(args))
        except BrokenPipeError:  # whoever read our output has seen enough
            sys.stdout = None  # else Python complains once more at exit
            return 1
        except (OSError, ValueError, TypeError) as error:
            complain(str(error))
            return 1
        except KeyboardInterrupt:
            complain("interrupted")
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Learned image compression: .cwic files from any picture, and back.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_encode(commands)
    _add_decode(commands)
    _add_info(commands)
    _add_demo(commands)
    _add_compare(commands)
    convert_command.add_parser(commands)
    weights_command.add_parser(commands)
    return parser


def _add(
    commands: Any, name: str, func: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="no progress, no summary; errors only"
    )
    parser.set_defaults(func=func, usage_error=parser.error)
    return parser


def _add_info(commands: Any) -> None:
    info = _add(commands, "info", _info, "show what is in .cwic files, without decoding them")
    info.add_argument("files", nargs="+", type=Path, metavar="FILE")
    info.add_argument(
        "--json", action="store_true", help="print a JSON list with one object for each file"
    )


def _add_demo(commands: Any) -> None:
    demo = _add(
        commands, "demo", _demo, "compress a picture at five qualities, beside JPEG and JPEG 2000"
    )
    demo.add_argument(
        "picture",
        nargs="?",
        type=Path,
        metavar="PICTURE",
        help="default: one that ships (NASA, 1992)",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("cwic-demo"), metavar="DIR", help="default: %(default)s"
    )


def _add_compare(commands: Any) -> None:
    compare = _add(
        commands,
        "compare",
        _compare,
        "show pictures beside JPEG, JPEG 2000, WebP and AVIF of the same size",
    )
    compare.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    compare.add_argument(
        "--out", type=Path, default=Path("cwic-compare"), metavar="DIR", help="default: %(default)s"
    )
    arguments.add(compare)


def _add_encode(commands: Any) -> None:
    parser = _add(
        commands,
        "encode",
        _encode,
        "compress a picture, of any format that Pillow reads, into a .cwic file",
    )

    # Files first, then what may change the result.
    parser.add_argument("input", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument(
        "--importance",
        type=Path,
        metavar="FILE",
        help="grey picture: 128 neutral, lighter gets more bits",
    )
    arguments.add(parser)


def _add_decode(commands: Any) -> None:
    parser = _add(
        commands,
        "decode",
        _decode,
        "decompress a .cwic file; the output's extension says the format",
    )
    parser.add_argument("input", type=Path, metavar="IN")
    parser.add_argument("output", type=Path, metavar="OUT")
    edges = ("LEFT", "UPPER", "RIGHT", "LOWER")
    parser.add_argument(
        "--region", nargs=4, type=int, metavar=edges, help="decode only these pixels"
    )
    arguments.add_device(parser)


def _encode(args: argparse.Namespace) -> int:
    # Before the clock runs: wrong usage, and a model to download.
    options = _encoder_options(args)
    _fetch_first(args, args.model)

    with (
        name_in_errors(args.input),
        Image.open(args.input) as image,
        clock(f"encoding {args.input}", args.quiet),
    ):
        if args.importance is not None:
            with Image.open(args.importance) as mask:
                options["importance"] = mask.convert("L")
        data = recode.recode_picture(image, recode.CWIC, **options)
    write_atomically(args.output, data)

    # What it cost.
    header = read_header(data)
    rate = bits_per_pixel(len(data), *header.size)
    quality = _shown_quality(models.quality_of_file(header))
    figures = f"{_count(len(data))}, {rate:.3f} bpp, quality {quality}"
    _tell(args, f"{args.output}: {figures}, on {_shown_device(args.device)}")
    return 0


def _decode(args: argparse.Namespace) -> int:
    # Before the work: a format that nobody writes.
    try:
        format_name = recode.format_of(args.output.suffix)
    except ValueError as error:
        args.usage_error(f"{args.output}: {error}")

    with name_in_errors(args.input), clock(f"decoding {args.input}", args.quiet):
        data = args.input.read_bytes()
        header = read_header(data)
        _fetch_first(args, header.model_id)
        pixels = decode(data, device=args.device, region=args.region)  # uint8 [H,W] or [H,W,C]

    # Through Pillow, with what was in the file beside the pixels.
    picture = Image.fromarray(pixels)
    picture.info.update(header.metadata.present())
    with name_in_errors(args.output):
        file = recode.recode_picture(picture, format_name)
    write_atomically(args.output, file)
    figures = f"{pixels.shape[1]} x {pixels.shape[0]} pixels, {_count(len(file))}"
    _tell(args, f"{args.output}: {figures}, on {_shown_device(args.device)}")
    return 0


def _fetch_first(args: argparse.Namespace, model: str | None) -> None:
    """With --quiet, have a model here before the codec asks: a download shows a progress bar."""
    if args.quiet:
        models.locate(models.find(model), quiet=True)


def _info(args: argparse.Namespace) -> int:
    reports = []
    for path in args.files:
        try:
            with name_in_errors(path):
                reports.append(_describe(path))
        except (OSError, ValueError) as error:
            complain(str(error))
    if args.json:
        print(json.dumps(reports, indent=2))
    else:
        print("\n\n".join("\n".join(_lines(report)) for report in reports))
    return 0 if len(reports) == len(args.files) else 1


def _describe(path: Path) -> dict[str, Any]:
    """What `info --json` prints for a file."""
    # The header alone: nothing is decoded.
    header = read_header(path)
    size_bytes = path.stat().st_size
    entry = catalogue.read_all().by_id(header.model_id)

    # The picture, what it cost, what it needs, and what lies where.
    return {
        "file": str(path),
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "bytes": size_bytes,
        "bpp": round(bits_per_pixel(size_bytes, *header.size), 4),
        "quality": models.quality_of_file(header),
        "quality_index": header.quality_index,
        "model": {"id": header.model_id, "name": entry.name if entry else None},
        "device": _shown_device(None),
        "version": header.version,
        "tile_size": header.tile_size,
        "tiles": header.tile_count,
        "metadata": _describe_metadata(header.metadata),
        "sections": [
            {"type": s.type, "offset": s.offset, "bytes": s.length} for s in header.sections
        ],
    }


def _describe_metadata(metadata: Metadata) -> dict[str, Any]:
    blocks = metadata.present()
    described: dict[str, Any] = {
        name: {"bytes": len(value)} for name, value in blocks.items() if name != "dpi"
    }
    if metadata.dpi is not None:
        described["dpi"] = list(metadata.dpi)
    if metadata.comment is not None:
        described["comment"]["text"] = metadata.comment.decode(errors="replace")
    return described


def _lines(report: dict[str, Any]) -> Iterator[str]:
    """What `info` prints for a file."""
    # What people ask first.
    model = report["model"]
    yield report["file"]
    yield f"  picture   {report['width']} x {report['height']} pixels, {report['mode']}"
    yield f"  size      {_count(report['bytes'])}, {report['bpp']:.3f} bpp"
    yield f"  quality   {_shown_quality(report['quality'])} (index {report['quality_index']})"
    yield f"  model     {model['name'] or 'not known here'} (id {model['id']})"
    yield f"  runs on   {report['device']}"
    tiles = f"{report['tiles']} tile(s) of {report['tile_size']} pixels"
    yield f"  format    version {report['version']}, {tiles}"

    # What else is in the file; many tiles in one line.
    for name, value in report["metadata"].items():
        shown = f"{value[0]:g} x {value[1]:g}" if name == "dpi" else _count(value["bytes"])
        yield f"  {name:<12}{shown}" + (f": {value['text']!r}" if name == "comment" else "")
    yield f"  {'section':<12}{'offset':>12}{'bytes':>12}"
    for kind, group in itertools.groupby(report["sections"], key=lambda section: section["type"]):
        rows = list(group)
        label = f"{kind} x {len(rows)}" if len(rows) > 1 else kind
        yield f"  {label:<12}{rows[0]['offset']:>12,}{sum(row['bytes'] for row in rows):>12,}"


def _demo(args: argparse.Namespace) -> int:
    from . import demo

    demo.run(args.picture, args.out, quiet=args.quiet)
    return 0


def _compare(args: argparse.Namespace) -> int:
    from . import compare

    compare.run(args.pictures, args.out, quiet=args.quiet, **_encoder_options(args))
    return 0


def _encoder_options(args: argparse.Namespace) -> dict[str, Any]:
    try:
        return arguments.chosen_options(args)
    except ValueError as error:
        args.usage_error(str(error))
        raise


def _shown_quality(quality: float | None) -> str:
    return "unknown" if quality is None else f"{quality:.2f}"


def _count(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes"


def _shown_device(device: str | None) -> str:
    """What pixels are computed on here; what is wrong with the setting, where something is."""
    try:
        return describe_device(resolve_device(device))
    except ValueError as error:
        return f"nothing: {error}"


def _tell(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(f"warning: {message}")
