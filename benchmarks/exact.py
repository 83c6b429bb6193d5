"""Exact blocks on pictures of screens: bytes beside AVIF at 45 dB and lossless WebP; decoding time.

    python benchmarks/exact.py PICTURE ... [--quality .5]

AVIF is 4:4:4 at speed 6, the smallest file of at least 45 dB; WebP is lossless, method 6 and
quality 100. Prints a markdown table, a row per picture, then the median and worst quotients. An
exact block with a wrong pixel is an error.
"""

import argparse
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

import pillow_cwic
from pillow_cwic.exact.layer import ExactLayer, of_pixels
from pillow_cwic.format import container
from pillow_cwic.format.grid import code_grid
from pillow_cwic.metrics.pictures import psnr

WANTED_DB = 45.0


def file_of(image: Image.Image, format_name: str, **options: object) -> bytes:
    """The picture as Pillow writes it."""
    file = BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def smallest_avif(
    image: Image.Image, is_good: Callable[[np.ndarray], bool]
) -> tuple[int, np.ndarray | None]:
    """Bytes and pixels of the smallest AVIF that is good, by bisection; 0 and None if none is."""
    low, high = 0, 100
    size_bytes, best = 0, None
    while low <= high:
        middle = (low + high) // 2
        data = file_of(image, "AVIF", quality=middle, subsampling="4:4:4", speed=6)
        shown = np.asarray(Image.open(BytesIO(data)).convert("RGB"))
        if is_good(shown):
            size_bytes, best = len(data), shown
            high = middle - 1
        else:
            low = middle + 1
    return size_bytes, best


def measure(path: Path, quality: float) -> tuple[float, float]:
    """Print a picture's row; its bytes in shares of AVIF's and of WebP's."""
    image = Image.open(path).convert("RGB")
    pixels = np.asarray(image)
    begin = time.perf_counter()
    data = pillow_cwic.encode(pixels, quality=quality)
    encoding = time.perf_counter() - begin
    begin = time.perf_counter()
    shown = pillow_cwic.decode(data)
    decoding = time.perf_counter() - begin

    parsed = container.read(data)
    exact = ExactLayer(parsed).mask(code_grid(*parsed.header.size))
    seen = of_pixels(exact, pixels.shape[:2])
    if not np.array_equal(shown[seen], pixels[seen]):
        raise SystemExit(f"{path}: wrong pixels in exact blocks")

    avif, _ = smallest_avif(image, lambda shown: psnr(pixels, shown) >= WANTED_DB)
    webp = len(file_of(image, "WEBP", lossless=True, method=6, quality=100))
    quotients = len(data) / avif, len(data) / webp
    decibels = "exact" if exact.all() else f"{psnr(pixels, shown):.1f}"
    print(
        f"| {path.stem} | {exact.mean():.2f} | {decibels} | {len(data)} | {avif} | {webp} "
        f"| {quotients[0]:.2f} | {quotients[1]:.2f} | {encoding:.1f} | {decoding:.2f} |",
        flush=True,
    )
    return quotients


def main() -> None:
    """Measure all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path, metavar="PICTURE")
    parser.add_argument("--quality", type=float, default=0.5)
    args = parser.parse_args()
    pillow_cwic.decode(pillow_cwic.encode(np.zeros((16, 16, 3), np.uint8)))  # loads the model
    print("| picture | exact blocks | dB | bytes | AVIF at 45 dB | WebP | of AVIF | of WebP "
          "| encoding, s | decoding, s |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    quotients = [measure(path, args.quality) for path in args.pictures]
    of_avif, of_webp = zip(*quotients, strict=True)
    print(f"\nof AVIF: median {median(of_avif):.2f}; of WebP: worst {max(of_webp):.2f}")


if __name__ == "__main__":
    main()
