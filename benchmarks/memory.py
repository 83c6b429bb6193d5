"""Peak memory of one large picture, each step in a fresh process; or growth over many sizes.

    python benchmarks/memory.py PICTURE [--megapixels 100] [--quality .4] [--effort 0]
        [--model NAME]
    python benchmarks/memory.py PICTURE --sizes 1000

PICTURE is repeated until it is large enough. Prints the seconds, the peak resident memory, and that
less the pixels. With --sizes, one process saves and opens so many crops, each of another size, and
prints what it holds on the way: a server's memory stays where it is after the first 25.
"""

import argparse
import resource
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

import pillow_cwic


def repeated_picture(picture: str, megapixels: float) -> np.ndarray:
    """The picture repeated to a square of about that many megapixels, uint8 [H,W,3]."""
    pixels = np.array(Image.open(picture).convert("RGB"))
    side = round((megapixels * 1e6) ** 0.5)
    rows = np.resize(np.arange(pixels.shape[0]), side)
    return pixels[rows][:, np.resize(np.arange(pixels.shape[1]), side)]


def report(what: str, seconds: float, pixel_bytes: int) -> None:
    """Print one line of the table."""
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    own_bytes = peak_bytes - pixel_bytes
    print(
        f"| {what} | {seconds:.1f} | {peak_bytes / 1e9:.2f} | {own_bytes / 1e9:.2f} |", flush=True
    )


def encode(args: argparse.Namespace, file: Path) -> None:
    """Encode in this process."""
    pixels = repeated_picture(args.picture, args.megapixels)
    start = time.perf_counter()
    data = pillow_cwic.encode(
        pixels, quality=args.quality, effort=args.effort, device="cpu", model=args.model
    )
    file.write_bytes(data)
    seconds = time.perf_counter() - start
    report(f"encode {pixels.shape[1]} x {pixels.shape[0]}", seconds, pixels.nbytes)


def decode(args: argparse.Namespace, file: Path) -> None:
    """Decode in this process, whole or a region of it."""
    Image.MAX_IMAGE_PIXELS = None
    start = time.perf_counter()
    left, upper = (min(3000, side - 512) for side in pillow_cwic.read_header(file).size)
    region = (left, upper, left + 512, upper + 512) if args.part == "region" else None
    pixels = pillow_cwic.decode(file.read_bytes(), device="cpu", region=region)
    size = f"{pixels.shape[1]} x {pixels.shape[0]}"
    name = f"decode a region of {size}" if region else f"decode {size}"
    report(name, time.perf_counter() - start, pixels.nbytes)


def resident_bytes() -> int:
    """What this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def many_sizes(picture: str, count: int, quality: float, model: str | None) -> None:
    """Save and open crops of so many sizes in this process."""
    photo = Image.open(picture).convert("RGB")
    random = np.random.default_rng(1)
    sizes = random.permutation(sorted({tuple(s) for s in random.integers(17, 257, (2 * count, 2))}))
    first = None
    print("| sizes | resident memory, MB | more than after 25, MB |")
    print("|---|---|---|")
    for number, (width, height) in enumerate(sizes[:count].tolist(), 1):
        file = BytesIO()
        photo.resize((width, height)).save(file, "CWIC", quality=quality, model=model)
        Image.open(file).load()
        if number == 25:
            first = resident_bytes()
        if first is not None and (number in (25, 50, 100, 200) or number % 250 == 0):
            grown = (resident_bytes() - first) / 1e6
            print(f"| {number} | {resident_bytes() / 1e6:.0f} | {grown:.0f} |", flush=True)


def main() -> None:
    """Run each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--megapixels", type=float, default=100)
    parser.add_argument("--quality", type=float, default=0.4)
    parser.add_argument("--effort", type=int, default=0)
    parser.add_argument("--model", help="by name; default: the default model")
    parser.add_argument("--sizes", type=int, help="save and open so many, in one process")
    parser.add_argument("--part", choices=["encode", "decode", "region"], help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()

    if args.sizes:
        many_sizes(args.picture, args.sizes, args.quality, args.model)
        return

    # In a process of its own, which is called with --part.
    if args.part:
        (encode if args.part == "encode" else decode)(args, args.file)
        return

    # The parent, which only prints the heading.
    print("| what | seconds | peak memory, GB | less the pixels, GB |")
    print("|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        for part in ("encode", "decode", "region"):
            file = str(Path(folder) / "large.cwic")
            command = [sys.executable, __file__, *sys.argv[1:], "--part", part, "--file", file]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
