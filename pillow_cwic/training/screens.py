"""`screens`: pictures of text, interfaces, charts and flat art to train on, drawn with Pillow.

Photographs teach nothing about sharp edges on flat ground. Whoever retrains can draw such pictures
here: fonts are those of the system and matplotlib's own. Invariant: a picture depends on its
number, the seed and the fonts alone. This module knows no networks.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ..runtime.files import write_atomically
from ..tools.recode import recode_picture

Random = np.random.Generator
Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont

SIDE = 768
"""Pixels per side of a picture."""

VOCABULARY = (
    "the of and to in is that for it as was with be by on not he his but at are this have from "
    "which one were all their she has would other about time people into could them than new "
    "some first water between system number under picture window letter report result 2026 17.5 "
    "import return value index width height None True def class while for key data list"
)
WORDS = VOCABULARY.split()


def write_screens(out: Path, count: int, seed: int = 0) -> list[Path]:
    """Draw `count` pictures into a folder as PNG files -> their paths.

    ValueError for a count below 1; OSError where the folder cannot be written.
    """
    if count < 1:
        raise ValueError(f"--count must be 1 or more, found {count}")
    out.mkdir(parents=True, exist_ok=True)
    fonts = find_fonts()
    paths = []
    for number in tqdm(range(count), desc="screens", unit="picture", leave=False, disable=None):
        path = out / f"screen-{number:05}.png"
        write_atomically(path, recode_picture(draw_screen(number, seed, fonts), "PNG"))
        paths.append(path)
    return paths


def find_fonts() -> list[str]:
    """Paths of the fonts that have Latin letters, sorted: the system's and matplotlib's."""
    from matplotlib import font_manager, get_data_path

    own = sorted(map(str, Path(get_data_path()).rglob("DejaVu*.ttf")))
    found = sorted(font_manager.findSystemFonts()) + own
    return [path for path in found if _has_letters(path)] or own


def _has_letters(path: str) -> bool:
    # Symbols and scripts without Latin letters would draw boxes.
    try:
        font = ImageFont.truetype(path, 20)
        masks = {bytes(font.getmask(letter)) for letter in "aeg0"}
    except (OSError, ValueError):
        return False
    return len(masks) == 4


def draw_screen(number: int, seed: int, fonts: Sequence[str]) -> Image.Image:
    """Picture number `number`, RGB, SIDE x SIDE."""
    random = np.random.default_rng((seed, number))
    dark = random.random() < 0.35
    ground = _shade(random, dark)
    image = Image.new("RGB", (SIDE, SIDE), ground)
    brush = Brush(ImageDraw.Draw(image), random, fonts, dark)
    kinds: tuple[Callable[[Brush], None], ...] = (page, interface, chart, art)
    kinds[random.integers(len(kinds))](brush)
    return image


class Brush:
    """What all kinds of pictures are drawn with."""

    def __init__(
        self, draw: ImageDraw.ImageDraw, random: Random, fonts: Sequence[str], dark: bool
    ) -> None:
        self.draw = draw
        self.random = random
        self.fonts = fonts
        self.dark = dark

    def font(self, least: int, most: int) -> Font:
        """A font of a random size in pixels."""
        path = self.fonts[int(self.random.integers(len(self.fonts)))]
        return ImageFont.truetype(path, int(self.random.integers(least, most)))

    def ink(self) -> Colour:
        """A colour that is read on the ground."""
        return _shade(self.random, not self.dark)

    def accent(self) -> Colour:
        """Any colour."""
        red, green, blue = self.random.integers(0, 256, 3).tolist()
        return red, green, blue

    def words(self, least: int, most: int) -> str:
        """So many random words, sometimes capitalised."""
        picked = self.random.choice(WORDS, self.random.integers(least, most)).tolist()
        return " ".join(word.title() if self.random.random() < 0.15 else word for word in picked)

    def box(self, least: int, most: int) -> tuple[int, int, int, int]:
        """A random rectangle with sides in that range, partly outside at times."""
        left, top = self.random.integers(-20, SIDE - least, 2).tolist()
        width, height = self.random.integers(least, most, 2).tolist()
        return left, top, left + width, top + height


def page(brush: Brush) -> None:
    """Columns of text with headings."""
    columns = int(brush.random.integers(1, 4))
    width = SIDE // columns
    for column in range(columns):
        font = brush.font(9, 26)
        ink = brush.ink()
        left = column * width + 12
        top = int(brush.random.integers(0, 40))
        while top < SIDE:
            if brush.random.random() < 0.08:
                heading = brush.font(24, 48)
                brush.draw.text(
                    (left, top), brush.words(1, 4)[: width // 14], brush.accent(), heading
                )
                top += int(heading.size * 1.5)
            line = brush.words(3, 20)
            while line and font.getlength(line) > width - 24:
                line = line.rpartition(" ")[0]
            brush.draw.text((left, top), line, ink, font)
            top += int(font.size * 1.35)


def interface(brush: Brush) -> None:
    """Panels, buttons, fields and lists."""
    for _ in range(int(brush.random.integers(3, 9))):
        box = brush.box(120, 500)
        brush.draw.rounded_rectangle(
            box, int(brush.random.integers(0, 14)), _shade(brush.random, brush.dark), brush.accent()
        )
        font = brush.font(10, 20)
        ink = brush.ink()
        for row in range(int(brush.random.integers(2, 12))):
            top = box[1] + 10 + row * int(font.size * 1.9)
            if top > box[3] - font.size:
                break
            brush.draw.ellipse(
                (box[0] + 10, top, box[0] + 10 + font.size, top + font.size), brush.accent()
            )
            brush.draw.text((box[0] + 18 + font.size, top), brush.words(1, 5), ink, font)
        corner = (box[2] - 90, box[3] - 34, box[2] - 10, box[3] - 8)
        if corner[0] > box[0] and corner[1] > box[1]:
            brush.draw.rounded_rectangle(corner, 5, brush.accent())
            brush.draw.text(
                (corner[0] + 8, corner[1] + 5), brush.words(1, 2), ink, brush.font(10, 15)
            )


def chart(brush: Brush) -> None:
    """Axes, grid, lines or bars, labels."""
    ink = brush.ink()
    font = brush.font(9, 18)
    for step in range(60, SIDE, 70):
        brush.draw.line((60, step, SIDE, step), _shade(brush.random, brush.dark, 40))
        brush.draw.text((8, step - 8), f"{brush.random.normal(0, 100):.1f}", ink, font)
        brush.draw.text((step, SIDE - 24), brush.words(1, 2), ink, font)
    brush.draw.line((60, 0, 60, SIDE - 30, SIDE, SIDE - 30), ink, 2)
    for _ in range(int(brush.random.integers(1, 6))):
        colour = brush.accent()
        heights = SIDE / 2 + np.cumsum(brush.random.normal(0, 30, 40))
        if brush.random.random() < 0.3:
            for number, height in enumerate(heights[::2].tolist()):
                left = 70 + number * 34
                brush.draw.rectangle((left, min(height, SIDE - 31), left + 20, SIDE - 31), colour)
        else:
            points = list(zip(np.linspace(60, SIDE, 40).tolist(), heights.tolist(), strict=True))
            brush.draw.line(points, colour, int(brush.random.integers(1, 5)))


def art(brush: Brush) -> None:
    """Flat shapes, some with outlines, some words."""
    for _ in range(int(brush.random.integers(5, 40))):
        box = brush.box(10, 300)
        outline = brush.ink() if brush.random.random() < 0.4 else None
        shape = brush.random.integers(4)
        if shape == 0:
            brush.draw.ellipse(box, brush.accent(), outline)
        elif shape == 1:
            brush.draw.rectangle(box, brush.accent(), outline)
        elif shape == 2:
            brush.draw.polygon(
                [(box[0], box[3]), (box[2], box[3]), (box[2], box[1])], brush.accent(), outline
            )
        else:
            brush.draw.text(box[:2], brush.words(1, 3), brush.accent(), brush.font(12, 120))


def _shade(random: Random, dark: bool, spread: int = 60) -> Colour:
    """A colour near black or near white; often without any tint."""
    level = int(random.integers(0, spread))
    tint = random.integers(0, 20, 3) if random.random() < 0.4 else np.zeros(3, int)
    red, green, blue = (np.clip(level + tint, 0, 255) if dark else 255 - level - tint).tolist()
    return red, green, blue
