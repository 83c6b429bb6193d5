"""Rate-distortion curves: means over pictures, published anchors, Bjontegaard-delta rates, plots.

A curve's points are means over all pictures at one setting, as papers give them. Invariant: MS-SSIM
is averaged first and then turned into decibels. This module knows numbers, no pictures.
"""

import io
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..runtime.files import write_atomically
from .measures import Result, ms_ssim_decibels

METRICS = {"psnr": "PSNR, dB", "ssim": "SSIM", "ms_ssim_db": "MS-SSIM, dB"}


@dataclass(frozen=True)
class CurvePoint:
    """One setting; a metric that is not known is None."""

    bpp: float
    psnr: float | None = None
    ssim: float | None = None
    ms_ssim_db: float | None = None


@dataclass(frozen=True)
class Curve:
    """One codec's points, from the lowest setting to the highest."""

    name: str
    points: tuple[CurvePoint, ...]

    def rising_points(self, metric: str) -> list[tuple[float, float]]:
        """(bpp, value) where the metric is known and rises with the rate.

        Interpolation needs it so.
        """
        rising: list[tuple[float, float]] = []
        for point in self.points:
            value = getattr(point, metric)
            if value is not None and (
                not rising or (point.bpp > rising[-1][0] and value > rising[-1][1])
            ):
                rising.append((point.bpp, value))
        return rising

    def at_rate(self, metric: str, bpp: float) -> float | None:
        """The metric at a rate, interpolated over the logarithm of the rate.

        None outside the curve.
        """
        points = self.rising_points(metric)
        if len(points) < 2 or not points[0][0] <= bpp <= points[-1][0]:
            return None
        rates, values = zip(*points, strict=True)
        return float(interpolator(np.log(rates), values)(math.log(bpp)))


def interpolator(x: Any, y: Any) -> Any:
    """Monotone cubic through the points (scipy's PCHIP)."""
    from scipy.interpolate import PchipInterpolator  # type: ignore[import-untyped]

    return PchipInterpolator(x, y)


def mean_curves(results: Iterable[Result]) -> list[Curve]:
    """Average over pictures: one curve per codec, its points in the order of the settings."""
    by_codec: dict[str, dict[int, list[Result]]] = {}
    for result in results:
        by_codec.setdefault(result.codec, {}).setdefault(result.setting, []).append(result)
    return [
        Curve(name, tuple(map(_mean, settings.values()))) for name, settings in by_codec.items()
    ]


def _mean(rows: list[Result]) -> CurvePoint:
    def mean(name: str) -> float | None:
        values = [getattr(row, name) for row in rows]
        return None if None in values else float(np.mean(values))

    ms_ssim = mean("ms_ssim")
    decibels = None if ms_ssim is None else ms_ssim_decibels(ms_ssim)
    return CurvePoint(mean("bpp") or 0.0, mean("psnr"), mean("ssim"), decibels)


def load_anchors(path: Path) -> list[Curve]:
    """Published curves from JSON, their points by rising rate.

    {"curves": [{"name": ..., "points": [{"bpp": ..., "psnr": ...}, ...]}, ...]}, the metrics named
    as in `CurvePoint`. ValueError names what is wrong.
    """
    curves = []
    try:
        document = json.loads(path.read_text("utf-8"))
        for curve in document["curves"]:
            points = [CurvePoint(**point) for point in curve["points"]]
            curves.append(Curve(curve["name"], tuple(sorted(points, key=lambda p: p.bpp))))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"anchors {path}: expected curves with name and points (bpp, psnr, ssim, ms_ssim_db): "
            f"{error}"
        ) from None
    return curves


def bd_rate(
    anchor: Curve, test: Curve, metric: str, rates: tuple[float, float] | None = None
) -> float | None:
    """Bjontegaard-delta rate: by how many percent `test` needs more rate than `anchor` on average.

    Negative where it needs less. Mean difference of log rate over the common range of the metric
    (VCEG-M33), with PCHIP instead of a cubic, as later practice has it. `rates`: use only what the
    anchor reaches within these bpp. None if the curves do not overlap.
    """
    of_anchor = anchor.rising_points(metric)
    of_test = test.rising_points(metric)
    if min(len(of_anchor), len(of_test)) < 2:
        return None

    # The range of the metric that both curves reach, and the anchor within `rates`.
    low = max(of_anchor[0][1], of_test[0][1])
    high = min(of_anchor[-1][1], of_test[-1][1])
    if rates is not None:
        slowest = of_anchor[0][0]
        fastest = of_anchor[-1][0]
        limits = [anchor.at_rate(metric, min(max(bpp, slowest), fastest)) for bpp in rates]
        low = max(low, limits[0] or low)
        high = min(high, limits[1] or high)
    if high <= low:
        return None

    # Mean log rate over that range.
    means = []
    for points in (of_anchor, of_test):
        bpp, values = zip(*points, strict=True)
        means.append(float(interpolator(values, np.log(bpp)).integrate(low, high)) / (high - low))
    return 100 * (math.exp(means[1] - means[0]) - 1)


