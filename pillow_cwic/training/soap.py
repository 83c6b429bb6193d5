"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner, for convolutions; AdamW for the rest.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam", 2024 (arXiv 2409.11321). A weight
[m,n,kh,kw] counts as a tensor of up to three modes (m, n and kh*kw). Every mode has a basis of its
own, so the bases stay as small as the channels are few. Invariant: all ranks hold the same weights
after a step, whoever took it. This module knows weights and gradients, no codec.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .ranks import ALONE, Ranks

BETA = 0.95
"""Decay of the momentum, of the second moments, and of the modes' statistics, as in the paper."""

LOOK = 4
"""Steps between two looks at the modes' statistics: they change slowly and cost much."""

TURN = 20
"""Steps between two turns of the bases, one power iteration and one QR decomposition per mode."""

LARGEST = 512
"""Modes above this size keep the plain basis: turning them would cost more than all the rest."""

Basis = Tensor | None
"""The orthonormal basis [d,d] of a mode; None: the plain one."""


def preconditioned_weights(module: nn.Module) -> list[Tensor]:
    """Weights of convolutions that mix channels.

    Not those of the linear shortcuts, which take small steps of AdamW.
    """
    return [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and min(layer.weight.shape[:2]) >= 16
        and not name.rpartition(".")[2].startswith("shortcut")
    ]


def modes(weight: Tensor) -> Tensor:
    """[m,n,kh,kw] -> [m,n,kh*kw], or [m,n] of a 1x1 convolution."""
    return weight.flatten(2).squeeze(2).contiguous()


def rotate(x: Tensor, bases: list[Basis]) -> Tensor:
    """A tensor of as many modes as there are bases, each mode of size d times its basis [d,d]."""
    # Each product moves its mode to the end: after all of them, the order is the first again.
    for basis in bases:
        x = x.movedim(0, -1) if basis is None else torch.tensordot(x, basis, dims=([0], [0]))
    return x


def rotate_back(x: Tensor, bases: list[Basis]) -> Tensor:
    """The inverse of `rotate`, for orthonormal bases."""
    return rotate(x, [None if basis is None else basis.t() for basis in bases])


def statistics(gradient: Tensor) -> list[Basis]:
    """Of every mode of size d, the products of its slices with each other: [d,d]."""
    return [
        slices @ slices.t() if len(slices) <= LARGEST else None
        for mode in range(gradient.dim())
        for slices in [gradient.movedim(mode, 0).flatten(1)]
    ]


def first_basis(statistic: Basis) -> Basis:
    """Eigenvectors [d,d] of the first gradient's statistic, largest first.

    In float64, and lifted off zero: one gradient may well have a rank below d, and float32 then
    does not converge.
    """
    if statistic is None:
        return None
    scaled = statistic.double() / statistic.double().diagonal().mean().clamp(min=1e-30)
    lifted = scaled + 1e-9 * torch.eye(len(scaled), dtype=torch.float64, device=scaled.device)
    return torch.linalg.eigh(lifted)[1].flip(1).to(statistic.dtype).contiguous()


def step_cost(weight: Tensor) -> int:
    """About how much a step of a weight costs: every element meets a basis of every mode."""
    return weight.numel() * sum(size for size in modes(weight).shape if size <= LARGEST)


def assign_owners(costs: list[int], ranks: int) -> list[int]:
    """Which of so many ranks takes each item, so that all have about the same sum.

    The most costly first, to the rank that has least.
    """
    sums = [0] * ranks
    owner = [0] * len(costs)
    for item in sorted(range(len(costs)), key=lambda item: -costs[item]):
        owner[item] = sums.index(min(sums))
        sums[owner[item]] += costs[item]
    return owner


