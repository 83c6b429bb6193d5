"""Plots at the end of a run: learning curves, importance maps, rate-distortion.

Needs matplotlib (extra `training`). Invariant: without it a run ends just as well, and says what is
missing. This module decides nothing about the run.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tools.rivals import RIVALS
from .curves import draw_rates, mean_curves, write_figure
from .joint_codec import JointCodec
from .measures import Result, measure
from .validation import reconstruct, validate
from .watch import read_log

SHOWN_PICTURES = 4
"""Validation pictures in the plots."""

CURVE_POINTS = 7
"""Quality indices on the model's rate-distortion curve."""

SHOWN_CURVES = {"loss": "loss", "bpp": "bpp", "psnr": "PSNR, dB", "learning_rate": "learning rate"}
"""Keys of the log that are plotted, and their titles."""


def plot_run(
    folder: Path,
    joint: JointCodec,
    held_out: list[tuple[str, Tensor]],
    device: torch.device,
    say: Callable[[str], None],
) -> None:
    """Write curves.png, importance.png and rd.png into a run folder."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        say("no plots: matplotlib is not installed; pip install pillow-cwic[training]")
        return
    plot_curves(read_log(folder), folder / "curves.png")
    if held_out:
        shown = held_out[:SHOWN_PICTURES]
        plot_importance(joint, shown, device, folder / "importance.png")
        plot_rates(joint, shown, device, folder / "rd.png")


def plot_curves(log: list[dict[str, Any]], path: Path) -> None:
    """Loss, rate, PSNR and learning rate over the steps of a log."""
    from matplotlib.figure import Figure

    steps = [line for line in log if line["event"] == "step"]
    points = [line for line in log if line["event"] == "validation"]
    indices = sorted({line["quality_index"] for line in points})
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2).flat

    for axis, (key, title) in zip(axes, SHOWN_CURVES.items(), strict=True):
        plot_log(axis, steps, key, label="training crops")
        # Loss and learning rate are of training alone.
        for index in indices if key in ("bpp", "psnr") else ():
            of_index = [line for line in points if line["quality_index"] == index]
            label = f"validation, quality index {index}"
            plot_log(axis, of_index, key, marker="o", linestyle="--", label=label)
        axis.set_xlabel("step")
        axis.set_title(title)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    write_figure(figure, path)


def plot_log(axis: Any, lines: list[dict[str, Any]], key: str, **style: str) -> None:
    """One value of the log's lines over the steps."""
    axis.plot([line["step"] for line in lines], [line[key] for line in lines], **style)


def plot_importance(
    joint: JointCodec, held_out: list[tuple[str, Tensor]], device: torch.device, path: Path
) -> None:
    """Each picture beside its reconstruction and importance map, at the middle quality."""
    from matplotlib.figure import Figure

    quality = joint.config.quality_count // 2
    last_level = joint.config.levels - 1
    figure = Figure(figsize=(12, 3 * len(held_out)), layout="constrained")
    rows = figure.subplots(len(held_out), 3, squeeze=False)

    # One row a picture.
    for row, (name, picture) in zip(rows, held_out, strict=True):
        decoded, level = reconstruct(joint, picture, quality, device)
        row[0].imshow(picture.permute(1, 2, 0).numpy())  # [h,w,3]
        row[1].imshow(decoded)
        row[2].imshow(level, vmin=0, vmax=last_level, cmap="magma")
        titles = (name, f"decoded, quality index {quality}", f"importance, 0..{last_level}")
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    write_figure(figure, path)


def plot_rates(
    joint: JointCodec, held_out: list[tuple[str, Tensor]], device: torch.device, path: Path
) -> None:
    """The model's estimated rate on pictures, and Pillow's codecs by file size on the same."""
    model = "this model (estimated)"
    last = joint.config.quality_count - 1
    indices = sorted({round(last * k / (CURVE_POINTS - 1)) for k in range(CURVE_POINTS)})
    results = [
        Result(model, point.quality_index, name, point.bpp, point.psnr, None, point.ms_ssim)
        for name, picture in held_out
        for point in validate(joint, [(name, picture)], tuple(indices), device)
    ]
    for name, picture in held_out:
        pixels = picture.permute(1, 2, 0).numpy()  # [h,w,3]
        results += [result for codec in RIVALS for result in measure(codec, name, pixels)]
    draw_rates(mean_curves(results), [], path)
