"""Muon: momentum whose matrices are orthogonalized before they are applied; AdamW for everything that is no matrix.

Keller Jordan et al., 2024 (kellerjordan.github.io/posts/muon); the factor that lets both share one learning rate is
from Liu et al., "Muon is Scalable for LLM Training", 2025 (arXiv 2502.16982).
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration that drives all singular values to about 1."""

ITERATIONS = 5

RMS = 0.2
"""Root mean square of an update over the learning rate: about AdamW's."""


def matrices(module: nn.Module) -> list[Tensor]:
    """Weights of convolutions that mix channels, but for those beside pixels: `stem`, `out` and shortcuts."""
    ends = ("stem", "out", "shortcut")
    return [
        layer.weight
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and min(layer.weight.shape[:2]) >= 16
        and not name.rpartition(".")[2].startswith(ends)
    ]


def orthogonalized(batch: Tensor) -> Tensor:
    """Matrices [b,m,n] -> the nearest with orthonormal rows or columns, roughly: singular values in 0.7..1.2."""
    tall = batch.shape[1] > batch.shape[2]
    x = batch.transpose(1, 2) if tall else batch
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        square = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """The matrices among the parameters; one learning rate tensor, a step that is not finite changes nothing.

    As a fused optimizer it reads the attribute `found_inf`, 0 or 1, where it is set.
    """

    found_inf: Tensor | None = None

    def __init__(self, parameters: Iterable[Tensor], lr: Tensor, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Apply the gradients; matrices of one shape go through the iteration together."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[tuple(parameter.shape)].append(parameter)
            for alike in by_shape.values():
                self._step(alike, group)

    def _step(self, alike: list[Tensor], group: dict[str, Any]) -> None:
        finite = 1.0 if self.found_inf is None else 1 - self.found_inf
        momenta = []
        for parameter in alike:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momenta.append(state["momentum"])
        gradients = torch.stack([p.grad.flatten(1) for p in alike if p.grad is not None]).nan_to_num(0, 0, 0)  # [b,m,n]
        before = torch.stack([momentum.flatten(1) for momentum in momenta])
        after = before.lerp(gradients, (1 - group["momentum"]) * finite)
        rows, columns = after.shape[1:]
        update = orthogonalized(gradients.lerp(after, group["momentum"]))  # Nesterov's look ahead
        update = update * (-group["lr"] * finite * RMS * max(rows, columns) ** 0.5)
        keep = 1 - group["lr"] * finite * group["weight_decay"]
        for k, (parameter, momentum) in enumerate(zip(alike, momenta, strict=True)):
            momentum.copy_(after[k].view_as(parameter))
            parameter.mul_(keep).add_(update[k].view_as(parameter))


class MuonWithAdamW:
    """Muon for a module's matrices, AdamW for the rest, behind one optimizer's face."""

    def __init__(self, module: nn.Module, lr: Tensor, momentum: float, **adamw: Any) -> None:
        chosen = matrices(module)
        known = {id(weight) for weight in chosen}
        rest = [parameter for parameter in module.parameters() if id(parameter) not in known]
        self.muon = Muon(chosen, lr, momentum, adamw["weight_decay"])
        self.adamw = torch.optim.AdamW(rest, lr=lr, **adamw)
        self.found_inf: Tensor | None = None

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both."""
        return self.muon.param_groups + self.adamw.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Of both."""
        self.muon.zero_grad(set_to_none)
        self.adamw.zero_grad(set_to_none)

    def step(self) -> None:
        """Both; as with a fused optimizer, nothing changes where `found_inf` is 1."""
        self.muon.found_inf = self.found_inf
        self.adamw.found_inf = self.found_inf  # type: ignore[attr-defined]
        self.muon.step()
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Both states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both states."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])
