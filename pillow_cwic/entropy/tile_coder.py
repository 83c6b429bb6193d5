"""The convolutional entropy coder of a tile (paper, section 3.4; docs/format.md, section 5).

Gives P(bit = 1) for every decision of the importance map and of the kept codes, and walks over
them in the order that a decoder can follow. The same walk writes and reads: the bit coder it is
given decides which. Two machines that hold the same weights file get the same probabilities, bit
for bit: all arithmetic is on integers (`integer_layer`), and tables are stored as integers.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..networks.config import ModelConfig
from .code_coder import CodeCoder
from .integer_layer import LOGIT_MAX, Dtype, IntegerWeights, exact_dtype
from .map_coder import LogitCoder, MapCoder
from .range_coder import BitCoder, RangeReader, RangeWriter

Codes = NDArray[np.int16]
Levels = NDArray[np.uint8]
Remainders = NDArray[np.int8]


class TileCoder:
    """Codes and importance levels of a tile <-> its range-coded bytes."""

    def __init__(
        self,
        tensors: Mapping[str, NDArray[Any]],
        config: ModelConfig,
        dtype: Dtype | None = None,
    ) -> None:
        """dtype: what integers are held in, by default the smallest that is exact here.

        WeightsError where a tensor is missing, misshapen or out of range, or sums could leave
        exact arithmetic.
        """
        weights = IntegerWeights(tensors, dtype or exact_dtype())
        self.map = MapCoder(weights, config)
        self.codes = CodeCoder(weights, config)
        self.bounds = weights.bounds
        table = weights.table("probability", np.uint16, (2 * LOGIT_MAX + 1,), (32, 65504))
        self.probability = table / 65536

    def encode(
        self,
        codes: Codes,
        level: Levels,
        quality_index: int,
        remainders: Remainders | None = None,
    ) -> bytes:
        """codes [h,w,n], level [h,w] -> the tile's stream.

        With remainders [h,w,n], what rounding left, codes may be exchanged for cheaper neighbours
        (`chosen_codes`).
        """
        writer = RangeWriter()
        self.map.walk(LogitCoder(writer, self.probability), level.shape, quality_index, level)
        if remainders is None:
            self.codes.walk(writer, level, quality_index, codes)
        else:
            self.codes.write_chosen(writer, codes, level, remainders, quality_index)
        return writer.to_bytes()

    def chosen_codes(
        self, codes: Codes, level: Levels, remainders: Remainders, quality_index: int
    ) -> Codes:
        """The codes [h,w,n] that `encode` would write with remainders [h,w,n]; writes nothing."""
        return self.codes.chosen(codes, level, remainders, quality_index)

    def decode(
        self, stream: bytes | memoryview, shape: tuple[int, int], quality_index: int
    ) -> tuple[Codes, Levels]:
        """A tile's stream -> codes [h,w,n], level [h,w]; FormatError where no encoder wrote it."""
        reader = RangeReader(stream)
        codes, level = self.walk(reader, shape, quality_index)
        reader.finish()
        return codes, level

    def work_bytes(self, positions: int, stream_bytes: int) -> int:
        """About what decoding a tile of so many code positions takes, its codes included.

        A long stream has many codes that climb the ladder, and each is held while it does.
        """
        return self.codes.position_bytes * positions + 5 * stream_bytes

    def decode_level(
        self, stream: bytes | memoryview, shape: tuple[int, int], quality_index: int
    ) -> Levels:
        """Only the importance levels of a tile's stream, [h,w]: they come first."""
        coder = LogitCoder(RangeReader(stream), self.probability)
        return self.map.walk(coder, shape, quality_index, None)

    def walk(
        self,
        bit_coder: BitCoder,
        shape: tuple[int, int],
        quality_index: int,
        codes: Codes | None = None,
        level: Levels | None = None,
    ) -> tuple[Codes, Levels]:
        """Visit every bit of a tile of shape [h,w] in coding order; as `decode` returns."""
        coder = LogitCoder(bit_coder, self.probability)
        level = self.map.walk(coder, shape, quality_index, level)
        return self.codes.walk(bit_coder, level, quality_index, codes), level