class Soap(torch.optim.Optimizer):
    """Convolution weights; one learning rate tensor.

    A weight's first gradient only chooses its bases. Of several ranks, each takes the steps of its
    share of the weights and keeps their states; then they exchange the weights. As with a fused
    optimizer, a step changes nothing where the attribute `found_inf` is 1. It asks the device for
    that and counts in Python, so it cannot be captured in a CUDA graph.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: Tensor,
        eps: float,
        weight_decay: float,
        ranks: Ranks = ALONE,
    ) -> None:
        weights = list(parameters)
        super().__init__(weights, {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        self.ranks = ranks
        owners = assign_owners([step_cost(weight) for weight in weights], ranks.count)
        self.owner = dict(zip(weights, owners, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Of all weights: every rank must ask for it together."""
        gathered = super().state_dict()
        shares = self.ranks.gather(gathered["state"])
        gathered["state"] = {key: state for share in shares for key, state in share.items()}
        return gathered

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """This rank's share of the state of all weights, whatever number of ranks it is from."""
        super().load_state_dict(state_dict)
        for weight in [weight for weight in self.state if self.owner[weight] != self.ranks.rank]:
            del self.state[weight]

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Apply the gradients."""
        if self.found_inf is not None and bool(self.found_inf):
            return
        for group in self.param_groups:
            learning = [weight for weight in group["params"] if weight.grad is not None]
            for weight in learning:
                if self.owner[weight] == self.ranks.rank:
                    self._step(weight, group)
            for rank in range(self.ranks.count):
                self.ranks.send([weight for weight in learning if self.owner[weight] == rank], rank)

    def _step(self, weight: Tensor, group: dict[str, Any]) -> None:
        # The first gradient only chooses the bases.
        gradient = modes(weight.grad)  # type: ignore[arg-type]
        state = self.state[weight]
        if not state:
            state["count"] = 0
            state["statistics"] = statistics(gradient)
            state["bases"] = [first_basis(statistic) for statistic in state["statistics"]]
            state["momentum"] = torch.zeros_like(gradient)  # in the bases
            state["square"] = torch.zeros_like(gradient)  # in the bases
            return

        # Adam, inside the bases.
        state["count"] += 1
        count = state["count"]
        bases = state["bases"]
        correction = 1 - BETA**count
        inside = rotate(gradient, bases)
        state["momentum"].lerp_(inside, 1 - BETA)
        state["square"].lerp_(inside * inside, 1 - BETA)
        step = (
            state["momentum"] / correction / ((state["square"] / correction).sqrt() + group["eps"])
        )
        # With one decay for both, the root of the squares is never below the momentum. But a turn
        # moves the momentum and not the squares: where there was next to no gradient, as of dead
        # units, steps of thousands came of that.
        step.clamp_(-1, 1)

        # Weight decay and the step, outside the bases.
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(rotate_back(step, bases).view_as(weight) * group["lr"])

        # The bases follow the statistics, both at their own pace.
        if count % LOOK == 0:
            for statistic, newest in zip(state["statistics"], statistics(gradient), strict=True):
                if statistic is not None:
                    statistic.lerp_(newest, 1 - BETA**LOOK)
        if count % TURN == 0:
            self._turn(state)

    def _turn(self, state: dict[str, Any]) -> None:
        """One power iteration of every basis.

        The momentum is kept, the squares stay with their directions.
        """
        momentum = rotate_back(state["momentum"], state["bases"])
        pairs = zip(state["statistics"], state["bases"], strict=True)
        for mode, (statistic, basis) in enumerate(pairs):
            if basis is None:
                continue
            reached = statistic @ basis
            # By estimated eigenvalue, for the QR's sake.
            order = (basis * reached).sum(0).argsort(descending=True)
            state["square"] = state["square"].index_select(mode, order)
            state["bases"][mode] = torch.linalg.qr(reached[:, order])[0].contiguous()
        state["momentum"] = rotate(momentum, state["bases"])


class SoapWithAdamW:
    """SOAP for a module's convolutions, AdamW for the rest, behind one optimizer's face."""

    def __init__(self, module: nn.Module, lr: Tensor, ranks: Ranks = ALONE, **adamw: Any) -> None:
        for_soap = preconditioned_weights(module)
        identities = {id(weight) for weight in for_soap}
        for_adamw = [weight for weight in module.parameters() if id(weight) not in identities]
        self.soap = Soap(for_soap, lr, adamw["eps"], adamw["weight_decay"], ranks)
        self.adamw = torch.optim.AdamW(for_adamw, lr=lr, **adamw)
        self.found_inf: Tensor | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both."""
        return self.soap.param_groups + self.adamw.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of both."""
        self.soap.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def step(self) -> None:
        """Both; as with a fused optimizer, nothing changes where `found_inf` is 1."""
        self.soap.found_inf = self.found_inf
        self.adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.soap.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states; every rank must ask together."""
        return {"soap": self.soap.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both states."""
        self.soap.load_state_dict(state["soap"])
        self.adamw.load_state_dict(state["adamw"])
