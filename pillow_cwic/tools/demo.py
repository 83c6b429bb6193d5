"""`pillow-cwic demo`: one picture at five qualities, beside JPEG and JPEG 2000.

Invariant: no rival's file in a row of the table is larger than ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from ..runtime.files import package_data, write_atomically
from . import rivals
from .compare import OURS, Comparison, compare_picture, open_picture, sheet
from .recode import write_png
from .terminal import name_in_errors

SHIPPED = package_data() / "astronaut.webp"
QUALITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
RIVALS = ("jpeg", "jpeg2000")


def run(path: Path | None, out: Path, *, quiet: bool = False) -> None:
    """Write .cwic files and a side-by-side picture into the folder `out`, print a table."""
    # What is compressed, and beside what.
    path = path or SHIPPED
    with name_in_errors(path):
        original, profile = open_picture(path)
    out.mkdir(parents=True, exist_ok=True)
    others = rivals.available(RIVALS)

    # One row of the table for each quality.
    total = len(QUALITIES) * (1 + len(others))
    rows = []
    with tqdm(total=total, desc="demo", leave=False, disable=quiet or None, delay=1) as bar:
        for quality in QUALITIES:
            rows.append(compare_picture(path.stem, original, others, bar, {"quality": quality}))
            write_atomically(out / f"{path.stem}-{quality:.1f}.cwic", rows[-1].trials[0].data)
    names = [OURS, *(rival.title for rival in others)]
    print(table(rows, names, f"{path.name}, {original.width} x {original.height} pixels"))

    # The side-by-side at a low rate, but not one where JPEG falls apart.
    target = out / f"{path.stem}-comparison.png"
    complete = next((row for row in rows[1:] if not row.missing), rows[-1])
    write_png(target, sheet(original, complete.trials, path.name), profile)
    print(f"\nWrote {len(rows)} .cwic files and {target}", file=sys.stderr)


def table(rows: list[Comparison], names: list[str], title: str) -> str:
    """Bytes, bpp, PSNR and SSIM as text; a dash where a codec has no file that small."""
    # Two lines of heading.
    figure_names = f"{'PSNR':>9}{'SSIM':>7}  " * len(names)
    lines = [
        f"{title}; PSNR in dB, SSIM on luma; all files of a row have at most {OURS}'s bytes",
        f"{'':26}" + "".join(f"{name:^18}" for name in names).rstrip(),
        f"{'quality':>7}{'bytes':>10}{'bpp':>7}  {figure_names}".rstrip(),
    ]

    # A line for each quality: our size, then everybody's figures.
    for quality, row in zip(QUALITIES, rows, strict=True):
        ours = row.trials[0]
        by_name = {trial.codec: trial for trial in row.trials}
        figures = ""
        for name in names:
            trial = by_name.get(name)
            similarity = "-" if trial is None or trial.ssim is None else f"{trial.ssim:.3f}"
            figures += f"{'-' if trial is None else f'{trial.psnr:.2f}':>9}{similarity:>7}  "
        lines.append(f"{quality:>7.1f}{len(ours.data):>10,}{ours.bpp:>7.3f}  {figures}".rstrip())
    return "\n".join(lines)
