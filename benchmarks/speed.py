"""Seconds of each part of encoding and decoding one picture, medians in a warm process.

    python benchmarks/speed.py PICTURE [--quality-index 10 30 50] [--runs 15] [--device cpu]
        [--model NAME]

Prints, per quality: each half's networks, entropy coding of all tiles in turn, the whole encode()
and decode(), and Pillow's AVIF (4:4:4, speed 6) of about the same size.
"""

import argparse
import io
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

import pillow_cwic
from pillow_cwic.analysis import Analysis
from pillow_cwic.format import container
from pillow_cwic.format.grid import Box, tiles
from pillow_cwic.runtime.blas import one_blas_thread
from pillow_cwic.runtime.devices import describe_device, resolve_device
from pillow_cwic.runtime.machine import available_cores
from pillow_cwic.synthesis import synthesize
from pillow_cwic.weights import models


def timed_calls(
    pixels: np.ndarray, index: int, device: str, name: str | None
) -> dict[str, Callable[[], object]]:
    """Name of a part -> a call that does it once."""
    # What the parts work on: a file without exact blocks, its codes and its tiles' streams.
    model = models.load(name, resolve_device(device))
    quality = index / (model.config.quality_count - 1)
    encode = partial(pillow_cwic.encode, pixels, quality=quality, device=device, model=name)
    data = encode(exact=False)
    header = container.read(data).header
    analysis = Analysis(model, pixels)
    coded = analysis.coded(index)
    boxes = tiles(*header.size, header.tile_size)
    streams = [(model.entropy.encode(*coded.tile(box)), (box.height, box.width)) for box in boxes]
    whole = Box(0, 0, *header.size)
    avif = avif_near(pixels, len(data))

    # Each half from the networks to the whole.
    return {
        "analysis": lambda: Analysis(model, pixels).coded(index),
        "entropy encoding": lambda: [model.entropy.encode(*coded.tile(box)) for box in boxes],
        "encode()": encode,
        "AVIF encode": lambda: encode_avif(pixels, avif[0]),
        "synthesis": lambda: synthesize(model, coded.codes, (index, None), analysis.grid, whole),
        "entropy decoding": lambda: [model.entropy.decode(*stream, index) for stream in streams],
        "decode()": lambda: pillow_cwic.decode(data, device=device),
        "AVIF decode": lambda: np.asarray(Image.open(io.BytesIO(avif[1]))),
    }  # fmt: skip


def encode_avif(pixels: np.ndarray, quality: int) -> bytes:
    """Pillow's AVIF, 4:4:4, speed 6."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "AVIF", quality=quality, subsampling="4:4:4", speed=6)
    return file.getvalue()


def avif_near(pixels: np.ndarray, size_bytes: int) -> tuple[int, bytes]:
    """AVIF's quality and file nearest to a number of bytes."""
    files = {quality: encode_avif(pixels, quality) for quality in range(20, 90, 6)}
    return min(files.items(), key=lambda item: abs(len(item[1]) - size_bytes))


def measure(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each call; the calls take turns, so that a slow moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 1):
        for name, call in calls.items():
            with one_blas_thread():  # as encode() and decode() have it
                start = time.perf_counter()
                call()
            if run:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Parse the command line and print a markdown table, one row per quality index."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--quality-index", type=int, nargs="+", default=[10, 30, 50])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="by name; default: the default model")
    args = parser.parse_args()

    # What the figures hold for.
    pixels = np.array(Image.open(args.picture).convert("RGB"))
    size = f"{pixels.shape[1]} x {pixels.shape[0]}"
    where = f"{describe_device(resolve_device(args.device))}, {available_cores()} cores"
    print(f"{size}, {where}, medians of {args.runs} runs, seconds\n")

    for number, index in enumerate(args.quality_index):
        seconds = measure(timed_calls(pixels, index, args.device, args.model), args.runs)
        if number == 0:
            print("| quality index |", " | ".join(seconds), "|")
            print("|---" * (len(seconds) + 1) + "|")
        print(f"| {index} |", " | ".join(f"{value:.3f}" for value in seconds.values()), "|")


if __name__ == "__main__":
    main()
