"""What `effort` buys and what it takes: size, error and seconds of real files.

    python benchmarks/effort.py [PICTURE ...] [--quality-index 20 45] [--effort 0 2] [--model NAME]

Without pictures: a page of small text, drawn here, which no photograph prepares a network for.
Prints one line per effort, means over the pictures; seconds are of encoding, in a warm process.
"""

import argparse
import time

import numpy as np
from PIL import Image, ImageDraw

import pillow_cwic
from pillow_cwic.metrics import bits_per_pixel
from pillow_cwic.metrics.pictures import psnr, ssim

LINE = "The quick brown fox jumps over the lazy dog {}. Pack my box with five dozen liquor jugs."


def page() -> np.ndarray:
    """Black text on white, uint8 [384,512,3], in Pillow's own font."""
    image = Image.new("RGB", (512, 384), "white")
    draw = ImageDraw.Draw(image)
    for line in range(24):
        draw.text((8, 8 + 15 * line), LINE.format(line), fill="black")
    return np.asarray(image)


def measure(
    pixels: np.ndarray, quality: float, effort: int, model: str | None
) -> tuple[float, float, float, float]:
    """One picture uint8 [H,W,3]: bpp, PSNR in dB, SSIM, seconds of encoding."""
    start = time.perf_counter()
    data = pillow_cwic.encode(pixels, quality=quality, effort=effort, model=model)
    seconds = time.perf_counter() - start
    decoded = pillow_cwic.decode(data)
    rate = bits_per_pixel(len(data), pixels.shape[1], pixels.shape[0])
    return rate, psnr(pixels, decoded), ssim(pixels, decoded), seconds


def main() -> None:
    """Parse the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="*", metavar="PICTURE")
    parser.add_argument("--quality-index", type=int, nargs="+", default=[20, 45])
    parser.add_argument("--effort", type=int, nargs="+", default=[0, 2, 5, 10, 20, 40])
    parser.add_argument("--model", help="by name; default: the default model")
    args = parser.parse_args()

    # The first file of a process loads the model: it is not timed.
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in args.pictures] or [page()]
    last = pillow_cwic.model_info(args.model).quality_count - 1
    pillow_cwic.encode(pictures[0], effort=1, model=args.model)

    print("| quality index | effort | bpp | PSNR, dB | SSIM | seconds |\n|---|---|---|---|---|---|")
    for index in args.quality_index:
        for effort in args.effort:
            rows = [measure(pixels, index / last, effort, args.model) for pixels in pictures]
            rate, decibels, similarity, seconds = np.mean(rows, 0)
            print(
                f"| {index} | {effort} | {rate:.4f} | {decibels:.2f} | {similarity:.4f} "
                f"| {seconds:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
