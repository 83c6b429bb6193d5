"""What the layers pass to one another in NumPy: maps of features, and memory that is used again."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..format.grid import Box

Floats = NDArray[np.float32]


class Register(NamedTuple):
    """A map of features and where it lies."""

    x: Floats  # [h*scale,w*scale,c]
    area: Box  # on the code grid
    scale: int  # positions for one code position, along each axis
    is_given: bool = False  # a caller's, which stays as it is

    def cropped(self, area: Box) -> Register:
        """The part in an area that it holds."""
        if area == self.area:
            return self
        rows, columns = area.within(self.area).scale(self.scale).slices
        return self._replace(x=self.x[rows, columns], area=area)


class Workspace:
    """Buffers by name, used again as long as they are large enough."""

    def __init__(self) -> None:
        self._buffers: dict[str, Floats] = {}

    def take(self, name: str, *shape: int) -> Floats:
        """A buffer of this shape; what is in it is undefined."""
        count = int(np.prod(shape))
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < count:
            buffer = self._buffers[name] = np.empty(count, np.float32)
        return buffer[:count].reshape(shape)
