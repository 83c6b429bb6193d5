"""The decoder CNN, written from docs/format.md alone: section 7.

Each docstring names the part it follows. Imports nothing from the package.
"""

from __future__ import annotations

import math

import numpy as np
from independent_entropy import Integers, Model
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Decoder:
    """The decoder CNN in float64. All maps are [channels,rows,columns]."""

    def __init__(self, model: Model) -> None:
        self.config = model.config
        self.tensors = {
            name.removeprefix("decoder."): values.astype(np.float64)
            for name, values in model.tensors.items()
            if name.startswith("decoder.")
        }

    def convolution(self, name: str, x: Floats) -> Floats:
        """Section 7, "Terms": stride 1, zeros outside the grid."""
        weight, (rows, columns) = self.tensors[f"{name}.weight"], x.shape[1:]
        size = weight.shape[2]
        reach = (size - 1) // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        out = (
            np.zeros((weight.shape[0], rows, columns)) + self.tensors[f"{name}.bias"][:, None, None]
        )
        for u in range(size):
            for v in range(size):
                out += np.tensordot(weight[:, :, u, v], padded[:, u : u + rows, v : v + columns], 1)
        return out

    def blocks(self, name: str, count: int, x: Floats) -> Floats:
        """Section 7, "Terms": residual blocks name.0, name.1, ..."""
        for i in range(count):
            h = np.maximum(self.convolution(f"{name}.{i}.reduce", x), 0)
            h = np.maximum(self.convolution(f"{name}.{i}.conv", h), 0)
            x = x + self.convolution(f"{name}.{i}.expand", h)
        return x

    def modulation(self, name: str, x: Floats, quality: Floats) -> Floats:
        """Section 7, "Terms": scale and shift by the quality index [rows,columns]."""
        t = quality / max(1, self.config["quality_count"] - 1) * 2 - 1
        h = self._dense(f"{name}.hidden", np.stack([t, t**2, t**3]))
        h = h / 2 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        scale, shift = np.split(self._dense(f"{name}.out", h), 2)
        return x * (1 + scale) + shift

    def gain(self, quality: Floats) -> Floats:
        """Section 7, "Layers": each channel's gain at each position [n,rows,columns]."""
        t = quality / max(1, self.config["quality_count"] - 1) * 2 - 1
        return np.exp(
            np.tensordot(self.tensors["gain.coefficients"], np.stack([t**0, t, t**2]), (0, 0))
        )

    def picture(self, codes: Integers, quality: Floats) -> Floats:
        """The same: codes [rows,columns,n] -> R, G, B [3,16*rows,16*columns], nominally 0 to 1."""
        b4, b8, b16 = self.config["decoder_blocks"]
        a = codes.transpose(2, 0, 1) / self.gain(quality)
        x = self.modulation("quality_sixteenth", self.convolution("stem", a), quality)
        x = shuffled(self.convolution("up_eighth", self.blocks("sixteenth", b16, x)), 2)
        b = self.blocks(
            "eighth", b8, self.modulation("quality_eighth", x, np.kron(quality, np.ones((2, 2))))
        )
        x = self.blocks("quarter", b4, shuffled(self.convolution("up", b), 2))
        linear = shuffled(self.convolution("shortcut", a), 16)
        linear_eighth = shuffled(self.convolution("shortcut_eighth", b), 8)
        return (shuffled(self.convolution("out", x), 4) + linear + linear_eighth) / 2 + 1 / 2

    def _dense(self, name: str, x: Floats) -> Floats:
        return (
            np.tensordot(self.tensors[f"{name}.weight"], x, 1)
            + self.tensors[f"{name}.bias"][:, None, None]
        )


def shuffled(x: Floats, r: int) -> Floats:
    """Section 7, "Terms": pixel shuffle by r, [c*r*r,rows,columns] -> [c,rows*r,columns*r]."""
    channels, rows, columns = x.shape[0] // r**2, *x.shape[1:]
    apart = x.reshape(channels, r, r, rows, columns)  # channel, i, j, y, x
    return apart.transpose(0, 3, 1, 4, 2).reshape(channels, rows * r, columns * r)
