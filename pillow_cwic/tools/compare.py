"""`pillow-cwic compare`: pictures beside JPEG, JPEG 2000, WebP and AVIF at the same size, as a sheet and as a web page.

Invariant: every figure comes from a file that was written and decoded again, and no rival's file is
larger than ours.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from ..metrics import WINDOW, bits_per_pixel
from ..metrics.pictures import psnr, ssim
from ..runtime.files import package_data, write_atomically
from . import rivals
from .recode import CWIC, recoded, write_png
from .rivals import Rival
from .terminal import name_in_errors

OURS = "pillow-cwic"
PAGE = package_data() / "compare.html"
_PANEL = 512  # pixels: at most this much of the picture's width and height is on the sheet
_MARGIN, _LABEL, _TITLE = 24, 52, 56  # pixels
_PAPER, _INK, _FAINT = "#fbfaf7", "#1d1d1b", "#6b6a66"


@dataclass(frozen=True)
class Trial:
    """One file, and how close what it decodes to is to the original."""

    codec: str
    data: bytes
    picture: Image.Image
    bpp: float
    psnr: float  # dB, RGB
    ssim: float | None  # luma; None for pictures that are too small

    @property
    def figures(self) -> str:
        """Size and quality, for people."""
        similarity = "-" if self.ssim is None else f"{self.ssim:.3f}"
        return f"{len(self.data):,} bytes    PSNR {self.psnr:.2f} dB    SSIM {similarity}"


@dataclass(frozen=True)
class Comparison:
    """One picture by all codecs."""

    name: str
    original: Image.Image
    trials: list[Trial]  # ours first
    missing: list[str]  # rivals without a file that small


def run(paths: Sequence[Path], out: Path, *, quiet: bool = False, **options: Any) -> None:
    """Write our file, what all files decode to, a sheet for each picture and index.html into the folder `out`.

    Options are the encoder's.
    """
    out.mkdir(parents=True, exist_ok=True)
    others = rivals.available()
    total = len(paths) * (1 + len(others))
    with tqdm(total=total, desc="comparing", leave=False, disable=quiet or None, delay=1) as bar:
        found = []
        for path, name in zip(paths, distinct([path.stem for path in paths]), strict=True):
            with name_in_errors(path):
                original, profile = opened(path)
                one = compared(name, original, others, bar, options)
            write_atomically(out / f"{name}.cwic", one.trials[0].data)
            drawn = sheet(original, one.trials, path.name)
            write_png(out / f"{name}-comparison.png", drawn, profile)
            for title, picture in views(one):
                write_png(out / view_file(name, title), picture, profile)
            found.append(one)
    write_atomically(out / "index.html", page(found).encode())
    if not quiet:
        print(f"Wrote {out / 'index.html'}", file=sys.stderr)


def opened(path: Path) -> tuple[Image.Image, bytes | None]:
    """A picture in RGB, the right way up, and its colour profile.

    Alpha is left out, as not all rivals have it; so is metadata, which would count as size.
    """
    with Image.open(path) as image:
        picture = ImageOps.exif_transpose(image).convert("RGB")
    profile = picture.info.get("icc_profile")
    picture.info.clear()
    return picture, profile


def distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where one comes again."""
    taken: list[str] = []
    for name in names:
        number = 2
        chosen = name
        while chosen in taken:
            chosen, number = f"{name}-{number}", number + 1
        taken.append(chosen)
    return taken


def compared(
    name: str,
    original: Image.Image,
    others: Sequence[Rival],
    bar: Any,
    options: dict[str, Any],
) -> Comparison:
    """Our file by these options, and each rival's within its bytes; `bar` is told of each."""
    ours = trial(OURS, recoded(original, CWIC, **options), original)
    bar.update()
    found, missing = [ours], []
    for rival in others:
        data = rival.largest_within(original, len(ours.data))
        if data is None:
            missing.append(rival.title)
        else:
            found.append(trial(rival.title, data, original))
        bar.update()
    return Comparison(name, original, found, missing)


def trial(codec: str, data: bytes, original: Image.Image) -> Trial:
    """Decode a file and measure it."""
    with Image.open(BytesIO(data)) as image:
        picture = image.convert("RGB")
    rate = bits_per_pixel(len(data), *original.size)
    a, b = np.asarray(original), np.asarray(picture)  # uint8 [H,W,3]
    return Trial(
        codec, data, picture, rate, psnr(a, b), ssim(a, b) if min(original.size) >= WINDOW else None
    )


