"""Whether a training still gets anywhere: steps that are not finite are skipped and change nothing.

Invariant: a run does not end as if all were well where most of its last steps were skipped.
"""

LEAST_STEPS = 20
"""Steps that are judged together, while the run goes on."""

LEAST_STEPS_AT_END = 5
"""... and where it ends or is saved."""


class DivergedError(RuntimeError):
    """Most steps of late were not finite."""


class Judge:
    """Counts steps and says when too many of them were skipped: more than half."""

    def __init__(self) -> None:
        self.steps = 0
        self.skipped = 0

    def add(self, steps: int, skipped: int) -> bool:
        """Count more steps; True if those since the last judgement are too bad to go on."""
        self.steps += steps
        self.skipped += skipped
        bad = self.too_bad(0, 0, LEAST_STEPS)
        if self.steps >= LEAST_STEPS and not bad:
            self.steps = self.skipped = 0
        return bad

    def too_bad(self, steps: int, skipped: int, least: int = LEAST_STEPS_AT_END) -> bool:
        """The same with steps that are not counted yet."""
        return self.steps + steps >= least and 2 * (self.skipped + skipped) > self.steps + steps

    def __str__(self) -> str:
        return f"{self.skipped} of the last {self.steps} steps were not finite"
