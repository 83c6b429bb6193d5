"""`evaluate`: rate-distortion of models by real files, with Pillow's codecs in the same run.

Invariant: every number comes from a file that was encoded, measured in bytes, and decoded again
through the public functions. This module knows nothing of how a model was trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

import pillow_cwic

from ..runtime.files import write_atomically
from ..runtime.processes import worker_processes
from ..tools.rivals import CURVES, MEASURED, TUNED, avif_versions
from .curves import (
    METRICS,
    Curve,
    best_tune_rows,
    delta_table,
    draw_rates,
    load_anchors,
    mean_curves,
    point_table,
    rate_table,
)
from .measures import (
    Pixels,
    Result,
    Trial,
    compare_trial,
    measure,
    read_results,
    write_results,
)
from .pictures import Picture, Skipped, decode, find

TABLE_RATES = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0)
"""Bits per pixel at which the curves are interpolated."""

DIALS = (0.0, 0.16, 0.32, 0.48, 0.64, 0.8, 1.0)
"""Qualities that are measured where none are asked for."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What the command line says."""

    models: list[str]
    images: list[str]
    out: Path
    qualities: tuple[float, ...] = DIALS  # in 0..1
    indices: tuple[int, ...] = ()  # of each model's own qualities, instead
    efforts: tuple[int, ...] = (0,)  # each model is measured at each
    codecs: tuple[str, ...] = MEASURED
    anchors: tuple[Path, ...] = ()
    beside: tuple[Path, ...] = ()
    """rd.json of earlier evaluations of the same pictures: their codecs join the tables."""

    rates: tuple[float, float] | None = None
    """Range in bpp of the Bjontegaard deltas; None: all that the curves share."""

    jobs: int = 1
    device: str | None = None


@dataclass(frozen=True)
class Job:
    """One picture by one codec at all settings: what a worker process does at a time."""

    picture: Picture
    codec: str  # a key of CURVES, or a model
    options: EvaluateOptions
    effort: int = 0


def evaluate(options: EvaluateOptions) -> tuple[list[Curve], list[Skipped]]:
    """Measure, write rd.json, rd.md and rd.png into `out`, print the tables.

    Returns the curves, models first, and the pictures that could not be measured, which are left
    out of all figures. ValueError for unknown codecs, qualities out of range, or where no picture
    can be measured.
    """
    # Measuring takes long: what is wrong is said first.
    pictures = find(options.images)
    if not pictures:
        raise ValueError(f"no pictures in {', '.join(options.images)}")
    check_options(options)
    earlier = [
        result
        for path in options.beside
        for result in read_results(path, [picture.name for picture in pictures])
    ]

    # What was measured now replaces what an earlier evaluation says of the same codec.
    results, skipped = measure_all(options, pictures)
    bad = {item.name for item in skipped}
    pictures = [picture for picture in pictures if picture.name not in bad]
    if not pictures:
        raise ValueError(f"no picture could be measured: {name_skipped(skipped)}")
    measured = {result.codec for result in results}
    results += [result for result in earlier if result.codec not in measured]
    results = [result for result in results if result.picture not in bad]
    curves = mean_curves(results)
    anchors = [curve for path in options.anchors for curve in load_anchors(path)]

    # The figures first, then what is made of them.
    options.out.mkdir(parents=True, exist_ok=True)
    write_results(options.out / "rd.json", results)
    report = text_report(options, curves, anchors, len(pictures))
    report += "\n" + best_tune_report(options, results, pictures)
    write_atomically(options.out / "rd.md", report.encode())
    draw_rates(curves, anchors, options.out / "rd.png")
    print(report)
    return curves, skipped


def refuse_skipped(skipped: list[Skipped]) -> None:
    """At the end, when all else is written: ValueError that names the pictures left out."""
    if skipped:
        raise ValueError(f"{len(skipped)} picture(s) left out: {name_skipped(skipped)}")


def name_skipped(skipped: list[Skipped]) -> str:
    """Pictures and why they were left out, in one line."""
    return "; ".join(f"{item.name}: {item.reason}" for item in skipped)


def check_options(options: EvaluateOptions) -> None:
    """ValueError for codecs, qualities or quality indices that there are not."""
    unknown = sorted(set(options.codecs) - set(CURVES))
    if unknown:
        raise ValueError(f"unknown codec {', '.join(unknown)}; known are {', '.join(CURVES)}")
    if not all(0 <= quality <= 1 for quality in options.qualities):
        raise ValueError(f"qualities are 0..1, found {', '.join(map(str, options.qualities))}")
    for model in options.models:
        dials(options, model)


def measure_all(
    options: EvaluateOptions, pictures: list[Picture]
) -> tuple[list[Result], list[Skipped]]:
    """All results, in a fixed order: models first, then Pillow's codecs, pictures in order.

    And the pictures that failed, once each.
    """
    results: list[Result] = []
    skipped: dict[str, Skipped] = {}
    for outcome in outcomes(options, pictures):
        if isinstance(outcome, Skipped):
            skipped.setdefault(outcome.name, outcome)
        else:
            results += outcome
    return results, list(skipped.values())


