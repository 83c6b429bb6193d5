"""One training step: draw crops, forward, backward, clip, optimizer, moving average.

Plain, or as one CUDA graph: both run the same `body`. Launched one by one, the many small kernels
of a step wait for Python. Invariant: nothing in `body` waits for the processor. The learning rate
is a tensor, and a step that is not finite is skipped by the fused optimizer's `found_inf` instead
of an `if`. This module knows neither budget nor files.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..networks.config import ModelConfig
from .crops import Source
from .joint_codec import JointCodec
from .losses import Measure, Terms, distances, importance_rate, rate_distortion
from .ranks import ALONE, Ranks
from .recipe import TRAINABLE, OptimizerRecipe, Recipe, Stage
from .soap import SoapWithAdamW

WARM_UP_STEPS = 4
"""Steps before a capture, at learning rate 0.

In them cuDNN chooses its algorithms and the optimizer makes its state.
"""

SELDOM = 0.12
"""Share of the crops whose quality index may be any, where some are drawn more often."""

LINEAR_PACE = 0.03
"""Share of its steps that the linear transforms take.

They start where they belong (`initial`), with weights so small that full steps of AdamW would be
noise.
"""

AVERAGED = 9.0
"""The average reaches over one of this many parts of the run so far, at most."""

SUMS = ("loss", "code_bpp", "map_bpp", "mse", "ms_ssim", "gradient_norm", "finite", "steps")
"""What `Step.sums` adds up over the steps since it was last read."""


def build_optimizer(
    joint: nn.Module, options: OptimizerRecipe, rate: Tensor, ranks: Ranks
) -> torch.optim.Optimizer | SoapWithAdamW:
    """The recipe's optimizer.

    It skips a step where its `found_inf` is 1, without asking the device.
    """
    adamw: dict[str, Any] = {
        "betas": (options.beta1, options.beta2),
        "eps": options.epsilon,
        "weight_decay": options.weight_decay,
        "fused": True,
        "capturable": rate.device.type == "cuda",
    }
    if options.name == "soap":
        return SoapWithAdamW(joint, rate, ranks, **adamw)
    return torch.optim.AdamW(joint.parameters(), lr=rate, **adamw)


def processor_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself; emulated it is fifty times slower.

    False with a PyTorch too old to say (before `torch.cpu.get_capabilities`).
    """
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(present for name, present in capabilities.items() if "bf16" in name)


