"""What the worst valid files cost: seconds and peak memory of reading each in a fresh process.

    python benchmarks/worst.py [--megapixels 4] [--only NAME ...] [--threads 1 2 8 32]

The files are valid, with checksums that fit, and written to cost a reader as much as they can.
Prints a markdown table; memory is the process's peak, and that less the pixels asked for and the
file, which is in memory. --threads: as on machines with so many processor cores, one after another.
"""

import argparse
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import pillow_cwic
from pillow_cwic.format import container
from pillow_cwic.format.quality_map import BLOCK
from pillow_cwic.runtime import threads
from pillow_cwic.runtime.machine import available_cores
from pillow_cwic.weights import models

Region = tuple[int, int, int, int]
PIXEL = (0, 0, 1, 1)
FARTHEST = 2000  # a code far past the ladder: the longest escape


def tile_stream(positions: tuple[int, int], dense: bool) -> bytes:
    """A tile's stream: every code there and far from what is expected, or no code at all."""
    model = models.load(None, "cpu")
    chance = np.random.default_rng(1)
    level = np.full(positions, model.config.levels - 1 if dense else 0, np.uint8)
    codes = chance.choice([-FARTHEST, FARTHEST], (*positions, model.config.channels))
    codes = (codes * dense).astype(np.int16)
    return model.entropy.encode(codes, level, 0)


def grey_png(width: int, height: int) -> bytes:
    """A PNG file of one grey level, made row by row."""
    packer = zlib.compressobj(9)
    row = b"\x00" + b"\x80" * width
    data = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", data),
        (b"IEND", b""),
    ]
    framed = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def picture(
    width: int, height: int, tile_size: int = 1024, *, dense: bool = False, planes: str = ""
) -> bytes:
    """A file whose tiles are all alike; planes: "alpha", "map" or both."""
    header = container.Header(
        width,
        height,
        bands=3,
        alpha="alpha" in planes,
        quality_index=0,
        model_id=models.find(None).id,
        tile_size=tile_size,
        has_quality_map="map" in planes,
    )
    across, down = (max(3, -(-min(side, tile_size) // 16)) for side in header.size)
    stream = tile_stream((down, across), dense)
    blocks = (-(-width // BLOCK), -(-height // BLOCK))
    return container.write(
        header,
        [stream] * header.tile_count,
        grey_png(width, height) if header.alpha else None,
        quality_map=grey_png(*blocks) if header.has_quality_map else None,
    )


def cases(megapixels: float) -> dict[str, tuple[Callable[[], bytes], Region | None]]:
    """Name -> how the file is made, and the region asked for."""
    side = max(1, round((megapixels * 1e6) ** 0.5 / 1024)) * 1024
    length = max(1, round(megapixels * 1e6 / 48 / 1024)) * 1024
    return {
        "a plain file": (lambda: picture(side, side), None),
        "every code escapes": (lambda: picture(side, side, dense=True), None),
        "every code escapes, tiles of 64": (lambda: picture(side, side, 64, dense=True), None),
        "no codes, tiles of 64": (lambda: picture(side, side, 64), None),
        "alpha and quality map": (lambda: picture(side, side, planes="alpha map"), None),
        "one pixel high": (lambda: picture(length, 1), None),
        "a pixel of 12000 x 12000": (lambda: picture(12288, 12288), PIXEL),
        "a pixel of dense tiles": (
            lambda: picture(4096, 4096, dense=True),
            (2047, 2047, 2049, 2049),
        ),
        "a pixel of a map of 2^17 x 2^17": (
            lambda: picture(1 << 17, 1 << 17, planes="map"),
            PIXEL,
        ),
        "a pixel of 12000 x 12000 with alpha": (
            lambda: picture(12288, 12288, planes="alpha"),
            (12287, 12287, 12288, 12288),
        ),
        "a row of 2^15 pixels": (lambda: picture(1 << 15, 1024), (0, 500, 1 << 15, 501)),
        "a column of 2^15 pixels": (lambda: picture(1024, 1 << 15), (500, 0, 501, 1 << 15)),
        "a megapixel of dense tiles": (
            lambda: picture(3072, 3072, dense=True),
            (1024, 1024, 2048, 2048),
        ),
        "a megapixel of 12000 x 12000": (
            lambda: picture(12288, 12288),
            (5500, 5500, 6524, 6524),
        ),
    }


def measure(name: str, file: Path, region: Region | None, cores: int) -> None:
    """Decode in this process and print one line of the table."""
    threads.available_cores = lambda: cores  # type: ignore[attr-defined]
    start = time.perf_counter()
    data = file.read_bytes()
    try:
        pixel_bytes = pillow_cwic.decode(data, device="cpu", region=region).nbytes
    except pillow_cwic.CwicError as error:
        pixel_bytes = 0
        name += f" ({type(error).__name__})"
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text()  # of this process alone, without its parent's
    peak_mb = int(status.split("VmHWM:")[1].split()[0]) * 1.024e-3
    own_mb = peak_mb - (pixel_bytes + len(data)) / 1e6
    megapixels = pixel_bytes / 3e6
    columns = (f"{len(data) / 1e3:.0f}", f"{megapixels:.2f}", f"{cores}", f"{seconds:.1f}")
    print(f"| {name} | {' | '.join(columns)} | {peak_mb:.0f} | {own_mb:.0f} |", flush=True)


def main() -> None:
    """Run each part in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=4)
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--threads", nargs="+", type=int, default=[available_cores()])
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    known = cases(args.megapixels)

    # In a process of its own, which is called with --part.
    if args.part:
        measure(args.part, args.file, known[args.part][1], args.cores)
        return

    # The parent, which makes the files.
    print("| file | kB | megapixels | threads | seconds | peak, MB | without pixels and file, MB |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with TemporaryDirectory() as folder:
        for name in args.only or known:
            file = Path(folder) / "worst.cwic"
            file.write_bytes(known[name][0]())
            for cores in args.threads:
                part = ["--part", name, "--file", str(file), "--cores", str(cores)]
                subprocess.run([sys.executable, __file__, *sys.argv[1:], *part], check=True)


if __name__ == "__main__":
    main()
