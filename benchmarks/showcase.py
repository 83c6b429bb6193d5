"""The picture of the README: one crop of a photograph from files of equal size.

    python benchmarks/showcase.py [--out docs/showcase.webp] [--quality 0.3]

As .cwic, AVIF and JPEG keep it. Each format encodes the whole photograph that ships with the
package (NASA, public domain). No rival's file has more bytes than ours: its settings are searched
for the largest file within them. The sheet is stored without loss.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import pillow_cwic
from pillow_cwic.metrics import bits_per_pixel
from pillow_cwic.tools import rivals
from pillow_cwic.tools.demo import SHIPPED

CROP = (150, 28, 366, 268)  # left, upper, right, lower: face and shoulder
RIVALS = ("avif", "jpeg")

# Pixels: between panels, and below each.
MARGIN = 8
LABEL = 44

# Colours.
PAPER = "#fbfaf7"
INK = "#1d1d1b"
FAINT = "#6b6a66"


def files(photo: Image.Image, quality: float) -> dict[str, bytes]:
    """Codec -> its file: ours at this quality, each rival's largest that is not larger."""
    ours = pillow_cwic.encode(np.asarray(photo), quality=quality)
    encoded = {"pillow-cwic": ours}
    for rival in rivals.available(RIVALS):
        data = rival.largest_within(photo, len(ours))
        if data is None:
            raise SystemExit(
                f"{rival.title} has no file of at most {len(ours)} bytes: raise --quality"
            )
        encoded[rival.title] = data
    return encoded


def sheet(photo: Image.Image, encoded: dict[str, bytes]) -> Image.Image:
    """The crop of the original and of what each file decodes to, in a row, with codec and bytes."""
    panels = [("Original", f"{photo.width} x {photo.height} pixels", photo)]
    for name, data in encoded.items():
        with Image.open(BytesIO(data)) as image:
            panels.append((name, f"{len(data):,} bytes", image.convert("RGB")))

    # Panels of one size, side by side.
    width, height = CROP[2] - CROP[0], CROP[3] - CROP[1]
    size = (MARGIN + len(panels) * (width + MARGIN), height + 2 * MARGIN + LABEL)
    paper = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(paper)
    for index, (name, size_text, picture) in enumerate(panels):
        x = MARGIN + index * (width + MARGIN)
        paper.paste(picture.crop(CROP), (x, MARGIN))
        draw.text((x, MARGIN + height + 4), name, INK, font=ImageFont.load_default(16))
        draw.text((x, MARGIN + height + 25), size_text, FAINT, font=ImageFont.load_default(14))
    return paper


def main() -> None:
    """Parse the command line, write the sheet, print each file's size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/showcase.webp"))
    parser.add_argument("--quality", type=float, default=0.3)
    args = parser.parse_args()

    with Image.open(SHIPPED) as image:
        photo = image.convert("RGB")
    encoded = files(photo, args.quality)
    sheet(photo, encoded).save(args.out, lossless=True, method=6)

    for name, data in encoded.items():
        print(f"{name}: {len(data):,} bytes, {bits_per_pixel(len(data), *photo.size):.3f} bpp")
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
