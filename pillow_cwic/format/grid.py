"""Where tiles and windows lie: rectangles on the picture and on the code grid. No pixels, no torch.

Tiles divide the file: each is coded on its own. Windows divide the work of the CNNs: each is
computed with a halo as wide as the network's receptive field, so that the seams between windows do
not show.

         halo                       ┌──────────────┐
      ┌───────┬────────────┐        │ ┌──────────┐ │   core: what this window contributes
      │ window│ core       │        │ │   core   │ │   window: core + halo, cut off at the
      └───────┴────────────┘        │ └──────────┘ │   picture's border, where the network pads
      picture's border              └──────────────┘   with zeros as it does for a whole picture
"""

from collections.abc import Iterator
from typing import NamedTuple

GRID = 16
"""Pixels per code position along each axis: codes and importance map are at 1/16 resolution."""

MIN_POSITIONS = 3
"""Smallest side of the code grid: tiny pictures are extended to 48 pixels."""


class Box(NamedTuple):
    """A rectangle, right and lower edge excluded, as in Pillow."""

    left: int
    upper: int
    right: int
    lower: int

    @property
    def width(self) -> int:
        """Horizontal extent."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Vertical extent."""
        return self.lower - self.upper

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of an array [h,w]."""
        return slice(self.upper, self.lower), slice(self.left, self.right)

    def grow(self, margin: int, bounds: "Box") -> "Box":
        """The box with `margin` more on every side, cut off at `bounds`."""
        return Box(
            max(self.left - margin, bounds.left),
            max(self.upper - margin, bounds.upper),
            min(self.right + margin, bounds.right),
            min(self.lower + margin, bounds.lower),
        )

    def intersection(self, other: "Box") -> "Box":
        """What lies in both; they must meet."""
        return self.grow(0, other)

    def within(self, outer: "Box") -> "Box":
        """The same box in coordinates that start at `outer`'s upper left corner."""
        return self.shift(-outer.left, -outer.upper)

    def shift(self, x: int, y: int) -> "Box":
        """The box moved by (x, y)."""
        return Box(self.left + x, self.upper + y, self.right + x, self.lower + y)

    def scale(self, factor: int) -> "Box":
        """The box on a grid `factor` times as fine."""
        return Box(*(edge * factor for edge in self))

    def meets(self, other: "Box") -> bool:
        """Whether the two share any area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.upper < other.lower
            and other.upper < self.lower
        )


def code_grid(width: int, height: int) -> Box:
    """The code positions of a picture: one for every 16 x 16 pixels, the last partly outside.

    At least MIN_POSITIONS on each side: with fewer, the networks see little but their own zero
    padding.
    """
    return Box(0, 0, max(-(-width // GRID), MIN_POSITIONS), max(-(-height // GRID), MIN_POSITIONS))


def covering(region: Box) -> Box:
    """The code positions that a region of pixels touches."""
    return Box(
        region.left // GRID,
        region.upper // GRID,
        -(-region.right // GRID),
        -(-region.lower // GRID),
    )


def tile_columns(width: int, tile_size: int) -> int:
    """How many tiles lie side by side in a picture so many pixels wide.

    The last may be narrower.
    """
    return -(-width // tile_size)


def tile_rows(height: int, tile_size: int) -> int:
    """How many rows of tiles a picture so many pixels high has; the last may be lower."""
    return tile_columns(height, tile_size)


def tiles(width: int, height: int, tile_size: int) -> list[Box]:
    """The tiles of a picture in file order (row-major), as boxes on the code grid."""
    return divide(code_grid(width, height), tile_size // GRID)


def tiles_in(area: Box, grid: Box, tile_size: int) -> Iterator[tuple[int, Box]]:
    """Number and place of every tile of a code grid that lies in an area of it, or partly so."""
    size = tile_size // GRID
    columns = -(-grid.width // size)
    for row in range(area.upper // size, -(-area.lower // size)):
        for column in range(area.left // size, -(-area.right // size)):
            tile = Box(column, row, column + 1, row + 1).scale(size)
            yield row * columns + column, tile.intersection(grid)


def divide(area: Box, width: int, height: int | None = None) -> list[Box]:
    """Boxes of at most this width and height (default: the width) that cover `area`, row-major."""
    return [
        Box(x, y, min(x + width, area.right), min(y + (height or width), area.lower))
        for y in range(area.upper, area.lower, height or width)
        for x in range(area.left, area.right, width)
    ]
