"""Pictures at the end of a run: learning curves, importance maps, rate-distortion beside Pillow's codecs.

Needs matplotlib (extra `training`); without it a run ends just as well, and says what is missing.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..tools.rivals import RIVALS
from .curves import draw_rates, mean_curves
from .joint_codec import JointCodec
from .measures import Result, measure
from .validation import look, validate
from .watch import read_log

SHOWN_PICTURES = 4
CURVE_POINTS = 7
SHOWN_CURVES = {"loss": "loss", "bpp": "bpp", "psnr": "PSNR, dB", "learning_rate": "learning rate"}


def plot_run(
    folder: Path,
    joint: JointCodec,
    whole: list[tuple[str, Tensor]],
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
    if whole:
        plot_importance(joint, whole[:SHOWN_PICTURES], device, folder / "importance.png")
        plot_rates(joint, whole[:SHOWN_PICTURES], device, folder / "rd.png")


def plot_curves(log: list[dict[str, Any]], path: Path) -> None:
    """Loss, rate, PSNR and learning rate over the steps of a log."""
    from matplotlib.figure import Figure

    steps = [line for line in log if line["event"] == "step"]
    points = [line for line in log if line["event"] == "validation"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2).flat
    for axis, (key, title) in zip(axes, SHOWN_CURVES.items(), strict=True):
        axis.plot(
            [line["step"] for line in steps], [line[key] for line in steps], label="training crops"
        )
        for index in sorted(
            {line["quality_index"] for line in points} if key in ("bpp", "psnr") else ()
        ):
            rows = [line for line in points if line["quality_index"] == index]
            axis.plot(
                [r["step"] for r in rows],
                [r[key] for r in rows],
                "o--",
                label=f"validation, quality index {index}",
            )
        axis.set_xlabel("step")
        axis.set_title(title)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=7)
    figure.savefig(path, dpi=110)


def plot_importance(
    joint: JointCodec, whole: list[tuple[str, Tensor]], device: torch.device, path: Path
) -> None:
    """Each picture beside its reconstruction and importance map, at the middle quality."""
    from matplotlib.figure import Figure

    quality = joint.config.quality_count // 2
    figure = Figure(figsize=(12, 3 * len(whole)), layout="constrained")
    rows = figure.subplots(len(whole), 3, squeeze=False)
    for row, (name, picture) in zip(rows, whole, strict=True):
        decoded, level = look(joint, picture, quality, device)
        row[0].imshow(picture.permute(1, 2, 0).numpy())  # [h,w,3]
        row[1].imshow(decoded)
        row[2].imshow(level, vmin=0, vmax=joint.config.levels - 1, cmap="magma")
        titles = (
            name,
            f"decoded, quality index {quality}",
            f"importance, 0..{joint.config.levels - 1}",
        )
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(title, fontsize=9)
            axis.axis("off")
    figure.savefig(path, dpi=110)


def plot_rates(
    joint: JointCodec, whole: list[tuple[str, Tensor]], device: torch.device, path: Path
) -> None:
    """The model's estimated rate on validation pictures, and Pillow's codecs by file size on the same."""
    last, model = joint.config.quality_count - 1, "this model (estimated)"
    indices = sorted({round(last * k / (CURVE_POINTS - 1)) for k in range(CURVE_POINTS)})
    results = [
        Result(model, point.quality_index, name, point.bpp, point.psnr, None, point.ms_ssim)
        for name, picture in whole
        for point in validate(joint, [(name, picture)], tuple(indices), device)
    ]
    for name, picture in whole:
        pixels = picture.permute(1, 2, 0).numpy()  # [h,w,3]
        results += [result for codec in RIVALS for result in measure(codec, name, pixels)]
    draw_rates(mean_curves(results), [], path)
