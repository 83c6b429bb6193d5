"""`pillow-cwic compare`: pictures beside JPEG, JPEG 2000, WebP and AVIF at the same size.

As a sheet, and as a web page. Invariant: every figure comes from a file that was written and
decoded again, and no rival's file is larger than ours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..image_modes import stored_image
from ..metrics import WINDOW, bits_per_pixel
from ..metrics.pictures import psnr, ssim
from ..runtime.package import on_disk, package_data
from . import exact_view, rivals
from .exact_view import ExactView
from .metadata import upright
from .pictures import Reading, load_picture
from .recode import CWIC, on_colour, saved, write_png
from .rivals import Rival
from .sources import check_target, file_name, open_source, write_target
from .terminal import attempt, bar, report_beside, say

OURS = "pillow-cwic"
PAGE = package_data() / "compare.html"
PAGE_NAME = "index.html"
_PANEL = 512  # pixels: at most this much of the picture's width and height is on the sheet

# Pixels.
_MARGIN = 24
_LABEL = 52
_TITLE = 56

# Colours.
_PAPER = "#fbfaf7"
_INK = "#1d1d1b"
_FAINT = "#6b6a66"


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
    exact: ExactView | None = None  # None where our file has no exact blocks


@dataclass(frozen=True)
class Report:
    """A folder with our file of each picture, what all files decode to, sheets and a page."""

    out: str
    force: bool = False  # replace what is in the folder
    quiet: bool = False

    def run(self, names: Sequence[str], reading: Reading, options: dict[str, Any]) -> int:
        """Compare the pictures of these files, and say how many failed; options: the encoder's."""
        # What is wrong with the folder is known before the work.
        others = rivals.available()
        titles = distinct_names([Path(file_name(name)).stem for name in names])
        outputs = [self._path(PAGE_NAME)]
        for title in titles:
            outputs += [self._path(file) for file in files_of(title, others)]
        for output in outputs:
            check_target(output, names, force=self.force, makes_folder=True)

        # A picture's files are written before the next one is begun.
        comparisons: list[Comparison] = []
        failures = 0
        total = len(names) * (1 + len(others))
        with bar(total, "comparing", "file", self.quiet) as progress:
            for name, title in zip(names, titles, strict=True):

                def compare(name: str = name, title: str = title) -> None:
                    original, profile = rgb_picture(name, reading)
                    one = compare_picture(title, original, others, progress, options)
                    self._write(one, file_name(name), profile)
                    comparisons.append(one)

                outcome = attempt(name, compare)
                report_beside(progress, outcome)
                failures += outcome.problem is not None

        # The page shows what is there by now.
        if comparisons:
            write_target(self._path(PAGE_NAME), page(comparisons).encode())
            if not self.quiet:
                say(f"Wrote {self._path(PAGE_NAME)}")
        return failures

    def _path(self, file: str) -> str:
        return str(Path(self.out, file))

    def _write(self, comparison: Comparison, file: str, profile: bytes | None) -> None:
        name = comparison.name
        write_target(self._path(f"{name}.cwic"), comparison.trials[0].data)
        drawn = sheet(comparison.original, comparison.trials, file)
        write_png(Path(self.out, f"{name}-comparison.png"), drawn, profile)
        for title, picture in views(comparison):
            write_png(Path(self.out, view_file(name, title)), picture, profile)


def files_of(name: str, others: Sequence[Rival]) -> list[str]:
    """The files that a picture may leave in the folder."""
    titles = ("Original", OURS, *(rival.title for rival in others))
    shown = [view_file(name, title) for title in (*titles, exact_view.TITLE)]
    return [f"{name}.cwic", f"{name}-comparison.png", *shown]


def rgb_picture(name: str, reading: Reading) -> tuple[Image.Image, bytes | None]:
    """A picture in RGB, the right way up, and its colour profile.

    Metadata is left out, as it would count as size, and alpha, as not all rivals have it.
    """
    with open_source(name) as file:
        picture, blocks = load_picture(file, reading)
    picture, blocks = upright(picture, blocks)
    picture, profile = stored_image(picture, blocks.get("icc_profile"))
    if picture.has_transparency_data:
        warnings.warn("alpha is left out: the picture is compared on white", stacklevel=2)
        picture = on_colour(picture.convert("RGBA"), "white")
    picture = picture.convert("RGB")
    picture.info.clear()
    return picture, profile


def distinct_names(names: Sequence[str]) -> list[str]:
    """The names, numbered where one comes again."""
    taken: list[str] = []
    for name in names:
        number = 2
        chosen = name
        while chosen in taken:
            chosen = f"{name}-{number}"
            number += 1
        taken.append(chosen)
    return taken


def compare_picture(
    name: str,
    original: Image.Image,
    others: Sequence[Rival],
    progress: Any,
    options: dict[str, Any],
) -> Comparison:
    """Our file by these options, and each rival's within its bytes; `progress` is told of each."""
    ours = trial(OURS, saved(original, CWIC, **options), original)
    progress.update()
    trials = [ours]
    missing = []
    for rival in others:
        data = rival.largest_within(original, len(ours.data))
        if data is None:
            missing.append(rival.title)
        else:
            trials.append(trial(rival.title, data, original))
        progress.update()
    exact = exact_view.exact_view(ours.data, ours.picture)
    return Comparison(name, original, trials, missing, exact)


