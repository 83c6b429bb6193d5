"""From one file format to another through Pillow, with the metadata. Loads no torch.

What a format keeps is not written down here but tried, on a picture of a few pixels: so it is true
of the Pillow that is installed. Invariant: what is not kept is a warning, or an error where it
would be seen.
"""

from __future__ import annotations

import inspect
import mimetypes
import sys
import warnings
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageColor, ImageFile

from .. import pillow_plugin
from ..format.metadata import METADATA_NAMES
from ..runtime.files import write_atomically
from .metadata import (
    Blocks,
    lasting_tags,
    metadata_of,
    orientation_of,
    save_options,
    upright,
    with_resolution,
)

CWIC = pillow_plugin.CwicImageFile.format

BEST_KNOWN_QUALITY = 95
"""Of 100, where nothing is asked for: what .cwic kept is not lost once more."""

QUALITY_FORMATS = ("JPEG", "MPO", "WEBP", "AVIF")
"""Formats of Pillow's with a quality of 0 to 100."""

_LABELS = {
    "icc_profile": "the colour profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "dpi": "the resolution",
    "comment": "the comment",
}

_WRITABLE_MODES = {
    "L": ("L", "RGB"),
    "LA": ("LA", "RGBA"),
    "RGB": ("RGB",),
    "RGBA": ("RGBA",),
}
"""Modes that hold all of a picture's values, in the order of preference."""


def format_of(suffix: str) -> str:
    """Pillow's name of the format that an extension such as ".png" stands for.

    ValueError if it writes none.
    """
    Image.init()
    format_name = Image.registered_extensions().get(suffix.lower())
    if format_name is None or format_name not in Image.SAVE:
        raise ValueError(f"Pillow writes no format with the extension {suffix!r}")
    return format_name


def check_save_options(format_name: str, names: Iterable[str]) -> None:
    """ValueError for an option that the format's plugin never asks for: Pillow ignores it silently.

    Where the plugin's source is not at hand, every name passes. Metadata is what the file holds.
    """
    for name in {*names} & {*METADATA_NAMES, "pnginfo", "tiffinfo"}:
        raise ValueError(f"--option {name}: metadata goes along by itself; --strip leaves it out")
    try:
        source = inspect.getsource(sys.modules[Image.SAVE[format_name].__module__])
    except (OSError, TypeError, KeyError):
        return
    for name in names:
        if f'"{name}"' not in source:
            raise ValueError(f"--option {name}: Pillow's {format_name} has no such option")


def readable_extensions(*, cwic: bool) -> frozenset[str]:
    """Extensions of what can be decoded: .cwic files, or pictures of all other formats."""
    Image.init()
    formats = {CWIC} if cwic else {name for name in Image.OPEN if _can_decode(name)} - {CWIC}
    return frozenset(e for e, name in Image.registered_extensions().items() if name in formats)


def _can_decode(format_name: str) -> bool:
    """Some of Pillow's plugins only know a file when they see one."""
    plugin = Image.OPEN[format_name][0]
    is_stub = isinstance(plugin, type) and issubclass(plugin, ImageFile.StubImageFile)
    return not is_stub and format_name != "MPEG"


def check_cwic_name(name: str) -> None:
    """ValueError where a name's extension says another picture format than .cwic."""
    suffix = Path(name).suffix.lower()
    Image.init()
    format_name = Image.registered_extensions().get(suffix)
    is_picture = (mimetypes.guess_type(name)[0] or "").startswith("image/")
    if format_name != CWIC and (format_name or is_picture):
        raise ValueError(
            f"{name} would hold a .cwic file, and its extension says {format_name or suffix}: call "
            f"it {Path(name).with_suffix('.cwic').name}"
        )


