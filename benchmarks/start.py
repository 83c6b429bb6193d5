"""Seconds until a fresh process can use .cwic files, medians.

    python benchmarks/start.py [--runs 15]

Compares `import PIL.Image, imageio` with the same and `import pillow_cwic`, each in processes of
their own that take turns, then opens a file and decodes it.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import pillow_cwic

BASE = "import PIL.Image, imageio"
CASES = {
    BASE: BASE,
    "the same, import pillow_cwic": BASE + ", pillow_cwic",
    "the same, Image.open('x.cwic')": BASE + ", pillow_cwic; PIL.Image.open({file!r}).size",
    "the same, .load()": BASE + ", pillow_cwic; PIL.Image.open({file!r}).load()",
}


def main() -> None:
    """Parse the command line and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    args = parser.parse_args()

    # The cases take turns, so that a slow moment hits all alike.
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with TemporaryDirectory() as folder:
        file = Path(folder) / "x.cwic"
        file.write_bytes(pillow_cwic.encode(np.full((64, 64, 3), 90, np.uint8)))
        for run in range(args.runs + 1):
            for name, code in CASES.items():
                start = time.perf_counter()
                subprocess.run([sys.executable, "-c", code.format(file=str(file))], check=True)
                if run:  # the first round warms the disk
                    seconds[name].append(time.perf_counter() - start)

    base = statistics.median(seconds[BASE])
    print("| a fresh process that does | seconds | more than the first |\n|---|---|---|")
    for name, values in seconds.items():
        more = statistics.median(v - b for v, b in zip(values, seconds[BASE], strict=True))
        print(f"| {name} | {statistics.median(values):.3f} | {more:.3f} |")
    print(f"\n{args.runs} runs of each; the first line's median is {base:.3f} s.")


if __name__ == "__main__":
    main()
