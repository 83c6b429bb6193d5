"""Warnings that point at the line of whoever called, through Pillow or imageio or not."""

import sys
import warnings

_LIBRARIES = (__name__.partition(".")[0], "PIL", "imageio")


def warn_caller(message: str) -> None:
    """A UserWarning at the innermost line outside this package, Pillow and imageio."""
    level = 2
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        frame = frame.f_back
        level += 1
    warnings.warn(message, stacklevel=level)
