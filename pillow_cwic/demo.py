"""`pillow-cwic demo`: one picture at five qualities, beside JPEG and JPEG 2000 at the same bytes.

Invariant: every figure comes from a file that was written and decoded again, and no rival's file is larger than ours.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, features
from tqdm import tqdm

from .metrics import bits_per_pixel, psnr, ssim

SHIPPED = Path(__file__).with_name("data") / "astronaut.webp"
QUALITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
_PANEL = 512  # pixels: at most this much of the picture's width and height is shown
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
    ssim: float  # luma


def run(path: Path | None, out: Path, *, quiet: bool = False) -> None:
    """Write .cwic files and a side-by-side picture into the folder `out`, print a table."""
    path = path or SHIPPED
    with Image.open(path) as image:
        original = ImageOps.exif_transpose(image).convert("RGB")
    out.mkdir(parents=True, exist_ok=True)
    rivals = {"JPEG 4:2:0": jpeg} | ({"JPEG 2000": jpeg2000} if features.check("jpg_2000") else {})
    rows = []
    with tqdm(
        total=len(QUALITIES) * (1 + len(rivals)), desc="demo", leave=False, disable=quiet or None, delay=1
    ) as bar:
        for quality in QUALITIES:
            ours = _trial("pillow-cwic", _saved(original, "CWIC", quality=quality), original)
            (out / f"{path.stem}-{quality:.1f}.cwic").write_bytes(ours.data)
            bar.update()
            row: list[Trial | None] = [ours]
            for name, search in rivals.items():
                data = search(original, len(ours.data))
                row.append(_trial(name, data, original) if data else None)
                bar.update()
            rows.append(row)
    print(table(rows, list(rivals), f"{path.name}, {original.width} x {original.height} pixels"))
    sheet = out / f"{path.stem}-comparison.png"
    complete = next((row for row in rows[1:] if None not in row), rows[-1])  # low, but not where JPEG falls apart
    comparison(original, [trial for trial in complete if trial], path.name).save(sheet, optimize=True)
    print(f"\nWrote {len(rows)} .cwic files and {sheet}", file=sys.stderr)


def jpeg(picture: Image.Image, limit_bytes: int) -> bytes | None:
    """The best JPEG, 4:2:0 with optimized tables, of at most `limit_bytes`; None if even the worst is larger."""
    return _largest_within(
        limit_bytes, range(1, 96), lambda q: _saved(picture, "JPEG", quality=q, subsampling="4:2:0", optimize=True)
    )


def jpeg2000(picture: Image.Image, limit_bytes: int) -> bytes | None:
    """The best JPEG 2000 codestream, 9/7 wavelet, of at most `limit_bytes`; None if even the worst is larger."""
    raw_bytes = 3 * picture.width * picture.height
    targets = [int(limit_bytes * (0.7 + 0.01 * step)) for step in range(40)]  # it misses its own target a little
    return _largest_within(
        limit_bytes,
        targets,
        lambda target: _saved(
            picture,
            "JPEG2000",
            irreversible=True,
            mct=1,
            no_jp2=True,
            quality_mode="rates",
            quality_layers=[raw_bytes / max(1, target)],
        ),
    )


def table(rows: list[list[Trial | None]], rivals: list[str], title: str) -> str:
    """Bytes, bpp, PSNR and SSIM as text; a dash where a codec has no file that small."""
    names = ["pillow-cwic", *rivals]
    lines = [
        f"{title}; PSNR in dB, SSIM on luma; all files of a row have at most pillow-cwic's bytes",
        f"{'':26}" + "".join(f"{name:^18}" for name in names).rstrip(),
        (f"{'quality':>7}{'bytes':>10}{'bpp':>7}  " + f"{'PSNR':>9}{'SSIM':>7}  " * len(names)).rstrip(),
    ]
    for quality, row in zip(QUALITIES, rows, strict=True):
        ours = row[0]
        size = f"{len(ours.data):>10,}{ours.bpp:>7.3f}  " if ours else ""
        figures = (f"{t.psnr:>9.2f}{t.ssim:>7.3f}  " if t else f"{'-':>9}{'-':>7}  " for t in row)
        lines.append(f"{quality:>7.1f}{size}{''.join(figures)}".rstrip())
    return "\n".join(lines)


def comparison(original: Image.Image, trials: list[Trial], name: str) -> Image.Image:
    """The original and what each codec made of it, side by side at 100%, labelled."""
    width, height = (min(side, _PANEL) for side in original.size)
    left, upper = (original.width - width) // 2, (original.height - height) // 2
    box = (left, upper, left + width, upper + height)
    columns = 2
    cells = -(-(1 + len(trials)) // columns)
    sheet = Image.new(
        "RGB",
        (_MARGIN + columns * (width + _MARGIN), _TITLE + cells * (height + _LABEL + _MARGIN)),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    title, label, small = (ImageFont.load_default(size) for size in (22, 18, 15))
    draw.text((_MARGIN, 16), f"{name} at {trials[0].bpp:.2f} bits per pixel", _INK, font=title)
    labels = [("Original", f"{original.width} x {original.height} pixels, 24 bits per pixel")]
    labels += [(t.codec, _figures(t)) for t in trials]
    for index, picture in enumerate([original, *(t.picture for t in trials)]):
        x = _MARGIN + index % columns * (width + _MARGIN)
        y = _TITLE + index // columns * (height + _LABEL + _MARGIN)
        sheet.paste(picture.crop(box), (x, y))
        draw.text((x, y + height + 6), labels[index][0], _INK, font=label)
        draw.text((x, y + height + 29), labels[index][1], _FAINT, font=small)
    return sheet


def _figures(trial: Trial) -> str:
    return f"{len(trial.data):,} bytes    PSNR {trial.psnr:.2f} dB    SSIM {trial.ssim:.3f}"


def _largest_within(limit_bytes: int, settings: Any, write: Callable[[Any], bytes]) -> bytes | None:
    """By bisection over settings in order of size, the largest file that is within the limit."""
    low, high, best = 0, len(settings), None
    while low < high:
        middle = (low + high) // 2
        data = write(settings[middle])
        if len(data) <= limit_bytes:
            low, best = middle + 1, data
        else:
            high = middle
    return best


def _saved(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def _trial(codec: str, data: bytes, original: Image.Image) -> Trial:
    with Image.open(BytesIO(data)) as image:
        picture = image.convert("RGB")
    rate = bits_per_pixel(len(data), *original.size)
    a, b = np.asarray(original), np.asarray(picture)  # uint8 [H,W,3]
    return Trial(codec, data, picture, rate, psnr(a, b), ssim(a, b))