def best_tune_rows(
    results: list[Result], name: str, tunes: set[str], rates: tuple[float, float] | None
) -> dict[str, str]:
    """By measure: the last cells of a row of `best_tune_report`."""
    curves = {curve.name: curve for curve in mean_curves(results)}
    rows = {}
    for metric in METRICS:
        deltas = {
            tune: delta
            for tune in sorted(tunes & set(curves))
            if (delta := bd_rate(curves[tune], curves[name], metric, rates)) is not None
        }
        if not deltas:
            continue
        best = max(deltas, key=deltas.__getitem__)
        by_picture = picture_deltas(results, (best, name), metric, rates)
        worst = max(by_picture, key=by_picture.__getitem__)
        mean = sum(by_picture.values()) / len(by_picture)
        rows[metric] = (
            f"{best.removeprefix('AVIF tune ')} | {deltas[best]:+.1f}% | {mean:+.1f}% | "
            f"{by_picture[worst]:+.1f}% {worst} |"
        )
    return rows


def picture_deltas(
    results: list[Result],
    codecs: tuple[str, str],
    metric: str,
    rates: tuple[float, float] | None,
) -> dict[str, float]:
    """By picture: Bjontegaard-delta rate of the second codec against the first, in percent."""
    found = {}
    for picture in sorted({result.picture for result in results}):
        own = [result for result in results if result.picture == picture]
        curves = {curve.name: curve for curve in mean_curves(own)}
        delta = bd_rate(curves[codecs[0]], curves[codecs[1]], metric, rates)
        if delta is not None:
            found[picture] = delta
    return found


def draw_rates(curves: list[Curve], anchors: list[Curve], path: Path) -> None:
    """Every metric over the rate as one picture file; anchors dashed."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    points = [point for curve in curves for point in curve.points]
    shown = [name for name in METRICS if any(getattr(p, name) is not None for p in points)]
    figure = Figure(figsize=(6.2 * len(shown), 5.5), layout="constrained")
    axes = figure.subplots(1, len(shown), squeeze=False)[0]
    rate_limit = min(1.6, max(point.bpp for point in points) * 1.05)

    for axis, metric in zip(axes, shown, strict=True):
        # A curve has the same colour on every axis.
        for number, curve in enumerate((*curves, *anchors)):
            measured = [p for p in curve.points if getattr(p, metric) is not None]
            if measured:
                style = {"marker": "o", "linestyle": "-"}
                if number >= len(curves):
                    style = {"marker": "x", "linestyle": "--"}
                axis.plot(
                    [p.bpp for p in measured],
                    [getattr(p, metric) for p in measured],
                    label=curve.name,
                    color=colormaps["tab20"](number % 20),
                    markersize=4,
                    **style,
                )
        axis.set_xlim(0, rate_limit)
        axis.set_xlabel("bits per pixel")
        axis.set_title(METRICS[metric])
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    write_figure(figure, path)


def write_figure(figure: Any, path: Path) -> None:
    """A matplotlib figure as a picture file; the extension names the format."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix("."), dpi=110)
    write_atomically(path, buffer.getvalue())


def rate_table(curves: list[Curve], rates: Iterable[float]) -> str:
    """Markdown: PSNR / SSIM / MS-SSIM dB of every curve at fixed rates, interpolated."""
    lines = [
        "| bpp | " + " | ".join(curve.name for curve in curves) + " |",
        "|---" * (len(curves) + 1) + "|",
    ]
    for bpp in rates:
        cells = [" / ".join(_cell(curve.at_rate(m, bpp), m) for m in METRICS) for curve in curves]
        lines.append(f"| {bpp:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def point_table(curve: Curve) -> str:
    """Markdown: a curve's own points."""
    lines = ["| bpp | PSNR, dB | SSIM | MS-SSIM, dB |", "|---|---|---|---|"]
    for p in curve.points:
        lines.append(
            f"| {p.bpp:.4f} | "
            + " | ".join(_cell(getattr(p, metric), metric) for metric in METRICS)
            + " |"
        )
    return "\n".join(lines)


def delta_table(tests: list[Curve], anchors: list[Curve], rates: tuple[float, float] | None) -> str:
    """Markdown: Bjontegaard-delta rates of each test curve against each anchor, in percent."""
    lines = ["| BD-rate of | against | PSNR | SSIM | MS-SSIM |", "|---|---|---|---|---|"]
    for test in tests:
        for anchor in anchors:
            if anchor.name != test.name:
                deltas = [bd_rate(anchor, test, metric, rates) for metric in METRICS]
                cells = ["-" if delta is None else f"{delta:+.1f}%" for delta in deltas]
                lines.append(f"| {test.name} | {anchor.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None, metric: str) -> str:
    formats: dict[str, Any] = {"psnr": ".2f", "ssim": ".3f", "ms_ssim_db": ".1f"}
    return "-" if value is None else format(value, formats[metric])