def trial(codec: str, data: bytes, original: Image.Image) -> Trial:
    """Decode a file and measure it."""
    with Image.open(BytesIO(data)) as image:
        picture = image.convert("RGB")
    rate = bits_per_pixel(len(data), *original.size)
    reference = np.asarray(original)  # uint8 [H,W,3]
    decoded = np.asarray(picture)  # uint8 [H,W,3]
    similarity = ssim(reference, decoded) if min(original.size) >= WINDOW else None
    return Trial(codec, data, picture, rate, psnr(reference, decoded), similarity)


def sheet(original: Image.Image, trials: list[Trial], name: str) -> Image.Image:
    """The original and what each codec made of it, the middles side by side at 100%, labelled."""
    # The middle of the picture, in cells of a grid.
    width, height = (min(side, _PANEL) for side in original.size)
    left = (original.width - width) // 2
    upper = (original.height - height) // 2
    box = (left, upper, left + width, upper + height)
    columns = 2 if len(trials) < 5 else 3
    rows = -(-(1 + len(trials)) // columns)
    size = (
        _MARGIN + columns * (width + _MARGIN),
        _TITLE + rows * (height + _LABEL + _MARGIN),
    )

    # The paper with its title.
    paper = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(paper)
    title, label, small = (ImageFont.load_default(size) for size in (22, 18, 15))
    draw.text((_MARGIN, 16), f"{name} at {trials[0].bpp:.2f} bits per pixel", _INK, font=title)

    # Every picture with what it is called and what it cost.
    labels = [("Original", f"{original.width} x {original.height} pixels, 24 bits per pixel")]
    labels += [(t.codec, t.figures) for t in trials]
    for index, picture in enumerate([original, *(t.picture for t in trials)]):
        x = _MARGIN + index % columns * (width + _MARGIN)
        y = _TITLE + index // columns * (height + _LABEL + _MARGIN)
        paper.paste(picture.crop(box), (x, y))
        draw.text((x, y + height + 6), labels[index][0], _INK, font=label)
        draw.text((x, y + height + 29), labels[index][1], _FAINT, font=small)
    return paper


def views(comparison: Comparison) -> Iterator[tuple[str, Image.Image]]:
    """What the page shows of a picture, by title."""
    yield "Original", comparison.original
    yield from ((t.codec, t.picture) for t in comparison.trials)
    if comparison.exact:
        yield exact_view.TITLE, comparison.exact.picture


def view_file(name: str, title: str) -> str:
    """Where such a view lies in the report's folder."""
    return f"{name}-{''.join(c if c.isalnum() else '-' for c in title.lower())}.png"


def page(comparisons: list[Comparison]) -> str:
    """The report as HTML, with its pictures in files beside it."""
    sections = "\n".join(_section(number, each) for number, each in enumerate(comparisons))
    return Template(on_disk(PAGE).read_text(encoding="utf-8")).substitute(
        sections=sections, summary=_summary(comparisons)
    )


def _section(number: int, comparison: Comparison) -> str:
    """One picture: a switch between the views in one place, the way to see small differences."""
    original = comparison.original
    figures = {"Original": f"{original.width} x {original.height} pixels, 24 bits per pixel"}
    figures |= {t.codec: t.figures for t in comparison.trials}
    if comparison.exact:
        figures[exact_view.TITLE] = comparison.exact.figures

    # A radio button and a panel for each view; the page's style shows the panel that is chosen.
    switches = "".join(_switch(number, index, title) for index, title in enumerate(figures))
    panels = "".join(_panel(comparison, title, text) for title, text in figures.items())
    absent = ""
    if comparison.missing:
        absent = f"<p>No file that small: {escape(', '.join(comparison.missing))}.</p>"

    rate = f"{comparison.trials[0].bpp:.3f} bits per pixel"
    return (
        f"<section><h2>{escape(comparison.name)} at {rate}</h2>\n"
        f'<div class="switch" role="radiogroup">{switches}</div>\n'
        f'<div class="panels">{panels}</div>{absent}</section>'
    )


def _switch(number: int, index: int, title: str) -> str:
    checked = " checked" if title == OURS else ""
    button = f'<input type="radio" name="view{number}" value="{index}"{checked}>'
    return f"<label>{button}<span>{escape(title)}</span></label>"


def _panel(comparison: Comparison, title: str, text: str) -> str:
    source = escape(quote(view_file(comparison.name, title)), quote=True)
    described = escape(f"{comparison.name}, {title}", quote=True)
    width, height = comparison.original.size
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" alt="{described}" '
        f'loading="lazy"><figcaption>{escape(text)}</figcaption></figure>'
    )


def _summary(comparisons: list[Comparison]) -> str:
    """Means over the pictures that all codecs have a file for; else over those that each has."""
    titles = [OURS, *(rival.title for rival in rivals.available())]
    counted = [each for each in comparisons if not each.missing] or comparisons
    rows = []
    for codec in titles:
        trials = [t for each in counted for t in each.trials if t.codec == codec]
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