def saved(picture: Image.Image, format_name: str, **options: Any) -> bytes:
    """A picture as a file, by Pillow's `save`."""
    file = BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def recode_picture(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """A picture as a file of another format, with its metadata."""
    return write_picture(image, metadata_of(image), format_name, options)


def write_picture(
    picture: Image.Image,
    blocks: Blocks,
    format_name: str,
    options: dict[str, Any],
    background: str | None = None,
) -> bytes:
    """A picture and its metadata as a file.

    background: the colour below what is transparent, for formats without alpha. Warnings for what
    is lost; OSError where the format cannot hold the picture.
    """
    if format_name == CWIC:
        return saved(picture, CWIC, **options, **(dict.fromkeys(METADATA_NAMES) | blocks))

    # The pixels in a mode of the format's.
    picture = _in_writable_mode(picture, format_name, background)
    kept = _kept_blocks(blocks, format_name, picture.mode)
    if orientation_of(blocks) != 1 and orientation_of(kept) == 1:
        picture = upright(picture, blocks)[0]

    # Nothing but what was tried: a picture's own `info` is left out.
    picture = picture.copy() if picture.info else picture
    picture.info = {}
    best = {"quality": BEST_KNOWN_QUALITY} if format_name in QUALITY_FORMATS else {}
    try:
        data = saved(picture, format_name, **best | options, **save_options(format_name, kept))
    except Exception as error:  # each of Pillow's plugins has its own way to refuse
        asked = "".join(f", {name}={value!r}" for name, value in options.items())
        raise OSError(f"Pillow does not save it as {format_name}{asked}: {error}") from error
    _check_size(data, picture.size, format_name)
    return data


def _in_writable_mode(
    picture: Image.Image, format_name: str, background: str | None
) -> Image.Image:
    """The picture in a mode that the format keeps; on the background where it has no alpha."""
    has_alpha = picture.mode in ("LA", "RGBA")
    problem: Exception | None = None
    for mode in _WRITABLE_MODES.get(picture.mode, (picture.mode,)):
        try:
            tried = _tried(format_name, mode)
        except Exception as error:  # each of Pillow's plugins has its own way to refuse
            problem = error
            continue
        if not has_alpha or (tried is not None and tried.has_transparency_data):
            if tried is not None and tried.mode == "P" and mode != "L":
                warnings.warn(
                    f"{format_name} has a palette: colours and alpha are reduced", stacklevel=3
                )
            return picture.convert(mode)
    if not has_alpha:
        raise OSError(f"{format_name} cannot hold mode {picture.mode}: {problem}")
    if background is None:
        raise OSError(
            f"{format_name} cannot hold what is transparent: --background white, for instance, "
            "puts the picture on a colour"
        )
    return _in_writable_mode(on_colour(picture, background), format_name, None)


def on_colour(picture: Image.Image, colour: str) -> Image.Image:
    """A picture with alpha on a colour; grey stays grey where the colour is."""
    red, green, blue = ImageColor.getrgb(colour)[:3]
    mode = "L" if picture.mode == "LA" and red == green == blue else "RGB"
    paper = Image.new(mode, picture.size, red if mode == "L" else (red, green, blue))
    paper.paste(picture.convert(mode), mask=picture.getchannel("A"))
    return paper


def _tried(format_name: str, mode: str, **options: Any) -> Image.Image | None:
    """A small picture as the format gives it back; None where Pillow writes but does not read it.

    Whatever its plugin raises where it refuses.
    """
    picture = Image.linear_gradient("L").resize((32, 32)).convert("RGB")
    if mode in ("LA", "RGBA"):
        picture.putalpha(Image.linear_gradient("L").resize((32, 32)))
    data = saved(picture.convert(mode), format_name, **options)
    try:
        return Image.open(BytesIO(data), formats=[format_name])
    except (OSError, KeyError):
        return None


def _kept_blocks(blocks: Blocks, format_name: str, mode: str) -> Blocks:
    """The blocks that the format keeps; a warning names the others."""
    kept: Blocks = {}
    lost: list[str] = []
    for name, value in blocks.items():
        if _is_kept(name, blocks, format_name, mode):
            kept[name] = value
        elif name == "dpi" and _is_kept("exif", with_resolution(blocks), format_name, mode):
            kept = with_resolution(blocks | kept)
        else:
            length = f" of {len(value):,} bytes" if isinstance(value, bytes) else ""
            lost.append(f"{_LABELS[name]}{length}")
    if lost:
        warnings.warn(f"{format_name} does not keep {', '.join(lost)}", stacklevel=3)
    return kept


def _is_kept(name: str, blocks: Blocks, format_name: str, mode: str) -> bool:
    """Whether a block comes back from the format as it went in."""
    value = blocks[name]
    try:
        tried = _tried(format_name, mode, **save_options(format_name, {name: value}))
        if tried is None:
            return False
        found = metadata_of(tried).get(name)
    except Exception:  # too long, no EXIF at all: each plugin has its own way to say so
        return False
    if name == "exif":
        wanted = lasting_tags(value)
        return wanted is not None and wanted <= (lasting_tags(found) or set())
    if found is None:
        return False
    if name == "dpi":
        return all(abs(a - b) < 1 for a, b in zip(found, value, strict=True))
    return bool(found == value)


def _check_size(data: bytes, size: tuple[int, int], format_name: str) -> None:
    """OSError where the format made the picture smaller, as icons are."""
    found = size_of(data, format_name) or size
    if sorted(found) != sorted(size):
        raise OSError(
            f"{format_name} holds {found[0]} x {found[1]} pixels of {size[0]} x {size[1]}: choose "
            "another format"
        )


def size_of(data: bytes, format_name: str) -> tuple[int, int] | None:
    """Width and height of a picture in a file; None where Pillow writes but does not read it."""
    try:
        with Image.open(BytesIO(data), formats=[format_name]) as image:
            return image.size
    except (OSError, KeyError):
        return None


def write_png(path: Path, picture: Image.Image, icc_profile: bytes | None) -> None:
    """Write a picture as PNG with its colour profile."""
    write_atomically(path, saved(picture, "PNG", optimize=True, icc_profile=icc_profile))
