"""Where a run stands: how much of its budget is used, in which stage, at which learning rate.

A budget is wall-clock minutes, or steps. Invariant: everything that changes during a run is a
function of the share used, so a resumed run goes on from the share it had. No torch here.
"""

import time
from dataclasses import dataclass

from .recipe import Stage


@dataclass
class Progress:
    """What a checkpoint must know to go on."""

    step: int = 0
    skipped: int = 0  # steps that were not finite and changed nothing
    seconds: float = 0.0  # wall-clock used, over all sessions
    stage: int = 0
    stage_start: int = 0  # step at which the stage began: the warm-up counts from there


@dataclass(frozen=True)
class Budget:
    """Either `steps` or `minutes`."""

    minutes: float | None = None
    steps: int | None = None

    def used(self, progress: Progress) -> float:
        """Share of the budget used, 0..1."""
        if self.steps is not None:
            return min(1.0, progress.step / self.steps)
        return min(1.0, progress.seconds / (60 * (self.minutes or 1.0)))

    def seconds_left(self, progress: Progress) -> float:
        """Wall-clock still to go; for steps, at the average pace so far."""
        if self.minutes is not None:
            return max(0.0, 60 * self.minutes - progress.seconds)
        return progress.seconds / max(1, progress.step) * max(0, (self.steps or 0) - progress.step)


class Clock:
    """Adds the wall-clock of this session to what earlier sessions used."""

    def __init__(self, earlier_seconds: float) -> None:
        self.earlier_seconds = earlier_seconds
        self.begin()

    def begin(self) -> None:
        """Count this session from now."""
        self.session_start = time.monotonic()

    def session(self) -> float:
        """Seconds in this session."""
        return time.monotonic() - self.session_start

    def total(self) -> float:
        """Seconds in all sessions."""
        return self.earlier_seconds + self.session()


def stage_at(stages: tuple[Stage, ...], used: float) -> tuple[int, float]:
    """Share of the budget used -> index of the stage, and the share of that stage that is used."""
    start = 0.0
    for index, stage in enumerate(stages):
        if used < start + stage.share - 1e-9:
            return index, max(0.0, (used - start) / stage.share)
        start += stage.share
    return len(stages) - 1, 1.0


def learning_rate(stage: Stage, within: float, steps: int) -> float:
    """Rate at a share `within` of a stage, `steps` after its start."""
    first = stage.learning_rate
    last = stage.final_learning_rate
    if stage.decay == "geometric":
        rate = first * (last / first) ** within
    else:
        rate = first + (last - first) * within
    return rate * min(1.0, (steps + 1) / max(1, stage.warmup_steps))
