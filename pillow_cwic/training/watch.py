"""Watching a run: a progress line for people, a log for scripts, TensorBoard where installed.

The log is JSON Lines, appended to as the run goes on. Invariant: what is shown is in the log as
well. This module knows numbers and names, no tensors.
"""

import sys
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from .losses import decibels
from .records import mend_lines, read_lines, to_json
from .schedule import Budget, Progress
from .validation import Point

LOG = "log.jsonl"


class Watch:
    """Shows and writes down how the first rank is doing; the other ranks stay silent."""

    def __init__(
        self, folder: Path, budget: Budget, seconds: float, *, first: bool, quiet: bool
    ) -> None:
        self.seconds = seconds  # wall-clock at the last line
        self.budget = budget
        self.first = first
        self.quiet = quiet
        self.log: TextIO | None = None
        if first:
            mend_lines(folder / LOG)  # a kill may have cut it
            self.log = (folder / LOG).open("a", encoding="utf-8")
        self.board = _tensorboard(folder) if first else None
        # A log file gets lines, a terminal a bar.
        self.lines = first and not quiet and not sys.stderr.isatty()
        self.bar = tqdm(
            total=100.0,
            disable=not first or quiet or self.lines,
            file=sys.stderr,
            bar_format="{percentage:3.0f}%|{bar:20}| {desc}",
        )

    def say(self, text: str) -> None:
        """A line for people, also kept in the log."""
        if self.first:
            self._show(text)
            self._write("note", text=text)

    def step(self, progress: Progress, means: dict[str, float], rate: float, stage: str) -> None:
        """Means since the last call: progress line, log, TensorBoard."""
        # For people.
        bpp = means["code_bpp"] + means["map_bpp"]
        psnr = decibels(means["mse"])  # NaN where no step was finite, as all means
        used = self.budget.used(progress)
        seconds_left = self.budget.seconds_left(progress)
        skipped = f", {progress.skipped} skipped" if progress.skipped else ""
        line = (
            f"{stage}, step {progress.step}{skipped}: loss {means['loss']:.3f}, {bpp:.3f} bpp, "
            f"{psnr:.2f} dB, MS-SSIM {means['ms_ssim']:.4f}, {_minutes(seconds_left)} left"
        )
        self._show_progress(used, line)

        # For scripts: the means, and what they say beside them.
        elapsed = progress.seconds - self.seconds
        self.seconds = progress.seconds
        pace = {"steps_per_second": means["steps"] / elapsed} if elapsed > 0 else {}
        values = {
            **means,
            **pace,
            "bpp": bpp,
            "psnr": psnr,
            "learning_rate": rate,
            "seconds": progress.seconds,
            "used": used,
        }
        rounded = {key: _short(value) for key, value in values.items()}
        self._write("step", step=progress.step, stage=stage, **rounded)
        self._board(progress.step, {f"train/{key}": value for key, value in values.items()})

    def validation(self, progress: Progress, points: list[Point]) -> None:
        """Whole pictures at several qualities."""
        for point in points:
            row = point.as_dict()
            warning = "" if point.is_finite else "NOT FINITE, "
            self._show(
                f"step {progress.step}, quality index {point.quality_index}: {warning}"
                f"{point.bpp:.4f} bpp "
                f"(map {point.map_bpp:.4f}), {point.psnr:.2f} dB, MS-SSIM {point.ms_ssim:.4f}, "
                f"mean level {point.level:.1f}"
            )
            self._write("validation", step=progress.step, seconds=_short(progress.seconds), **row)
            tag = f"validation/{point.quality_index}"
            self._board(
                progress.step,
                {f"{tag}/{key}": row[key] for key in ("bpp", "psnr", "ms_ssim", "level")},
            )

    def close(self) -> None:
        """Finish the bar and the files."""
        self.bar.close()
        if self.log is not None:
            self.log.close()
        if self.board is not None:
            self.board.close()

    def _show_progress(self, used: float, line: str) -> None:
        self.bar.n = round(100 * used, 2)
        self.bar.set_description_str(line)
        if self.lines:
            print(f"{100 * used:3.0f}% {line}", file=sys.stderr, flush=True)

    def _show(self, text: str) -> None:
        if self.first and not self.quiet:
            tqdm.write(text, file=sys.stderr)

    def _write(self, event: str, **values: Any) -> None:
        if self.log is not None:
            self.log.write(to_json({"event": event, **values}) + "\n")
            self.log.flush()

    def _board(self, step: int, values: dict[str, float]) -> None:
        if self.board is not None:
            for tag, value in values.items():
                self.board.add_scalar(tag, value, step)


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The log's lines; a run that never logged has none."""
    return read_lines(folder / LOG)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra `tensorboard` is not installed
        return None
    return SummaryWriter(str(folder / "tensorboard"))


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _short(value: float) -> float:
    return float(f"{value:.6g}")
