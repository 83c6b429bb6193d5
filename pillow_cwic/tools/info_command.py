"""`pillow-cwic info`: what is in .cwic files, read from their headers alone."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

from ..exact.layer import ExactLayer
from ..format import container
from ..format.container import Metadata, read_header
from ..metrics import bits_per_pixel
from ..weights import catalogue, models
from . import recode, sources
from .arguments import shown_device
from .terminal import Outcome, attempt, printable, show


def add_parser(commands: Any) -> None:
    """Adds the command; its `func` takes the parsed arguments and returns the exit code."""
    text = "show what is in .cwic files, without decoding them"
    parser = commands.add_parser(
        "info",
        help=text,
        description=f"{text[0].upper()}{text[1:]}. FILE is a file, a folder, a pattern or - for "
        "stdin.",
        usage="%(prog)s [--json] FILE [FILE ...]",
    )
    parser.add_argument("paths", nargs="+", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="a JSON list, an object for each file")
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(func=run, usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Show all; 1 if any could not be read."""
    found, missing = sources.expand(args.paths, recode.readable_extensions(cwic=True))
    outcomes = [Outcome(name, problem) for name, problem in missing]
    reports: list[dict[str, Any]] = []
    for source in found:
        name = source.name
        outcomes.append(attempt(name, lambda name=name: reports.append(_describe(name))))  # type: ignore[misc]
    if args.json:
        show(json.dumps(reports, indent=2))
    elif reports:
        show("\n\n".join("\n".join(map(printable, _lines(report))) for report in reports))
    for outcome in outcomes:
        outcome.report()
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def _describe(name: str) -> dict[str, Any]:
    """What `info --json` prints for a file."""
    # The header, and where exact blocks lie: nothing is decoded.
    with sources.open_source(name) as file:
        header = read_header(file)
        size_bytes = file.seek(0, os.SEEK_END)
        exact_share = 0.0
        if header.has_exact_blocks:
            file.seek(0)
            exact_share = ExactLayer(container.read(file)).share()
    entry = catalogue.read_all().by_id(header.model_id)

    # The picture, what it cost, what it needs, and what lies where.
    return {
        "file": name,
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "bytes": size_bytes,
        "bpp": round(bits_per_pixel(size_bytes, *header.size), 4),
        "quality": models.quality_of_file(header),
        "quality_index": header.quality_index,
        "lossless": header.lossless,
        "exact_share": round(exact_share, 4),
        "model": {"id": header.model_id, "name": entry.name if entry else None},
        "device": shown_device(),
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
    rate = bits_per_pixel(report["bytes"], report["width"], report["height"])  # not rounded twice
    yield f"  size      {_count(report['bytes'])}, {rate:.3f} bpp"
    if report["lossless"]:
        yield "  quality   lossless"
    else:
        yield f"  quality   {_shown_quality(report['quality'])} (index {report['quality_index']})"
    if report["exact_share"] and not report["lossless"]:
        yield f"  exact     {report['exact_share']:.0%} of the blocks"
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


def _shown_quality(quality: float | None) -> str:
    return "unknown" if quality is None else f"{quality:.2f}"


def _count(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes"