def sheet(original: Image.Image, trials: list[Trial], name: str) -> Image.Image:
    """The original and what each codec made of it, the middles side by side at 100%, labelled."""
    width, height = (min(side, _PANEL) for side in original.size)
    left, upper = (original.width - width) // 2, (original.height - height) // 2
    box = (left, upper, left + width, upper + height)
    columns = 2 if len(trials) < 5 else 3
    cells = -(-(1 + len(trials)) // columns)
    paper = Image.new(
        "RGB",
        (_MARGIN + columns * (width + _MARGIN), _TITLE + cells * (height + _LABEL + _MARGIN)),
        _PAPER,
    )
    draw = ImageDraw.Draw(paper)
    title, label, small = (ImageFont.load_default(size) for size in (22, 18, 15))
    draw.text((_MARGIN, 16), f"{name} at {trials[0].bpp:.2f} bits per pixel", _INK, font=title)
    labels = [("Original", f"{original.width} x {original.height} pixels, 24 bits per pixel")]
    labels += [(t.codec, t.figures) for t in trials]
    for index, picture in enumerate([original, *(t.picture for t in trials)]):
        x = _MARGIN + index % columns * (width + _MARGIN)
        y = _TITLE + index // columns * (height + _LABEL + _MARGIN)
        paper.paste(picture.crop(box), (x, y))
        draw.text((x, y + height + 6), labels[index][0], _INK, font=label)
        draw.text((x, y + height + 29), labels[index][1], _FAINT, font=small)
    return paper


def views(one: Comparison) -> Iterator[tuple[str, Image.Image]]:
    """What the page shows of a picture, by title."""
    yield "Original", one.original
    yield from ((t.codec, t.picture) for t in one.trials)


def view_file(name: str, title: str) -> str:
    """Where such a view lies in the report's folder."""
    return f"{name}-{''.join(c if c.isalnum() else '-' for c in title.lower())}.png"


def page(comparisons: list[Comparison]) -> str:
    """The report as HTML, with its pictures in files beside it."""
    sections = "\n".join(_section(number, one) for number, one in enumerate(comparisons))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        sections=sections, summary=_summary(comparisons)
    )


def _section(number: int, one: Comparison) -> str:
    """One picture: a switch between the views in one place, the way to see small differences."""
    ours = one.trials[0]
    figures = {
        "Original": f"{one.original.width} x {one.original.height} pixels, 24 bits per pixel"
    }
    figures |= {t.codec: t.figures for t in one.trials}
    switches, panels = [], []
    for index, title in enumerate(figures):
        checked = " checked" if title == OURS else ""
        switch = f'<input type="radio" name="view{number}" value="{index}"{checked}><span>{escape(title)}</span>'
        switches.append(f"<label>{switch}</label>")
        source = escape(quote(view_file(one.name, title)), quote=True)
        panels.append(
            f'<figure><img src="{source}" width="{one.original.width}" height="{one.original.height}" '
            f'alt="{escape(f"{one.name}, {title}", quote=True)}" loading="lazy"><figcaption>{escape(figures[title])}'
            "</figcaption></figure>"
        )
    absent = f"<p>No file that small: {escape(', '.join(one.missing))}.</p>" if one.missing else ""
    return (
        f"<section><h2>{escape(one.name)} at {ours.bpp:.3f} bits per pixel</h2>\n"
        f'<div class="switch" role="radiogroup">{"".join(switches)}</div>\n'
        f'<div class="panels">{"".join(panels)}</div>{absent}</section>'
    )


def _summary(comparisons: list[Comparison]) -> str:
    """Means over the pictures that a codec has a file for."""
    rows = []
    for codec in [OURS, *(rival.title for rival in rivals.available())]:
        trials = [t for one in comparisons for t in one.trials if t.codec == codec]
        if not trials:
            continue
        values = [np.mean([t.bpp for t in trials]), np.mean([t.psnr for t in trials])]
        similarities = [t.ssim for t in trials if t.ssim is not None]
        similarity = f"{np.mean(similarities):.4f}" if similarities else "-"
        rows.append(
            f"<tr><th>{escape(codec)}</th><td>{len(trials)}</td><td>{values[0]:.4f}</td>"
            f"<td>{values[1]:.2f}</td><td>{similarity}</td></tr>"
        )
    return "\n".join(rows)