class Step:
    """The networks under training, their optimizer and moving average, and the step itself."""

    def __init__(
        self, recipe: Recipe, source: Source, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        self.recipe = recipe
        self.source = source
        self.device = device

        # The networks under training, and the average of their weights.
        self.joint = JointCodec(recipe.model).to(device)
        for network in (self.joint.encoder, self.joint.decoder):
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if device.type == "cuda" and recipe.cuda.entropy_bfloat16:
            self.joint.entropy_dtype = torch.bfloat16
        self.joint.rate_trains_encoder = recipe.loss.form == "rate-distortion"
        if device.type == "cuda":
            self.bfloat16 = recipe.cuda.bfloat16
        else:
            self.bfloat16 = recipe.cpu.bfloat16 and processor_has_bfloat16()
        self.forward: nn.Module = self.joint  # or wrapped: several processes
        self.average = copy.deepcopy(self.joint).eval().requires_grad_(False)

        # What the schedule and the optimizer change; the linear transforms take smaller steps.
        self.rate = torch.tensor(0.0, device=device)  # learning rate
        self.taken = torch.tensor(0.0, device=device)  # steps so far
        self.optimizer = build_optimizer(self.joint, recipe.optimizer, self.rate, ranks)
        self.linear: list[Tensor] = []
        if not self.joint.config.one_bit:  # signs have no such start
            self.linear = [
                *self.joint.encoder.convolution("shortcut").parameters(),
                *self.joint.decoder.convolution("shortcut").parameters(),
            ]

        # Sums since they were last read, and what a stage decides: see `begin` and `prepare`.
        self.sums = torch.zeros(len(SUMS), device=device, dtype=torch.float64)
        self.stage = recipe.stages[0]
        self.replay: Callable[[], None] | None = None
        self.loss_function: Callable[..., Terms] = self.loss
        self.measure: Measure = distances

    def begin(self, stage: Stage) -> None:
        """Set what learns and what is minimised in a stage."""
        self.stage = stage
        self.replay = None
        for joint in (self.joint, self.average):
            joint.use_importance = stage.importance
            joint.choose = stage.choose
        self.joint.explore = stage.explore
        for name in TRAINABLE:
            self.joint.get_submodule(name).requires_grad_(name in stage.train)

    def __call__(self) -> None:
        """One step."""
        self.source.advance()
        if self.replay is not None:
            self.replay()
            return
        self.optimizer.zero_grad(set_to_none=True)
        self.body()

    def body(self) -> None:
        """All that a step does on the device."""
        # Loss and gradients, each crop at a quality of its own.
        x = self.source.draw()  # [B,3,crop,crop]
        quality = self.draw_qualities(len(x))
        terms = self.loss_function(x, quality)
        terms.loss.backward()  # type: ignore[no-untyped-call]

        # The optimizer skips a step whose gradients are not finite.
        learning = [p for p in self.joint.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(learning, self.recipe.optimizer.clip_norm, foreach=True)
        finite = torch.isfinite(norm)
        self.optimizer.found_inf = (~finite).float()  # type: ignore[union-attr]
        linear_before = [weight.detach().clone() for weight in self.linear]
        self.optimizer.step()

        # What follows every step: the linear transforms' smaller pace, the average, the sums.
        with torch.no_grad():
            if self.linear:
                torch._foreach_lerp_(self.linear, linear_before, 1 - LINEAR_PACE)
            self.follow()
            self._add(terms, norm, finite)

    def draw_qualities(self, count: int) -> Tensor:
        """Quality indices [count]: any, but mostly below the recipe's `frequent_qualities`."""
        end = self.recipe.model.quality_count
        anywhere = torch.randint(0, end, (count,), device=self.device)
        frequent = self.recipe.data.frequent_qualities
        if not frequent:
            return anywhere
        below = torch.randint(0, frequent, (count,), device=self.device)
        seldom = torch.rand(count, device=self.device) < SELDOM
        return torch.where(seldom, anywhere, below)

    def follow(self) -> None:
        """Move the average towards the weights; early in a run faster than `ema_decay` says.

        It reaches over a tenth of the run at most: an average with weights from before the networks
        took shape is a bad network.
        """
        self.taken += 1
        pace = (AVERAGED / (AVERAGED + self.taken)).clamp(min=1 - self.recipe.optimizer.ema_decay)
        averages: list[Tensor] = list(self.average.parameters())
        change = torch._foreach_sub(list(self.joint.parameters()), averages)
        torch._foreach_mul_(change, pace)
        torch._foreach_add_(averages, change)

    def loss(self, x: Tensor, quality: Tensor) -> Terms:
        """x [B,3,H,W], quality [B] -> the loss and its terms."""
        recipe = self.recipe
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            outcome = self.forward(x, quality)
        if recipe.loss.form == "importance":
            return importance_rate(
                outcome,
                x,
                quality,
                recipe.model,
                recipe.loss,
                stage=self.stage,
                measure=self.measure,
            )
        return rate_distortion(outcome, x, quality, recipe.model, recipe.loss, measure=self.measure)

    def _add(self, terms: Terms, norm: Tensor, finite: Tensor) -> None:
        values = torch.stack([*terms, norm]).double()  # [6]
        values = torch.where(finite, values.nan_to_num(0, 0, 0), 0.0)
        self.sums += torch.cat([values, torch.stack([finite.double(), torch.ones_like(values[0])])])

    def take_sums(self) -> dict[str, float]:
        """Means since the last call, with `steps` and `skipped`; waits for the device.

        They are NaN where no step was finite.
        """
        values = dict(zip(SUMS, self.sums.tolist(), strict=True))
        self.sums.zero_()
        finite = values.pop("finite")
        steps = values.pop("steps")
        means = {name: value / finite if finite else math.nan for name, value in values.items()}
        return means | {"steps": steps, "skipped": steps - finite}

    def unread(self) -> tuple[int, int]:
        """Steps, and skipped steps, since the sums were last taken; leaves them."""
        sums = dict(zip(SUMS, self.sums.tolist(), strict=True))
        return round(sums["steps"]), round(sums["steps"] - sums["finite"])

    def prepare(self, say: Callable[[str], None]) -> None:
        """Compile, and on CUDA capture, the step if the recipe asks and the machine can.

        Falls back aloud.
        """
        if self.device.type == "cpu" and self.recipe.cpu.compile and self.measure is distances:
            self.compile(say)
        options = self.recipe.cuda
        if self.device.type != "cuda" or self.forward is not self.joint or not options.capture:
            return
        if isinstance(self.optimizer, SoapWithAdamW):
            say("the step runs plainly, kernel by kernel: SOAP cannot be captured in a CUDA graph")
            return
        for compiled in (True, False) if options.compile else (False,):
            if self._captured(compiled, say):
                return
        self.loss_function = self.loss
        self.replay = None
        say("the step runs plainly, kernel by kernel: expect it to be two to three times slower")

    def compile(self, say: Callable[[str], None]) -> None:
        """On a processor, fuse what works element by element: a step's memory traffic, mostly.

        The layers gain nothing by it and would take minutes. Says so where there is no compiler.
        """
        compiled = torch.compile(distances, dynamic=False)

        def measure(
            picture: Tensor, x: Tensor, quality: Tensor, config: ModelConfig
        ) -> tuple[Tensor, Tensor, Tensor]:
            # Channels last would be compiled anew, for minutes, and run at a third of the speed.
            return compiled(picture.contiguous(), x.contiguous(), quality, config)

        bits_of = torch.compile(self.joint.bits_of, dynamic=True)
        chosen_of = torch.compile(self.joint.chosen_of, dynamic=True)
        try:
            side = self.recipe.data.crop
            # No random numbers: a resumed run goes on with those of the interrupted one.
            x = torch.full((self.recipe.data.batch, 3, side, side), 0.5, requires_grad=True)
            quality = torch.zeros(len(x), dtype=torch.int64)
            distance = measure(x, x.detach(), quality, self.recipe.model)[2]
            (distance.sum() + bits_of(x, x, x).sum()).backward()  # type: ignore[no-untyped-call]
            chosen_of(x, x, x)
        except Exception as error:  # whatever compilers raise: the plain functions always work
            say(f"the step is not compiled: {str(error)[:300]}")
            return
        self.measure = measure
        self.joint.bits_of = bits_of
        self.joint.chosen_of = chosen_of

    def _captured(self, compiled: bool, say: Callable[[str], None]) -> bool:
        """Whether capturing the step worked; says so or says why not."""
        try:
            self.loss_function = torch.compile(self.loss, dynamic=False) if compiled else self.loss
            self.capture()
        except Exception as error:  # whatever compiler or driver raise: plain steps always work
            torch.cuda.synchronize()
            say(
                f"capture {'with' if compiled else 'without'} torch.compile failed: "
                f"{str(error)[:300]}"
            )
            return False
        say(f"the step runs as one CUDA graph, {'compiled' if compiled else 'not compiled'}")
        return True

    def capture(self) -> None:
        """Warm up on a side stream, then record one step."""
        rate = self.rate.clone()
        taken = self.taken.clone()

        # At learning rate 0 the warm-up changes no weights.
        self.rate.zero_()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_STEPS):
                self.source.advance()
                self.optimizer.zero_grad(set_to_none=True)
                self.body()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()

        # Gradients are made inside the graph, in its own memory.
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.body()
        torch.cuda.synchronize()

        # As if nothing had been taken.
        self.rate.copy_(rate)
        self.taken.copy_(taken)
        self.sums.zero_()
        self.replay = graph.replay
