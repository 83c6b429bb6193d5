"""From one file format to another through Pillow, with the metadata. Loads no torch."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from .. import pillow_plugin
from ..format.metadata import METADATA_NAMES
from ..runtime.files import write_atomically

CWIC = pillow_plugin.CwicImageFile.format


def format_of(suffix: str) -> str:
    """Pillow's name of the format that an extension such as ".png" stands for.

    ValueError if it writes none.
    """
    Image.init()
    format_name = Image.registered_extensions().get(suffix.lower())
    if format_name is None or format_name not in Image.SAVE:
        raise ValueError(f"Pillow writes no format with the extension {suffix!r}")
    return format_name


def recode_picture(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """A picture as a file of another format, with its metadata.

    A resolution that means nothing is left behind.
    """
    metadata = {name: image.info[name] for name in METADATA_NAMES if image.info.get(name)}
    if not all(math.isfinite(value) and value > 0 for value in metadata.get("dpi", ())):
        del metadata["dpi"]
    file = BytesIO()
    image.save(file, format_name, **options, **metadata)
    return file.getvalue()


def write_png(path: Path, picture: Image.Image, icc_profile: bytes | None) -> None:
    """Write a picture as PNG with its colour profile."""
    file = BytesIO()
    picture.save(file, "PNG", optimize=True, icc_profile=icc_profile)
    write_atomically(path, file.getvalue())
