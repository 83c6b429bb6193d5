"""The search for the quality index that `bpp` or `max_bytes` asks for.

Knows files by their size alone: how one is made is the caller's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

from ..options import EncodeOptions, quality_index
from ..runtime.warn import warn_caller

EncodeAt: TypeAlias = Callable[[int, int], bytes]
"""(quality index, effort) -> the file."""


OUT_OF_REACH = 1.05
"""Beyond the model's range by so much, a number of bits per pixel is not met."""


def file_at_rate(
    encode_at: EncodeAt, options: EncodeOptions, quality_count: int, pixels: int
) -> bytes:
    """The file that the options ask for, of a picture of so many pixels.

    ValueError where not even the smallest file is within `max_bytes`.
    """
    if options.quality is not None:
        return encode_at(quality_index(options.quality, quality_count), options.effort)
    plain = functools.cache(lambda index: encode_at(index, 0))
    if options.max_bytes is not None:
        return _largest_within(plain, encode_at, options, quality_count)
    wanted_bytes = (options.bpp or 0) * pixels / 8
    file = _nearest(plain, encode_at, options, (quality_count, wanted_bytes))
    _warn_out_of_reach(plain, quality_count, wanted_bytes, file, pixels)
    return file


def _warn_out_of_reach(
    plain: Callable[[int], bytes], quality_count: int, wanted_bytes: float, file: bytes, pixels: int
) -> None:
    """Say so where the model's range ends before so many bytes."""
    if wanted_bytes * OUT_OF_REACH < len(file):
        end = 0
    elif wanted_bytes > len(file) * OUT_OF_REACH:
        end = quality_count - 1
    else:
        return
    reach = len(plain(end))  # costs nothing where the range ends: it was tried then
    if (reach <= wanted_bytes) if end == 0 else (wanted_bytes <= reach):
        return
    word = "least" if end == 0 else "most"
    wanted, limit, found = (8 * size / pixels for size in (wanted_bytes, reach, len(file)))
    warn_caller(
        f"bpp = {wanted:.4g} is out of reach: the model makes {limit:.3g} bits per pixel of this "
        f"picture at {word}; the file has {found:.3g}"
    )


def _largest_within(
    plain: Callable[[int], bytes], encode_at: EncodeAt, options: EncodeOptions, quality_count: int
) -> bytes:
    """The best file of at most `max_bytes`.

    Effort makes files larger, by a tenth at the lowest rates: the limit is lowered by as much and
    met again, until a refined file fits or the index stays.
    """
    limit = options.max_bytes or 0

    def best_index(target: float) -> int | None:
        sizes = _sizes_around(plain, quality_count, target)
        return next((index for index, size in sizes.items() if size <= target), None)

    first = best_index(limit)
    if first is None:
        raise ValueError(
            f"max_bytes = {limit}: the smallest file of this picture has {len(plain(0))} bytes"
        )
    index: int | None = first
    tried = set[int]()
    while options.effort and index is not None and index not in tried:
        tried.add(index)
        refined = encode_at(index, options.effort)
        if len(refined) <= limit:
            return refined
        index = best_index(limit * len(plain(index)) / len(refined))
    return plain(first)


def _nearest(
    plain: Callable[[int], bytes],
    encode_at: EncodeAt,
    options: EncodeOptions,
    wanted: tuple[int, float],
) -> bytes:
    """The file nearest to a number of bytes; wanted: the number of qualities, and the bytes.

    With effort, as `_largest_within` has it.
    """
    quality_count, target = wanted

    def nearest_index(aim: float) -> int:
        sizes = _sizes_around(plain, quality_count, aim)
        return min(sizes, key=lambda index: abs(sizes[index] - aim))

    index = nearest_index(target)
    if not options.effort:
        return plain(index)
    refined = dict[int, bytes]()
    while index not in refined:
        refined[index] = encode_at(index, options.effort)
        index = nearest_index(target * len(plain(index)) / len(refined[index]))
    return min(refined.values(), key=lambda file: abs(len(file) - target))


def _sizes_around(
    plain: Callable[[int], bytes], quality_count: int, target: float
) -> dict[int, int]:
    """Sizes of the two files around `target` bytes, by quality index; one where the range ends.

    Bisection over the quality indices, taking sizes to grow with the index. Files without effort:
    a tenth of the work.
    """
    low, high = -1, quality_count  # sizes at low <= target < sizes at high
    while high - low > 1:
        middle = (low + high) // 2
        if len(plain(middle)) <= target:
            low = middle
        else:
            high = middle
    return {index: len(plain(index)) for index in (low, high) if 0 <= index < quality_count}
