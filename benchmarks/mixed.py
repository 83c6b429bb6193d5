"""Pages with photographs between text: bytes beside AVIF of photographs as good, and beside WebP.

    python benchmarks/mixed.py PAGE ... [--photographs PHOTO ...] [--quality .5 .8]

Beside each page lies a .json with the places of its photographs, `photographs_xywh`. Of each PHOTO
a page is drawn, with DejaVu Sans around it. AVIF is 4:4:4 at speed 6, the smallest file whose
photographs have our PSNR; "text, dB" is that of the rest of it. WebP is lossless, method 6 and
quality 100. Prints a markdown table.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from exact import file_of, smallest_avif
from PIL import Image, ImageDraw, ImageFont, ImageOps

import pillow_cwic
from pillow_cwic.exact.layer import ExactLayer
from pillow_cwic.format import container
from pillow_cwic.format.grid import code_grid, tiles
from pillow_cwic.metrics.pictures import psnr

Place = tuple[int, int, int, int]
Page = tuple[str, Image.Image, list[Place]]

PLACE = (370, 210, 490, 340)
"""Of the photograph on a page that is drawn: x, y, width, height."""

SENTENCE = (
    "A page of {} has a picture and words around it; no. {} of {} is as good as any other, "
    "and says nothing that was not said before. "
)


def drawn(photo: Path) -> Page:
    """A page of 896 x 768 pixels around a photograph."""
    font = ImageFont.truetype("DejaVuSans.ttf", 15)
    page = Image.new("RGB", (896, 768), "white")
    draw = ImageDraw.Draw(page)
    words = iter("".join(SENTENCE.format(photo.stem, n, n * n) for n in range(60)).split())
    for y in range(30, 740, 23):
        beside = PLACE[1] - 25 < y < PLACE[1] + PLACE[3]
        line = ""
        while font.getlength(line) < (PLACE[0] - 100 if beside else 760):
            line += next(words) + " "
        draw.text((36, y), line, "#222222", font)
    x, y, width, height = PLACE
    with Image.open(photo) as image:
        page.paste(ImageOps.fit(image.convert("RGB"), (width, height)), (x, y))
    return photo.stem, page, [PLACE]


def pages(args: argparse.Namespace) -> Iterator[Page]:
    """The pages that were given, and those that are drawn."""
    for path in args.pages:
        places = json.loads(path.with_suffix(".json").read_text())["photographs_xywh"]
        yield path.stem, Image.open(path).convert("RGB"), places
    yield from map(drawn, args.photographs)


def avif_as_good(image: Image.Image, seen: np.ndarray, wanted: float) -> tuple[int, float]:
    """The smallest AVIF file with that PSNR where `seen` [H,W]: its bytes, the PSNR elsewhere."""
    pixels = np.asarray(image)
    size_bytes, shown = smallest_avif(
        image, lambda shown: psnr(pixels[seen][None], shown[seen][None]) >= wanted
    )
    return size_bytes, 0.0 if shown is None else psnr(pixels[~seen][None], shown[~seen][None])


def measure(page: Page, quality: float) -> None:
    """Print a page's row."""
    name, image, places = page
    pixels = np.asarray(image)
    seen = np.zeros(pixels.shape[:2], np.bool_)
    for x, y, width, height in places:
        seen[y : y + height, x : x + width] = True
    data = pillow_cwic.encode(pixels, quality=quality)
    decibels = psnr(pixels[seen][None], pillow_cwic.decode(data)[seen][None])

    # Of our bytes, those of the lossless pictures.
    parsed = container.read(data)
    layer = ExactLayer(parsed)
    layer.mask(code_grid(*image.size))
    boxes = tiles(*image.size, parsed.header.tile_size)
    parts = [layer.tile(index, box) for index, box in enumerate(boxes)]
    lossless = sum(len(part.picture.data) for part in parts if part and part.picture)

    avif, text = avif_as_good(image, seen, decibels)
    of_avif = f"{len(data) / avif:.2f}" if avif else "none is as good"
    webp = len(file_of(image, "WEBP", lossless=True, method=6, quality=100))
    print(
        f"| {name} | {quality} | {decibels:.1f} | {len(data)} | {lossless} | {avif} | {text:.1f} "
        f"| {webp} | {of_avif} | {len(data) / webp:.2f} |",
        flush=True,
    )


def main() -> None:
    """Measure all pages."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE")
    parser.add_argument("--photographs", nargs="*", type=Path, default=[], metavar="PHOTO")
    parser.add_argument("--quality", nargs="+", type=float, default=[0.4, 0.6])
    args = parser.parse_args()
    print("| page | quality | photographs, dB | bytes | lossless part | AVIF | its text, dB | WebP "
          "| of AVIF | of WebP |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|---|")
    for page in pages(args):
        for quality in args.quality:
            measure(page, quality)


if __name__ == "__main__":
    main()
