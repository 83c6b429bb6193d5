"""A weights file's tensors, checked against what a network expects of them."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import WeightsError

Network = TypeVar("Network", bound=torch.nn.Module)


def built(
    make: Callable[[], Network],
    tensors: Mapping[str, Tensor],
    prefix: str,
    device: torch.device,
) -> Network:
    with torch.device("meta"):
        network = make()
    wanted = {prefix + name: tuple(t.shape) for name, t in network.state_dict().items()}
    for name in tensors:
        if name.startswith(prefix) and name not in wanted:
            raise WeightsError(
                f"weights file has a tensor {name}, which its configuration has no place for"
            )
    state = {
        name.removeprefix(prefix): expected_tensor(
            tensors, name, torch.float16, wanted[name]
        ).float()
        for name in wanted
    }
    network.load_state_dict(state, assign=True)
    network.requires_grad_(False).eval().to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's own types
    return network


def expected_tensor(
    tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> Tensor:
    """One tensor of a weights file.

    WeightsError where it is missing, or has another type or shape.
    """
    found, expected = tensors.get(name), f"expected {dtype} {list(shape)}"
    if found is None:
        raise WeightsError(f"weights file has no tensor {name}, {expected}")
    if found.dtype != dtype or found.shape != shape:
        raise WeightsError(f"{name} is {found.dtype} {list(found.shape)}, {expected}")
    return found
