"""What the fields of a manifest's entry may hold (docs/weights.md).

Invariant: whatever JSON a manifest holds, checking it takes time and memory in proportion to it,
and raises nothing.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

MAX_WEIGHTS_BYTES = 1 << 31
MOST_URLS = 16
NAME_RULE = "1 to 64 letters, digits, '.', '_' or '-', not 16 hex digits"
LONGEST_TEXT = 2000  # characters of a URL or a licence

_ID = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxlong = 60

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_url(location: str) -> bool:
    """True for an http or https URL; everything else is a path."""
    return location.lower().startswith(("http://", "https://"))


def is_id(text: str) -> bool:
    """True for 16 lower-case hex digits, which are always an id and never a name or a path."""
    return _ID.fullmatch(text) is not None


def is_text(value: object) -> bool:
    """Whether it is a text of bounded length without control characters."""
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and value.isprintable()


def field_problems(model: dict[str, Any]) -> list[str]:
    """What is wrong with an entry: field, found, expected."""
    problems = []
    for name, (valid, expected, required) in _FIELDS.items():
        if name not in model:
            if required:
                problems.append(f"field {name!r}: missing, expected {expected}")
        elif not valid(model[name]):
            problems.append(f"field {name!r}: found {short(model[name])}, expected {expected}")
    return problems


def short(value: object) -> str:
    """The value in a few words, however large or deeply nested it is."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def is_name(value: object) -> bool:
    """Whether a model may be called so: NAME_RULE."""
    return isinstance(value, str) and _PLAIN_NAME.fullmatch(value) is not None and not is_id(value)


def _is_file(value: object) -> bool:
    return is_name(value) and isinstance(value, str) and value.endswith(".safetensors")


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value <= MAX_WEIGHTS_BYTES


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1e6  # type: ignore[operator]


def _are_urls(value: object) -> bool:
    return isinstance(value, list) and len(value) <= MOST_URLS and all(map(_is_reachable, value))


def _is_reachable(url: object) -> bool:
    """http(s), or relative to the manifest: no other scheme, no absolute path, no way up.

    However the characters are written: `%2e` is a dot.
    """
    if not isinstance(url, str) or not is_text(url) or not is_text(unquote(url)):
        return False
    if is_url(url):
        return True  # one that leads nowhere costs an attempt
    path = unquote(url)
    is_relative = bool(path) and ":" not in path and path[0] not in "/\\"
    return is_relative and ".." not in re.split(r"[/\\]", path)


def _is_calibration(value: object) -> bool:
    if (
        not isinstance(value, list)
        or len(value) > 64
        or not all(isinstance(point, dict) for point in value)
    ):
        return False
    indices = [point.get("index") for point in value]
    numbers = [point.get(key) for point in value for key in ("bpp", "psnr")]
    in_range = all(type(i) is int and 0 <= i <= 63 for i in indices)
    return in_range and indices == sorted(set(indices)) and all(map(_is_number, numbers))


# Field: (check, what is expected, whether it is required).
_FIELDS: dict[str, tuple[Callable[[object], bool], str, bool]] = {
    "name": (is_name, NAME_RULE, True),
    "file": (_is_file, "a plain file name ending in .safetensors, without folders", True),
    "sha256": (_is_sha256, "64 lower-case hex digits", True),
    "bytes": (_is_size, f"the file's size, a positive integer up to {MAX_WEIGHTS_BYTES}", True),
    "urls": (
        _are_urls,
        f"a list of http(s) URLs or of paths relative to the manifest, without '..', at most "
        f"{MOST_URLS} of them",
        False,
    ),
    "config": (lambda value: isinstance(value, dict), "an object", False),
    "quality": (
        _is_calibration,
        'a list of {"index": 0..63, "bpp": x, "psnr": y} with rising indices',
        False,
    ),
    "licence": (is_text, "text without control characters", False),
    "training": (lambda value: isinstance(value, (str, dict)), "text or an object", False),
}
