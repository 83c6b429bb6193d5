"""The shape of a model: everything that must be known besides its weights to build and run it.

Stored as JSON in the weights file's metadata. Invariant: a configuration that constructs without
error describes networks that can be built. It knows no torch and no tensors.
"""

import json
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self, TypeVar, get_origin

if TYPE_CHECKING:
    from torch import Tensor

Index = TypeVar("Index", float, "Tensor")


def between(x: Index) -> Index:
    """A number or a tensor, cut off at 0 and 1."""
    return min(max(x, 0.0), 1.0) if isinstance(x, float) else x.clamp(0, 1)


@dataclass(frozen=True)
class ModelConfig:
    """A codec with integer codes from the successive binarizer, a ladder of one-bit decisions, at 1/16 resolution."""

    kept_planes: tuple[int, ...]
    """Channels of codes kept at each importance level.

    The last is their number n, a multiple of 16. The number of
    levels L is a power of two: the importance map is coded as a binary tree."""
    quality_count: int  # quality indices; index 0 has the lowest rate
    quarter_channels: int  # trunk width at 1/4 resolution
    eighth_channels: int  # trunk width at 1/8 resolution
    sixteenth_channels: int  # trunk width at 1/16 resolution
    encoder_blocks: tuple[int, int, int]  # residual blocks at 1/4, 1/8 and 1/16
    decoder_blocks: tuple[int, int, int]
    importance_channels: int  # width of the importance-map branch
    context_features: int  # entropy network of the codes: width
    map_features: int  # entropy network of the codes: features of the importance map
    map_channels: int  # entropy network of the importance map: width
    # Decisions "more than j?" of a code before it escapes to an Exp-Golomb code; 0: one threshold.
    ladder: int
    lambda_min: float  # weight of the distortion at quality index 0 ...
    lambda_max: float  # ... and at the highest; log-linear between
    ms_ssim_weight: tuple[
        float, ...
    ]  # w of `distortion` from quality index 0 to the highest, at equal
    ssim_weight: tuple[
        float, ...
    ]  # distances and linear between; v likewise; squared errors: the rest

    def __post_init__(self) -> None:
        """Refuse what cannot be built, naming the field."""
        for field in fields(self):
            value, least = (
                getattr(self, field.name),
                0 if field.name.endswith(("_blocks", "ladder")) else 1,
            )
            if field.type is int and (type(value) is not int or value < least):
                raise ValueError(
                    f"{field.name} must be a whole number from {least} up, found {value!r}"
                )
        kept = self.kept_planes
        if any(type(count) is not int for count in kept):
            raise ValueError(f"kept_planes must be whole numbers, found {kept}")
        if (
            len(kept) < 2
            or len(kept) & (len(kept) - 1)
            or kept[0] < 0
            or list(kept) != sorted(set(kept))
        ):
            raise ValueError(
                "kept_planes must be a strictly increasing list of 2, 4, 8 or 16 counts, found "
                f"{kept}"
            )
        if len(kept) > 16:
            raise ValueError(
                f"kept_planes has {len(kept)} levels; the importance map is limited to 16"
            )
        if not 1 <= self.quality_count <= 64:
            raise ValueError(f"quality_count must be 1..64, found {self.quality_count}")
        if not 0 < self.lambda_min <= self.lambda_max:
            raise ValueError(
                f"lambda_min, lambda_max must satisfy 0 < {self.lambda_min} <= {self.lambda_max}"
            )
        if self.channels % 16:
            raise ValueError(
                f"the last of kept_planes must be a multiple of 16, found {self.channels}"
            )
        widths = (
            self.quarter_channels,
            self.eighth_channels,
            self.sixteenth_channels,
            self.importance_channels,
        )
        if any(width % 2 for width in widths):
            raise ValueError("channel counts must be even: residual blocks halve them")
        for name, counts in (
            ("encoder_blocks", self.encoder_blocks),
            ("decoder_blocks", self.decoder_blocks),
        ):
            if len(counts) != 3 or any(type(count) is not int or count < 0 for count in counts):
                raise ValueError(
                    f"{name} must be three whole numbers from 0 up, at 1/4, 1/8 and 1/16; found "
                    f"{counts}"
                )
        shares = (self.ms_ssim_weight, self.ssim_weight)
        if len(shares[0]) != len(shares[1]) or len(shares[0]) < 2:
            raise ValueError(
                "ms_ssim_weight and ssim_weight must be equally many numbers, 2 or more, found "
                f"{shares}"
            )
        if any(type(share) not in (int, float) for many in shares for share in many):
            raise ValueError(f"ms_ssim_weight and ssim_weight must be numbers, found {shares}")
        if not all(w >= 0 and v >= 0 and w + v <= 1 for w, v in zip(*shares, strict=True)):
            raise ValueError(
                "ms_ssim_weight and ssim_weight must be at least 0, and at most 1 together, "
                f"found {shares}"
            )
        if self.ladder > 63:
            raise ValueError(f"ladder must be 0..63, found {self.ladder}")

    @property
    def channels(self) -> int:
        """Number of codes at a position, n."""
        return self.kept_planes[-1]

    @property
    def levels(self) -> int:
        """Number of importance levels L."""
        return len(self.kept_planes)

    @property
    def first_level(self) -> tuple[int, ...]:
        """For every channel the lowest importance level that keeps it."""
        return tuple(
            next(q for q, kept in enumerate(self.kept_planes) if kept > k)
            for k in range(self.channels)
        )

    def distortion_weight(self, quality_index: Index) -> Index:
        """Lambda of the rate-distortion loss `rate_bpp + lambda * distortion` at a quality index, or at many."""
        position = quality_index / max(1, self.quality_count - 1)
        weight: Index = self.lambda_min * (self.lambda_max / self.lambda_min) ** position
        return weight

    def similarity_weights(self, quality_index: Index) -> tuple[Index, Index]:
        """Shares w and v of MS-SSIM and SSIM in the distortion (`distortion`) at a quality index, or at many."""
        position = quality_index / max(1, self.quality_count - 1) * (len(self.ms_ssim_weight) - 1)
        w, v = (
            sum(
                (
                    (after - before) * between(position - k)
                    for k, (before, after) in enumerate(pairwise(shares))
                ),
                shares[0] + 0 * position,
            )
            for shares in (self.ms_ssim_weight, self.ssim_weight)
        )
        return w, v

    @property
    def one_bit(self) -> bool:
        """The paper's binarizer: one threshold, at zero, so that codes are -1 and +1."""
        return self.ladder == 0

    def to_json(self) -> str:
        """The configuration as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Build from parsed JSON or TOML; ValueError names unknown and missing fields."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"unknown model configuration field(s): {', '.join(unknown)}")
        missing = sorted({f.name for f in fields(cls)} - set(values))
        if missing:
            raise ValueError(f"missing model configuration field(s): {', '.join(missing)}")
        values = dict(values)
        for name in (f.name for f in fields(cls) if get_origin(f.type) is tuple):
            if name in values:
                values[name] = tuple(values[name])
        return cls(**values)
