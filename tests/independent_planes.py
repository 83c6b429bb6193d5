"""The one-bit family, written from docs/format.md alone: the code planes of a tile, and the decoder CNN.

Each docstring names the section it follows. Imports nothing from the package.
"""

from __future__ import annotations

import numpy as np
from independent_entropy import ONE, Integers, Tile, everywhere, neighbours, square
from independent_network import Floats, Network, shuffled

QUINCUNX = [(dy, dx) for dy, dx in square(2) if (dy + dx) % 2]  # the 12 neighbours of section 5, "The code planes"


class PlanesTile(Tile):
    """One tile's levels and code planes."""

    def _read_codes(self) -> None:
        """Section 5, "The code planes (one-bit family)": group after group, even positions before odd ones."""
        shape, config = self.level.shape, self.model.config
        self.map_features = self._map_features()
        self.features = np.zeros((*shape, config["plane_groups"] * config["group_features"]), np.int64)
        self.kept = np.array(config["kept_planes"])[self.level]
        for group in range(config["plane_groups"]):
            for odd in (0, 1):
                self._read_half(group, odd)

    def _read_half(self, group: int, odd: int) -> None:
        """The codes of one group of planes at the even or the odd positions."""
        m, width = self.planes // self.model.config["plane_groups"], self.model.config["group_features"]
        start, done = group * m, (group + 1) * width
        y, x = everywhere(self.level.shape)
        active = ((y + x) % 2 == odd) & (self.kept[y, x] > start)
        y, x = y[active], x[active]
        order = np.argsort(-self.kept[y, x], kind="stable")
        y, x = y[order], x[order]
        codes = ONE * self.codes
        inputs = [
            neighbours(codes[:, :, start : start + m], (y, x), QUINCUNX) * odd,
            ONE * np.eye(self.levels, dtype=np.int64)[self.level[y, x]],
            self.map_features[y, x],
            *(neighbours(codes[:, :, k : k + m], (y, x), square(1)) for k in range(0, start, m)),
        ]
        name, layer = f"planes.{group}", self.model.layer
        self.features[y, x, done - width : done] = layer(
            f"{name}.hidden", np.concatenate(inputs, 1), (self.quality_index,)
        )
        logits = layer(f"{name}.out", layer(f"{name}.mid", self.features[y, x, :done]))
        for i, j, row in zip(y.tolist(), x.tolist(), logits.tolist(), strict=True):
            for plane in range(start, min(start + m, int(self.kept[i, j]))):
                self.codes[i, j, plane] = 1 if self._bit((i, j, plane), row[plane - start]) else -1


class PlanesDecoder(Network):
    """The decoder CNN of the one-bit family."""

    def picture(self, codes: Integers, quality: Floats) -> Floats:
        """Section 7, "Layers (one-bit family)": codes [rows,columns,n] -> red, green, blue [3,8*rows,8*columns].

        Nominally 0 to 1.
        """
        x = self.convolution("stem", codes.transpose(2, 0, 1).astype(np.float64))
        a = self.modulation("quality_in", x, quality)
        b = self.blocks("eighth", self.config["decoder_eighth_blocks"], a)
        b = self.modulation("quality_out", b, quality)
        linear = shuffled(self.convolution("shortcut_in", a) + self.convolution("shortcut_out", b), 8)
        x = self.blocks("quarter", self.config["decoder_quarter_blocks"], shuffled(self.convolution("up", b), 2))
        return (shuffled(self.convolution("out", x), 4) + linear) / 2 + 1 / 2
