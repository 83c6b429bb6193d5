"""How much slower coding gets beside another process that keeps one core busy.

    python benchmarks/busy.py PICTURE [--runs 9] [--device cpu] [--model NAME]

Quiet and busy rounds take turns in one run: only their ratios are of interest.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image

import pillow_cwic


def seconds_of(call: Callable[[], object], busy: bool) -> float:
    """Seconds of a call; `busy`: beside a process that does nothing but take time."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        time.sleep(0.3)
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    finally:
        if other:
            other.kill()
            other.wait()


def main() -> None:
    """Parse the command line and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", help="by name; default: the default model")
    args = parser.parse_args()

    pixels = np.array(Image.open(args.picture).convert("RGB"))
    encode = partial(pillow_cwic.encode, pixels, quality=0.5, device=args.device, model=args.model)
    data = encode()
    calls: dict[str, Callable[[], object]] = {
        "decode()": lambda: pillow_cwic.decode(data, device=args.device),
        "encode()": encode,
    }
    print("| call | quiet, s | beside a busy core, s | ratio |\n|---|---|---|---|")
    for name, call in calls.items():
        call()
        pairs = [(seconds_of(call, False), seconds_of(call, True)) for _ in range(args.runs)]
        quiet, busy = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {quiet:.3f} | {busy:.3f} | {busy / quiet:.2f} |")


if __name__ == "__main__":
    main()
