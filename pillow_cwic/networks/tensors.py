"""Tensors of a weights file by name, as NumPy arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import WeightsError


def expected_tensor(
    tensors: Mapping[str, NDArray[Any]], name: str, dtype: DTypeLike, shape: tuple[int, ...]
) -> NDArray[Any]:
    """The tensor `name`; WeightsError where it is missing, or has another type or shape."""
    expected = f"expected {np.dtype(dtype)} {list(shape)}"
    tensor = tensors.get(name)
    if tensor is None:
        raise WeightsError(f"weights file has no tensor {name}, {expected}")
    if tensor.dtype != dtype or tensor.shape != shape:
        raise WeightsError(f"{name} is {tensor.dtype} {list(tensor.shape)}, {expected}")
    return tensor


def refuse_unexpected(
    tensors: Mapping[str, NDArray[Any]], prefix: str, expected: Mapping[str, object]
) -> None:
    """WeightsError where a tensor `prefix`NAME has a name that is not expected."""
    for name in tensors:
        if name.startswith(prefix) and name.removeprefix(prefix) not in expected:
            raise WeightsError(
                f"weights file has a tensor {name}, which its configuration has no place for"
            )
