"""The exact layer: blocks of 16 x 16 pixels that a file holds without loss, beside the codes.

Where text and graphics are cheaper exactly than well enough, no network speaks for them: a level of
0 in the importance map taken to its end. Knows tiles and pixels, no model.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, UnsupportedError
from ..format.container import Container
from ..format.exact_tile import ExactTile, Mask, unpack_tile
from ..format.grid import GRID, Box, code_grid, covering, tiles_in
from ..format.lossless_picture import LosslessPicture, decode_lossless, encode_lossless
from ..options import Picture
from ..runtime.threads import map_parallel

Pixels = NDArray[np.uint8]


def tile_picture(picture: Picture, box: Box, exact: Mask) -> LosslessPicture | None:
    """The lossless picture of a tile's exact blocks [h,w]; None where there are none.

    box: the tile's place on the code grid.
    """
    if not exact.any():
        return None
    place = box.scale(GRID).intersection(Box(0, 0, *picture.size))
    pixels = picture.colour[place.slices][:, :, : picture.bands]  # [H,W,bands]
    if not exact.all():
        seen = of_pixels(exact, pixels.shape[:2])
        pixels = np.where(seen[:, :, None], pixels, _commonest(pixels[seen]))
    return encode_lossless(pixels)


def of_pixels(exact: Mask, shape: tuple[int, ...]) -> Mask:
    """Positions [h,w] -> their pixels [H,W], as far as they are in the picture."""
    return exact.repeat(GRID, 0).repeat(GRID, 1)[: shape[0], : shape[1]]


def _commonest(pixels: Pixels) -> Pixels:
    """The colour of most of the pixels [m,bands]: what a blank costs least in."""
    packed = np.zeros(len(pixels), np.uint32)
    for band in pixels.T:
        packed = packed << 8 | band
    values, counts = np.unique(packed, return_counts=True)
    colour: Pixels = pixels[np.flatnonzero(packed == values[counts.argmax()])[0]]
    return colour


class ExactLayer:
    """The exact blocks of a file that was read; each tile is taken apart once."""

    def __init__(self, parsed: Container) -> None:
        self.parsed = parsed
        self.header = parsed.header
        self._grid = code_grid(*parsed.header.size)
        self._tiles: dict[int, ExactTile | None] = {}

    def tile(self, index: int, box: Box) -> ExactTile | None:
        """A tile's parts, box: its place on the code grid; None where it was lost."""
        if index not in self._tiles:
            self._tiles[index] = self._read(index, box)
        return self._tiles[index]

    def mask(self, area: Box) -> Mask:
        """Which positions of an area of the code grid are exact, bool [h,w]."""
        exact = np.zeros((area.height, area.width), np.bool_)
        if self.header.has_exact_blocks:
            for index, box in self._tiles_in(area):
                tile = self.tile(index, box)
                if tile is not None:
                    inside = box.intersection(area)
                    exact[inside.within(area).slices] = tile.exact[inside.within(box).slices]
        return exact

    def share(self) -> float:
        """The share of exact blocks in the picture, 0 to 1; lost tiles have none."""
        blocks = covering(Box(0, 0, *self.header.size))
        count = 0
        if self.header.has_exact_blocks:
            for index, box in self._tiles_in(blocks):
                tile = self._read(index, box)
                if tile is not None:
                    inside = box.intersection(blocks)
                    count += int(tile.exact[inside.within(box).slices].sum())
        return count / (blocks.width * blocks.height)

    def paste(self, region: Box, out: Pixels) -> None:
        """Put the exact blocks' pixels into `out` [H,W,bands], which shows `region`, in pixels."""
        if self.header.has_exact_blocks:
            map_parallel(
                lambda job: self._paste_tile(*job, region, out),
                self._tiles_in(covering(region)),
            )

    def _paste_tile(self, index: int, box: Box, region: Box, out: Pixels) -> None:
        tile = self.tile(index, box)
        area = box.intersection(covering(region))
        if tile is None or tile.picture is None or not tile.exact[area.within(box).slices].any():
            return
        place = box.scale(GRID).intersection(Box(0, 0, *self.header.size))
        try:
            size = (place.width, place.height)
            pixels = decode_lossless(tile.picture, size, self.header.bands)
        except (FormatError, UnsupportedError) as error:
            raise type(error)(f"{self._name(index)}: {error}") from error

        # The positions' pixels, as far as they are in the region.
        seen = place.intersection(region)
        target = out[seen.within(region).slices]
        source = pixels[seen.within(place).slices]
        if tile.all_exact:
            target[...] = source
            return
        exact = of_pixels(tile.exact, pixels.shape[:2])[seen.within(place).slices]
        np.copyto(target, source, where=exact[:, :, None])

    def _tiles_in(self, area: Box) -> list[tuple[int, Box]]:
        return list(tiles_in(area, self._grid, self.header.tile_size))

    def _read(self, index: int, box: Box) -> ExactTile | None:
        payload = self.parsed.tiles[index]
        if payload is None:
            return None
        shape = (box.height, box.width)
        if not self.header.has_exact_blocks:
            return ExactTile(np.zeros(shape, np.bool_), None, payload)
        try:
            tile = unpack_tile(payload, shape)
        except FormatError as error:
            raise FormatError(f"{self._name(index)}: {error}") from error
        if self.header.lossless and not tile.all_exact:
            raise FormatError(
                f"{self._name(index)}: not all blocks are exact, but HEAD says lossless"
            )
        return tile

    def _name(self, index: int) -> str:
        return f"tile {index} of {self.header.tile_count}"
