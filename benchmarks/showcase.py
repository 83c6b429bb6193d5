"""The picture of the README: one crop of a photograph as .cwic, AVIF and JPEG keep it, in files of equal size.

    python benchmarks/showcase.py [--out docs/showcase.webp] [--quality 0.45]

Each format encodes the whole photograph that ships with the package (NASA, public domain). No rival's file has more
bytes than ours: its settings are searched for the largest file within them. The sheet is stored without loss.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import pillow_cwic
from pillow_cwic.tools import rivals

PHOTO = Path(pillow_cwic.__file__).parent / "data" / "astronaut.webp"
CROP = (150, 28, 366, 268)  # left, upper, right, lower: face and shoulder
RIVALS = ("AVIF", "JPEG 4:2:0")
MARGIN, LABEL = 8, 44  # pixels, between panels and below each
PAPER, INK, FAINT = "#fbfaf7", "#1d1d1b", "#6b6a66"


def files(photo: Image.Image, quality: float) -> dict[str, bytes]:
    """Codec -> its file: ours at this quality, each rival's largest that is not larger."""
    ours = pillow_cwic.encode(np.asarray(photo), quality=quality)
    encoded = {"pillow-cwic": ours}
    for name, search in rivals.available(RIVALS).items():
        data = search(photo, len(ours))
        if data is None:
            raise SystemExit(f"{name} has no file of at most {len(ours)} bytes: raise --quality")
        encoded[name] = data
    return encoded


def sheet(photo: Image.Image, encoded: dict[str, bytes]) -> Image.Image:
    """The crop of the original and of what each file decodes to, in a row, labelled with codec and bytes."""
    panels = [("Original", f"{photo.width} x {photo.height} pixels", photo)]
    for name, data in encoded.items():
        with Image.open(BytesIO(data)) as image:
            panels.append((name, f"{len(data):,} bytes", image.convert("RGB")))

    width, height = CROP[2] - CROP[0], CROP[3] - CROP[1]
    paper = Image.new("RGB", (MARGIN + len(panels) * (width + MARGIN), height + 2 * MARGIN + LABEL), PAPER)
    draw = ImageDraw.Draw(paper)
    for index, (name, size, picture) in enumerate(panels):
        x = MARGIN + index * (width + MARGIN)
        paper.paste(picture.crop(CROP), (x, MARGIN))
        draw.text((x, MARGIN + height + 4), name, INK, font=ImageFont.load_default(16))
        draw.text((x, MARGIN + height + 25), size, FAINT, font=ImageFont.load_default(14))
    return paper


def main() -> None:
    """Parse the command line, write the sheet, print each file's size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/showcase.webp"))
    parser.add_argument("--quality", type=float, default=0.45)
    args = parser.parse_args()

    with Image.open(PHOTO) as image:
        photo = image.convert("RGB")
    encoded = files(photo, args.quality)
    sheet(photo, encoded).save(args.out, lossless=True, method=6)

    for name, data in encoded.items():
        print(f"{name}: {len(data):,} bytes, {8 * len(data) / (photo.width * photo.height):.3f} bpp")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
