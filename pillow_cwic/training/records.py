"""What a run writes down of itself: JSON that any reader takes, lines that a kill may cut short.

Invariant: a number that is not finite is null, never NaN, which is no JSON.
"""

import json
import math
from pathlib import Path
from typing import Any

FIGURES = frozenset({"curves.png", "importance.png", "rd.png"})
"""What `train` and `evaluate` draw."""

BESIDE_FIGURES = ("log.jsonl", "rd.json")
"""One of these lies where they draw."""


def is_own_figure(path: Path) -> bool:
    """Whether a file is a figure of a run or an evaluation: no picture to train on."""
    return path.name in FIGURES and any((path.parent / name).is_file() for name in BESIDE_FIGURES)


def to_json(value: Any, indent: int | None = None) -> str:
    """As `json.dumps`, with null for what is not finite."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def read_lines(path: Path) -> list[dict[str, Any]]:
    """A log's lines up to the last whole one; none where there is no log."""
    if not path.is_file():
        return []
    whole = path.read_text("utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def mend_lines(path: Path) -> None:
    """Cut off what follows the last whole line, before more is appended."""
    if path.is_file():
        with path.open("r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
