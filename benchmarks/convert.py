"""Pictures per second of `pillow-cwic convert`, by number of worker processes, medians.

    python benchmarks/convert.py FOLDER [--jobs 1 2] [--runs 3] [--repeat 4]

Converts FOLDER, each picture `--repeat` times, to .cwic. The whole command is timed; what it takes
to start is measured by a run over a single picture and given apart.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def seconds(source: Path, jobs: int) -> float:
    """One conversion of a folder or file, from the command to its end."""
    with TemporaryDirectory() as out:
        start = time.perf_counter()
        command = [sys.executable, "-m", "pillow_cwic", "convert", str(source)]
        command += ["--out", out, "--jobs", str(jobs), "-q"]
        subprocess.run(command, check=True)
        return time.perf_counter() - start


def main() -> None:
    """Parse the command line and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=4)
    args = parser.parse_args()

    pictures = sorted(path for path in args.folder.iterdir() if path.is_file())
    with TemporaryDirectory() as folder:
        # More pictures than workers, else the last ones decide.
        for path in pictures:
            for k in range(args.repeat):
                shutil.copy(path, Path(folder) / f"{path.stem}-{k}{path.suffix}")

        # The start is measured by a single picture, and taken off.
        count = len(pictures) * args.repeat
        print("| worker processes | start, s | pictures per second after it |\n|---|---|---|")
        for jobs in args.jobs:
            begin = statistics.median(seconds(pictures[0], jobs) for _ in range(args.runs))
            rates = [(count - 1) / (seconds(Path(folder), jobs) - begin) for _ in range(args.runs)]
            print(f"| {jobs} | {begin:.1f} | {statistics.median(rates):.2f} |", flush=True)


if __name__ == "__main__":
    main()
