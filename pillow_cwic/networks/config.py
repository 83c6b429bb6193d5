"""The shape of a model: everything that must be known besides its weights to build and run it.

Stored as JSON in the weights file's metadata. Invariant: a configuration that constructs without
error describes networks that can be built. It knows no layers and no tensors.
"""

import json
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

Index = TypeVar("Index", float, "NDArray[np.floating[Any]]", "Tensor")

MOST_LEVELS = 16
MOST_QUALITIES = 64
LONGEST_LADDER = 63
WIDEST = 4096  # channels of any layer
MOST_BLOCKS = 256  # in a trunk
LARGEST_LAMBDA = 1e6


@dataclass(frozen=True)
class ModelConfig:
    """A codec with integer codes from the successive binarizer at 1/16 resolution."""

    kept_planes: tuple[int, ...]
    """Channels of codes kept at each importance level; the last is their number n, a multiple of
    16. The number of levels L is a power of two: the importance map is coded as a binary tree."""
    quality_count: int
    """Quality indices; index 0 has the lowest rate."""
    encoder_channels: tuple[int, int, int]
    """Trunk widths of the encoder at 1/4, 1/8 and 1/16 resolution."""
    encoder_blocks: tuple[int, int, int]
    """Residual blocks there."""
    decoder_channels: tuple[int, int, int]
    """Trunk widths of the decoder, likewise."""
    decoder_blocks: tuple[int, int, int]
    """Residual blocks there."""
    outer_side: int
    """Side, 1 or 3, of the convolutions next to codes and pixels: the decoder's first and last, and
    the encoder's to the codes."""
    importance_channels: int
    """Width of the importance-map branch."""
    context_features: int
    """Width of the codes' entropy network."""
    context_layers: int
    """Pairs of a depthwise and a pointwise layer in each of its steps: 1 or 2."""
    map_features: int
    """Features of the importance map in the codes' entropy network."""
    map_channels: int
    """Width of the importance map's entropy network."""
    ladder: int
    """Decisions "more than j?" of a code before it escapes to an Exp-Golomb code; 0: one
    threshold."""
    lambda_min: float
    """Weight of the distortion at quality index 0 ..."""
    lambda_max: float
    """... and at the highest; log-linear between."""
    ms_ssim_weight: tuple[float, ...]
    """Share w of MS-SSIM in the distortion from quality index 0 to the highest, at equal distances
    and linear between."""
    ssim_weight: tuple[float, ...]
    """Share v of SSIM likewise; squared errors have the rest."""

    def __post_init__(self) -> None:
        """Refuse what cannot be built, naming the field."""
        self._check_counts()
        self._check_kept_planes()
        self._check_qualities()
        self._check_widths()
        self._check_similarities()
        self._check_ladder()

    def _check_counts(self) -> None:
        # A float or a bool from JSON or TOML would pass for a width until the first array is made.
        for field in fields(self):
            if field.type is int:
                value = getattr(self, field.name)
                least = 0 if field.name == "ladder" else 1
                if type(value) is not int or not least <= value <= WIDEST:
                    raise ValueError(
                        f"{field.name} must be a whole number from {least} to {WIDEST}, "
                        f"found {value!r:.60}"
                    )

    def _check_kept_planes(self) -> None:
        # Levels are coded as paths in a binary tree, and each must keep more than the one below.
        kept = self.kept_planes
        if any(type(count) is not int or count > WIDEST for count in kept):
            raise ValueError(
                f"kept_planes must be whole numbers up to {WIDEST}, found {kept!s:.60}"
            )
        power_of_two = len(kept) >= 2 and len(kept) & (len(kept) - 1) == 0
        if not power_of_two or kept[0] < 0 or list(kept) != sorted(set(kept)):
            raise ValueError(
                "kept_planes must be a strictly increasing list of 2, 4, 8 or 16 counts, "
                f"found {kept}"
            )
        if len(kept) > MOST_LEVELS:
            raise ValueError(
                f"kept_planes has {len(kept)} levels; the importance map is limited to "
                f"{MOST_LEVELS}"
            )
        # The order of coding divides the channels by 16.
        if self.channels % 16:
            raise ValueError(
                f"the last of kept_planes must be a multiple of 16, found {self.channels}"
            )

    def _check_qualities(self) -> None:
        # A file has one byte for the index, and lambda grows by a constant factor from 0 to last.
        if not 1 <= self.quality_count <= MOST_QUALITIES:
            raise ValueError(f"quality_count must be 1..64, found {self.quality_count}")
        if not 0 < self.lambda_min <= self.lambda_max <= LARGEST_LAMBDA:
            raise ValueError(
                f"lambda_min, lambda_max must satisfy 0 < {self.lambda_min!r:.60} <= "
                f"{self.lambda_max!r:.60} <= {LARGEST_LAMBDA:g}"
            )

    def _check_widths(self) -> None:
        # A trunk may have no blocks, but all three trunks exist.
        least = {
            "encoder_channels": 1,
            "encoder_blocks": 0,
            "decoder_channels": 1,
            "decoder_blocks": 0,
        }
        for name, start in least.items():
            counts = getattr(self, name)
            most = WIDEST if name.endswith("channels") else MOST_BLOCKS
            if len(counts) != 3 or any(
                type(count) is not int or not start <= count <= most for count in counts
            ):
                raise ValueError(
                    f"{name} must be three whole numbers from {start} to {most}, at 1/4, 1/8 and "
                    f"1/16; found {counts!s:.60}"
                )
        if self.outer_side not in (1, 3) or self.context_layers not in (1, 2):
            raise ValueError(
                "outer_side must be 1 or 3 and context_layers 1 or 2, "
                f"found {self.outer_side} and {self.context_layers}"
            )
        widths = (*self.encoder_channels, *self.decoder_channels, self.importance_channels)
        if any(width % 2 for width in widths):
            raise ValueError("channel counts must be even: residual blocks halve them")

    def _check_similarities(self) -> None:
        # What the two similarities leave to squared errors must not be negative anywhere.
        shares = (self.ms_ssim_weight, self.ssim_weight)
        if len(shares[0]) != len(shares[1]) or not 2 <= len(shares[0]) <= MOST_QUALITIES:
            raise ValueError(
                "ms_ssim_weight and ssim_weight must be equally many numbers, 2 to "
                f"{MOST_QUALITIES}, found {shares!s:.60}"
            )
        if any(type(share) not in (int, float) for weights in shares for share in weights):
            raise ValueError(
                f"ms_ssim_weight and ssim_weight must be numbers, found {shares!s:.60}"
            )
        pairs = list(zip(*shares, strict=True))
        if not all(0 <= w <= 1 and 0 <= v <= 1 and w + v <= 1 for w, v in pairs):
            raise ValueError(
                "ms_ssim_weight and ssim_weight must be at least 0, and at most 1 together, "
                f"found {shares!s:.60}"
            )

    def _check_ladder(self) -> None:
        # The escape's table of probabilities ends there.
        if self.ladder > LONGEST_LADDER:
            raise ValueError(f"ladder must be 0..63, found {self.ladder}")

    @property
    def channels(self) -> int:
        """Number of codes at a position n: channels of integers, or the paper's code planes."""
        return self.kept_planes[-1]

    @property
    def levels(self) -> int:
        """Number of importance levels L."""
        return len(self.kept_planes)

    @property
    def first_level(self) -> tuple[int, ...]:
        """For every channel the lowest importance level that keeps it."""
        return tuple(
            next(level for level, kept in enumerate(self.kept_planes) if kept > channel)
            for channel in range(self.channels)
        )

    @property
    def one_bit(self) -> bool:
        """The paper's binarizer: one threshold, at zero, so that codes are -1 and +1."""
        return self.ladder == 0

    def _position(self, quality_index: Index) -> Index:
        """Where a quality index, or each of many, stands in the range: 0 to 1."""
        return quality_index / max(1, self.quality_count - 1)

    def distortion_weight(self, quality_index: Index) -> Index:
        """Lambda of the loss `rate_bpp + lambda * distortion` at a quality index, or at many."""
        growth = self.lambda_max / self.lambda_min
        weight: Index = self.lambda_min * growth ** self._position(quality_index)
        return weight

    def similarity_weights(self, quality_index: Index) -> tuple[Index, Index]:
        """Shares w and v of MS-SSIM and SSIM in the distortion at a quality index, or at many."""
        position = self._position(quality_index)
        return (
            _interpolated(self.ms_ssim_weight, position),
            _interpolated(self.ssim_weight, position),
        )

    def to_json(self) -> str:
        """The configuration as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from parsed JSON or TOML; ValueError names unknown and missing fields."""
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(names))
        if unknown:
            raise ValueError(f"unknown model configuration field(s): {', '.join(unknown)}")
        missing = [name for name in names if name not in values]
        if missing:
            raise ValueError(f"missing model configuration field(s): {', '.join(missing)}")
        # JSON and TOML know lists only.
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**tuples)


def _interpolated(shares: tuple[float, ...], place: Index) -> Index:
    """Linear between `shares`, which stand at equal distances from 0 to 1."""
    position = place * (len(shares) - 1)
    start: Index = shares[0] + 0 * position
    return sum(
        (
            (after - before) * _between(position - segment)
            for segment, (before, after) in enumerate(pairwise(shares))
        ),
        start,
    )


def _between(x: Index) -> Index:
    """A number or many, cut off at 0 and 1."""
    return min(max(x, 0.0), 1.0) if isinstance(x, float) else x.clip(0, 1)
