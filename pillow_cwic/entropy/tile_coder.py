"""The convolutional entropy coder in exact integers (paper, section 3.4.

Docs/format.md, section 5).

Gives P(bit = 1) for every decision of the importance map and of the kept codes, and walks over them
in the order that a decoder can follow. The same walk writes and reads: the bit coder it is given
decides which. Two machines that hold the same weights file get the same probabilities, bit for bit:
all arithmetic is on integers (`integer_layer`), tables are stored as integers, and products run in
float64 where torch was told to lower float32 precision.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from ..networks.config import ModelConfig
from ..runtime.threads import beside
from .code_coder import CodeCoder
from .integer_layer import (
    LOGIT_MAX,
    IntegerWeights,
)
from .map_coder import LogitCoder, MapCoder
from .range_coder import BitCoder, RangeReader, RangeWriter


class TileCoder:
    """Codes and importance levels of a tile <-> its range-coded bytes."""

    def __init__(
        self, tensors: Mapping[str, Tensor], config: ModelConfig, dtype: torch.dtype = torch.float32
    ) -> None:
        """WeightsError where a tensor is missing, misshapen or out of range, or sums could leave exact arithmetic."""
        weights = IntegerWeights(tensors, dtype)
        self.config = config
        self.map = MapCoder(weights, config)
        self.codes = CodeCoder(weights, config)
        self.bounds = weights.bounds
        table = weights.table("probability", torch.uint16, (2 * LOGIT_MAX + 1,), (32, 65504))
        self.probability = table.numpy().astype(np.float64) / 65536

    def encode(
        self, codes: Tensor, level: Tensor, quality_index: int, remainders: Tensor | None = None
    ) -> bytes:
        """codes int16 [h,w,n], level [h,w] -> the tile's stream.

        With remainders int8 [h,w,n], what rounding left, codes may be exchanged for cheaper
        neighbours (`Ladder.choose`).
        """
        first, second, q = RangeWriter(), RangeWriter(), level.long()
        shape = (level.shape[0], level.shape[1])
        # The writer knows the map already: both walks at once, where the reader must take one after
        # the other.
        finish_map = beside(
            lambda: self.map.walk(LogitCoder(first, self.probability), shape, quality_index, q)
        )
        flat = codes.reshape(-1, self.config.channels)
        left = None if remainders is None else remainders.reshape(flat.shape)
        self.codes.walk(second, q, quality_index, flat, left)
        finish_map()
        first.append(second)
        return first.to_bytes()

    def chosen_codes(
        self, codes: Tensor, level: Tensor, quality_index: int, remainders: Tensor
    ) -> Tensor:
        """The codes int16 [h,w,n] that `encode` would write with `remainders`; nothing is coded."""
        flat = codes.reshape(-1, self.config.channels)
        return self.codes.walk(
            RangeWriter(), level.long(), quality_index, flat, remainders.reshape(flat.shape)
        )

    def decode(
        self, stream: bytes, shape: tuple[int, int], quality_index: int
    ) -> tuple[Tensor, Tensor]:
        """A tile's stream -> codes [h,w,n] as in `encode`, level uint8 [h,w].

        FormatError where no encoder wrote it.
        """
        reader = RangeReader(stream)
        codes, level = self.walk(reader, shape, quality_index)
        reader.finish()
        return codes, level

    def decode_level(self, stream: bytes, shape: tuple[int, int], quality_index: int) -> Tensor:
        """Only the importance levels of a tile's stream, uint8 [h,w]: they come first."""
        code = LogitCoder(RangeReader(stream), self.probability)
        return self.map.walk(code, shape, quality_index, None).to(torch.uint8)

    def walk(
        self,
        bit_coder: BitCoder,
        shape: tuple[int, int],
        quality_index: int,
        codes: Tensor | None = None,
        level: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Visit every bit of a tile of shape [h,w] in coding order.

        Returns codes and level as `decode` does.
        """
        code = LogitCoder(bit_coder, self.probability)
        q = self.map.walk(code, shape, quality_index, None if level is None else level.long())
        flat = None if codes is None else codes.reshape(-1, self.config.channels)
        return self.codes.walk(bit_coder, q, quality_index, flat), q.to(torch.uint8)

    def distributions(
        self, codes: Tensor, level: Tensor, quality_index: int
    ) -> tuple[Tensor, Tensor]:
        """What a decoder expects of each code, as `CodeCoder.distributions` has it."""
        return self.codes.distributions(codes, level, quality_index)

    @property
    def prices(self) -> np.ndarray:
        """Bits of a code by scale index and distance to the mean, as `Ladder.prices` has it."""
        return self.codes.ladder.prices
