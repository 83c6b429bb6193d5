"""Several processes that train one model.

`torchrun --nproc-per-node N -m pillow_cwic.training train ...` starts them. Each process ("rank")
has its own share of the pictures and its own random numbers. Started without torchrun, there is one
rank and nothing to do.

Invariant: DistributedDataParallel averages the gradients, so the weights stay equal everywhere.
This module knows tensors and modules, neither what is trained nor how.
"""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among the others."""

    rank: int = 0
    count: int = 1
    local: int = 0  # among those on this machine: which GPU

    @property
    def first(self) -> bool:
        """True for the process that writes files and shows progress."""
        return self.rank == 0

    def share(self, items: list[T]) -> list[T]:
        """This rank's part of a list."""
        return items[self.rank :: self.count]

    def agree(self, value: T) -> T:
        """The first rank's value, everywhere."""
        if self.count == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box)
        agreed: T = box[0]
        return agreed

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in order."""
        if self.count == 1:
            return [value]
        box: list[Any] = [None] * self.count
        dist.all_gather_object(box, value)
        return box

    def send(self, tensors: list[Tensor], source: int) -> None:
        """Copy tensors from the rank `source` to all others, in one message."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.broadcast(flat, source)
        if self.rank != source:
            sizes = [tensor.numel() for tensor in tensors]
            for tensor, piece in zip(tensors, torch.split(flat, sizes), strict=True):
                tensor.copy_(piece.view(tensor.shape))

    def wrap(self, module: nn.Module, unused: bool) -> nn.Module:
        """Average gradients over the ranks; `unused`: some parameters take no part in the loss."""
        if self.count == 1 or not any(p.requires_grad for p in module.parameters()):
            return module
        return DistributedDataParallel(
            module,
            find_unused_parameters=unused,
            gradient_as_bucket_view=True,  # gradients are not copied
        )


ALONE = Ranks()


@contextmanager
def process_group(device: str | None) -> Iterator[tuple[Ranks, str | None]]:
    """Join the group that torchrun's environment describes -> this rank and its device name."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(), device
        return

    # One process per GPU, where there are GPUs.
    ranks = Ranks(
        int(os.environ["RANK"]),
        int(os.environ["WORLD_SIZE"]),
        int(os.environ.get("LOCAL_RANK", "0")),
    )
    on_gpu = (device or "auto").split(":")[0] != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(ranks.local)

    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield ranks, f"cuda:{ranks.local}" if on_gpu else "cpu"
    finally:
        # Wrappers of modules are cycles that hold the group: if its threads still ran while Python
        # ends, a process could abort ("terminate called without an active exception").
        gc.collect()
        dist.destroy_process_group()