def outcomes(options: EvaluateOptions, pictures: list[Picture]) -> Iterator[list[Result] | Skipped]:
    """What each job gives, in a fixed order."""
    runs = [(model, effort) for model in options.models for effort in options.efforts]
    rivals = [codec for codec in options.codecs if CURVES[codec].available]
    jobs = [Job(picture, model, options, effort) for model, effort in runs for picture in pictures]
    jobs += [Job(picture, codec, options) for codec in rivals for picture in pictures]

    with tqdm(total=len(jobs), desc="evaluating", unit="picture", leave=False, disable=None) as bar:
        if options.jobs <= 1:
            for job in jobs:
                yield measure_job(job)
                bar.update()
            return

        with worker_processes(options.jobs) as pool:
            for outcome in pool.map(measure_job, jobs):
                yield outcome
                bar.update()


def measure_job(job: Job) -> list[Result] | Skipped:
    """One job's results; or its picture, where it cannot be read, encoded or measured."""
    pixels = decode(job.picture)
    if isinstance(pixels, str):
        return Skipped(job.picture.name, pixels)
    try:
        return measure_pixels(job, pixels)
    except (OSError, ValueError, MemoryError) as error:
        reason = str(error) or type(error).__name__
        return Skipped(job.picture.name, f"{title(job.codec, job.effort)}: {reason}")


def measure_pixels(job: Job, pixels: Pixels) -> list[Result]:
    """Measure a picture uint8 [h,w,3]."""
    import torch

    # Processes beside each other would wait for each other's threads.
    if job.options.jobs > 1:
        torch.set_num_threads(1)

    if job.codec in job.options.codecs:
        return list(measure(job.codec, job.picture.name, pixels))

    # A model at each of its settings.
    device = job.options.device
    name = title(job.codec, job.effort)
    results = []
    for setting, quality in enumerate(dials(job.options, job.codec)):
        data = pillow_cwic.encode(
            pixels, quality=quality, effort=job.effort, model=job.codec, device=device
        )
        decoded = pillow_cwic.decode(data, device=device)
        trial = Trial(name, setting, job.picture.name)
        results.append(compare_trial(trial, pixels, decoded, len(data)))
    return results


def dials(options: EvaluateOptions, model: str) -> tuple[float, ...]:
    """The qualities to measure a model at; ValueError for an index that it does not have."""
    if not options.indices:
        return options.qualities
    last = pillow_cwic.model_info(model).quality_count - 1
    if not all(0 <= index <= last for index in options.indices):
        found = ", ".join(map(str, options.indices))
        raise ValueError(f"quality indices of {model} are 0..{last}, found {found}")
    return tuple(index / max(1, last) for index in options.indices)


def best_tune_report(
    options: EvaluateOptions, results: list[Result], pictures: list[Picture]
) -> str:
    """Each set of pictures, model and measure against AVIF's best tune, as Markdown.

    The mean over the set's pictures, and the worst picture with its name.
    """
    tunes = {rival.title for rival in TUNED.values()}
    if not tunes & {result.codec for result in results}:
        return ""
    lines = [
        f"Rate against AVIF (4:4:4, speed 6, one tile; {avif_versions()}) with the tune that is "
        "best by the measure: by mean curves; then by picture, mean and worst.",
        "",
        "| set | pictures | codec | measure | best tune | by mean curves | mean | worst |",
        "|---|---|---|---|---|---|---|---|",
    ]
    names = [title(model, effort) for model in options.models for effort in options.efforts]
    names_here = {picture.name for picture in pictures}
    for source in options.images:
        own = {picture.name for picture in find([source])} & names_here
        of_set = [result for result in results if result.picture in own]
        for name in names:
            for metric, row in best_tune_rows(of_set, name, tunes, options.rates).items():
                lines.append(
                    f"| {Path(source).name} | {len(own)} | {name} | {METRICS[metric]} | {row}"
                )
    return "\n".join([*lines, ""])


def title(model: str, effort: int) -> str:
    """A model's name in tables, with the effort of its files; of a path the file's name."""
    name = Path(model).stem if model.endswith(".safetensors") else model
    return f"{name} effort {effort}" if effort else name


def text_report(
    options: EvaluateOptions, curves: list[Curve], anchors: list[Curve], count: int
) -> str:
    """The tables as Markdown."""
    # The points of each model as they are.
    models = {title(model, effort) for model in options.models for effort in options.efforts}
    tests = [curve for curve in curves if curve.name in models]
    sources = ", ".join(Path(source).name for source in options.images)
    paragraphs = [
        f"Means over {count} pictures ({sources}); bpp by file size; PSNR / SSIM (luma) / MS-SSIM "
        "in dB.",
        "",
    ]
    for curve in tests:
        paragraphs += [f"**{curve.name}**", "", point_table(curve), ""]

    # All curves at the same rates, and what one costs against the other.
    everything = [*curves, *anchors]
    paragraphs += ["Interpolated at fixed rates:", "", rate_table(everything, TABLE_RATES), ""]
    span = "all rates that both curves reach"
    if options.rates is not None:
        span = "{:g}-{:g} bpp".format(*options.rates)
    paragraphs += [
        f"Bjontegaard-delta rates over {span}; negative: fewer bits for the same quality.",
        "",
        delta_table(tests, everything, options.rates),
        "",
    ]
    return "\n".join(paragraphs)
