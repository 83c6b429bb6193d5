"""`pillow-cwic demo`: one picture at five qualities, beside JPEG and JPEG 2000.

Invariant: no rival's file in a row of the table is larger than ours.
"""

from __future__ import annotations

from pathlib import Path

from ..runtime.package import on_disk, package_data
from . import rivals
from .compare import OURS, Comparison, compare_picture, rgb_picture, sheet
from .pictures import PLAIN, Reading
from .recode import write_png
from .sources import check_target, file_name, write_target
from .terminal import bar, name_in_errors, say, show

SHIPPED = package_data() / "astronaut.webp"
QUALITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
RIVALS = ("jpeg", "jpeg2000")


def run(
    name: str | None,
    out: str,
    reading: Reading = PLAIN,
    *,
    force: bool = False,
    quiet: bool = False,
) -> None:
    """Write .cwic files and a side-by-side picture into the folder `out`, print a table."""
    # What is compressed, beside what, and into which files.
    name = name or str(on_disk(SHIPPED))
    with name_in_errors(name):
        original, profile = rgb_picture(name, reading)
    stem = Path(file_name(name)).stem
    others = rivals.available(RIVALS)
    files = [str(Path(out, f"{stem}-{quality:.1f}.cwic")) for quality in QUALITIES]
    target = str(Path(out, f"{stem}-comparison.png"))
    for file in (*files, target):
        check_target(file, [name], force=force, makes_folder=True)

    # One row of the table for each quality.
    rows = []
    with bar(len(QUALITIES) * (1 + len(others)), "demo", "file", quiet) as progress:
        for quality, file in zip(QUALITIES, files, strict=True):
            rows.append(compare_picture(stem, original, others, progress, {"quality": quality}))
            write_target(file, rows[-1].trials[0].data)
    names = [OURS, *(rival.title for rival in others)]
    show(table(rows, names, f"{file_name(name)}, {original.width} x {original.height} pixels"))

    # The side-by-side at a low rate, but not one where JPEG falls apart.
    complete = next((row for row in rows[1:] if not row.missing), rows[-1])
    write_png(Path(target), sheet(original, complete.trials, file_name(name)), profile)
    if not quiet:
        say(f"Wrote {len(rows)} .cwic files and {target}")


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
