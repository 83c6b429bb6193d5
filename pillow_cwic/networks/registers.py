"""What the layers pass to one another in NumPy: maps of features, and memory that is used again."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..format.grid import Box

Floats = NDArray[np.float32]

Quality = float | Floats
"""A quality index for the whole map, or one for each code position [h,w]."""


def as_floats(tensor: NDArray[Any]) -> Floats:
    """A tensor of a weights file as layers multiply by it: contiguous float32."""
    return np.ascontiguousarray(tensor, np.float32)


class Register(NamedTuple):
    """A map of features and where it lies."""

    x: Floats  # [h*scale,w*scale,c]
    area: Box  # on the code grid
    scale: int  # positions for one code position, along each axis
    is_given: bool = False  # a caller's, which stays as it is

    def spread(self, area: Box) -> Register:
        """The same in an area that holds its own, with zeros around."""
        if area == self.area:
            return self
        shape = area.height * self.scale, area.width * self.scale, self.x.shape[2]
        x = np.zeros(shape, np.float32)
        x[self.area.within(area).scale(self.scale).slices] = self.x
        return self._replace(x=x, area=area)

    def cropped(self, area: Box) -> Register:
        """The part in an area that it holds."""
        if area == self.area:
            return self
        rows, columns = area.within(self.area).scale(self.scale).slices
        return self._replace(x=self.x[rows, columns], area=area)


class Gate(Protocol):
    """What stands in a block where its ReLUs are; both change their argument in place."""

    def first(self, rows: Floats, top: int) -> None:
        """After the first layer: rows [m,w,c] of the map from `top` on."""

    def second(self, tiled: Floats, top: int) -> None:
        """After the convolution: tiles [4,4,y,x,c] over the map's rows from `top` on."""


class Relu:
    """No more than that: where no gradient is wanted."""

    def first(self, rows: Floats, top: int) -> None:
        """As `Gate`."""
        np.maximum(rows, 0, out=rows)

    def second(self, tiled: Floats, top: int) -> None:
        """As `Gate`."""
        np.maximum(tiled, 0, out=tiled)


class Workspace:
    """Buffers by name, used again as long as they are large enough; and the ReLUs of blocks."""

    def __init__(self) -> None:
        self.gate: Gate = Relu()
        self._buffers: dict[str, Floats] = {}

    def take(self, name: str, *shape: int) -> Floats:
        """A buffer of this shape; what is in it is undefined."""
        count = int(np.prod(shape))
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < count:
            buffer = self._buffers[name] = np.empty(count, np.float32)
        return buffer[:count].reshape(shape)
