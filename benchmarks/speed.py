"""Seconds of each part of encoding and decoding one picture, medians in a warm process.

    python benchmarks/speed.py PICTURE [--quality-index 10 30 50] [--runs 15] [--busy]

Prints, per quality: bare network time of each half, entropy coding, container, and the whole
encode() and decode() with their ratio to the bare networks of the same run. --busy repeats it
beside a process that keeps one core busy.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

import pillow_cwic
from pillow_cwic import analysis, decoding, encoding, model
from pillow_cwic.format import container
from pillow_cwic.format.grid import GRID, Box, code_grid
from pillow_cwic.networks import windows
from pillow_cwic.runtime import devices, machine
from pillow_cwic.weights import models

EFFORT = 10


def timed_calls(pixels: np.ndarray, index: int) -> dict[str, Callable[[], object]]:
    """Name of a part -> a call that does it once."""
    # What the parts work on: a file, its codes, and the pixels of one window.
    loaded = models.load(None, torch.device("cpu"))
    quality = index / (loaded.config.quality_count - 1)
    data = pillow_cwic.encode(pixels, quality=quality, device="cpu")
    parsed = container.read(data)
    coded = analysis.Analysis(loaded, pixels).coded(index)
    box = Box(0, 0, pixels.shape[1], pixels.shape[0])
    window = windows.cut(pixels, code_grid(*parsed.header.size).scale(GRID))  # [H,W,3]

    # The same as the bare networks take it.
    x = torch.from_numpy(window).permute(2, 0, 1)[None].float() / 255  # [1,3,H,W]
    y = coded.codes.permute(2, 0, 1)[None].float()  # [1,n,h,w]
    q = torch.tensor([index])

    def encoder() -> None:
        with devices.inference():
            loaded.encoder(x, q)

    def decoder() -> None:
        with devices.inference():
            loaded.decoder(y, q)

    def encode(effort: int = 0) -> bytes:
        return pillow_cwic.encode(pixels, quality=quality, effort=effort, device="cpu")

    # Each half from the network to the whole.
    finished = _FinishedAnalysis(loaded, coded)
    return {
        "encoder network": encoder,
        "entropy encoding": lambda: encoding._encode_tiles(finished, parsed.header, 0),
        "container write": lambda: container.write(parsed.header, parsed.tiles),
        "encode()": encode,
        f"encode(effort={EFFORT})": lambda: encode(EFFORT),
        "decoder network": decoder,
        "entropy decoding": lambda: decoding._decode_tiles(parsed, loaded, box),
        "container read": lambda: container.read(data),
        "decode()": lambda: pillow_cwic.decode(data, device="cpu"),
    }


class _FinishedAnalysis:
    """Stands for an analysis that is done: what entropy encoding starts from."""

    def __init__(self, loaded: model.Model, coded: analysis.Coded) -> None:
        self.model = loaded
        self._coded = coded

    def coded(self, _: int) -> analysis.Coded:
        return self._coded


def measure(calls: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Median seconds of each call; the calls take turns, so that a slow moment hits all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if run >= 2:  # two rounds to warm up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(pixels: np.ndarray, indices: list[int], runs: int) -> None:
    """Print a markdown table, one row per quality index."""
    names: list[str] = []
    for index in indices:
        seconds = measure(timed_calls(pixels, index), runs)
        if not names:
            names = list(seconds)
            print("| quality index |", " | ".join(names), "| encode / network | decode / network |")
            print("|---" * (len(names) + 3) + "|")

        # What is beside the networks, as a share of them.
        encode_ratio = seconds["encode()"] / seconds["encoder network"]
        decode_ratio = seconds["decode()"] / seconds["decoder network"]
        cells = " | ".join(f"{seconds[name]:.4f}" for name in names)
        print(f"| {index} | {cells} | {encode_ratio:.2f} | {decode_ratio:.2f} |")


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--quality-index", type=int, nargs="+", default=[10, 30, 50])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument(
        "--busy", action="store_true", help="beside a process that keeps one core busy"
    )
    args = parser.parse_args()

    # What the figures hold for.
    pixels = np.array(Image.open(args.picture).convert("RGB"))
    size = f"{pixels.shape[1]} x {pixels.shape[0]}"
    threads = f"{torch.get_num_threads()} torch threads, {machine.available_cores()} cores"
    print(f"{size}, {threads}, medians of {args.runs} runs, seconds\n")

    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if args.busy else None
    try:
        report(pixels, args.quality_index, args.runs)
    finally:
        if busy:
            busy.kill()


if __name__ == "__main__":
    main()
