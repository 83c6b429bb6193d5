"""The imageio plugin: imread, imwrite, improps, immeta, imiter and imageio.v2 for .cwic files.

Translation only, between imageio's requests and the codec. A file holds one picture: it is index 0,
and `...` is a batch of one. Invariant: properties and metadata decode nothing; nothing is written
before the encoder has succeeded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import EllipsisType, FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
from imageio.core.request import (
    URI_BYTES,
    URI_FILE,
    URI_FILENAME,
    InitializationError,
    IOMode,
    Request,
)
from imageio.core.v3_plugin_api import ImageProperties, PluginV3
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image, ImageOps

from .format import container
from .format.exif import named_tags
from .image_modes import with_lasting
from .runtime.files import write_whole
from .runtime.forks import no_fork
from .weights import models

if TYPE_CHECKING:
    from .options import Device, Region

_EXTENSION = ".cwic"


class CwicPlugin(PluginV3):
    """One .cwic file, being read or written."""

    def __init__(self, request: Request) -> None:
        """Take the request if it is for us; else InitializationError: imageio asks others then."""
        super().__init__(request)
        self._accepted = self._written = False
        if request.mode.io_mode == IOMode.write:
            extension = request.extension or request.format_hint
            if extension != _EXTENSION and not _asked_for_by_name(sys._getframe(1)):
                raise InitializationError(
                    f"the cwic plugin writes {_EXTENSION} files, not {extension}, unless it is "
                    'asked for: plugin="cwic"'
                )
        elif not _first_bytes(request).startswith(container.SIGNATURE):
            raise InitializationError("not a .cwic file: it does not start with the signature")
        else:
            self._start = request.get_file().tell()
        self._accepted = True

    def close(self) -> None:
        """Close the file, unless the request was left to other plugins: they still need it.

        An open file of the caller's is put back to where it stood.
        """
        if not self._accepted:
            return
        is_callers = self._request._uri_type == URI_FILE
        if is_callers and self._request.mode.io_mode == IOMode.read:
            self._rewound()
        super().close()

    def read(
        self,
        *,
        index: int | EllipsisType | None = None,
        region: Region | None = None,
        mode: str | None = None,
        rotate: bool = False,
        device: Device = None,
    ) -> NDArray[np.uint8]:
        """Decode the picture: uint8 [H,W], or [H,W,C] with C = 2 grey and alpha, 3 RGB, 4 RGBA.

        index: None or 0, or `...` for a batch [1,...]; anything else is a ValueError. region:
        (left, upper, right, lower) in pixels, decoded alone. mode: a mode of Pillow's to convert
        to. rotate: turn what was read as the EXIF Orientation says. device: as in
        pillow_cwic.decode.
        """
        with no_fork():
            from .decoding import decode

        is_batch = _is_batch_index(index)
        picture = decode(self._rewound(), device=device, region=region)
        if rotate:
            picture = _upright(picture, named_tags(self._preamble().metadata.exif))
        if mode is not None:
            picture = np.array(Image.fromarray(picture).convert(mode))
        return picture[None] if is_batch else picture  # [1,H,W] or [1,H,W,C]

    def iter(self, **options: Any) -> Iterator[NDArray[np.uint8]]:
        """The one picture; options as in `read`."""
        yield self.read(**options)

    def write(
        self,
        ndimage: ArrayLike | Image.Image | list[ArrayLike],
        *,
        is_batch: bool | None = None,
        **options: Any,
    ) -> bytes | None:
        """Encode one picture.

        ndimage: uint8 [H,W] or [H,W,C] with C = 1..4, an image of Pillow, or a list or batch with
        one such picture. options: quality, bpp, max_bytes, importance, effort, lossless,
        exact, exact_alpha, model, device, icc_profile, exif, xmp, dpi, comment, as in
        pillow_cwic.encode. Returns the bytes if the target is "<bytes>". ValueError for more than
        one picture.
        """
        with no_fork():
            from .encoding import encode
            from .options import EncodeOptions

        if self._written:
            raise ValueError(
                "a .cwic file holds one picture, and it has been written: use a new file"
            )
        picture = _only_picture(ndimage, is_batch)
        data = encode(picture, EncodeOptions.from_keywords(**with_lasting(picture, options)))
        write_whole(self._request.get_file(), data)
        self._written = True
        return data if self._request._uri_type == URI_BYTES else None

    def properties(self, index: int | EllipsisType | None = None) -> ImageProperties:
        """Shape and dtype of what `read` returns for this index, from the header alone."""
        is_batch = _is_batch_index(index)
        header = self._preamble()
        channels = header.bands + header.alpha
        shape = (header.height, header.width) + ((channels,) if channels > 1 else ())
        return ImageProperties(
            shape=(1, *shape) if is_batch else shape,
            dtype=np.dtype(np.uint8),
            n_images=1 if is_batch else None,
            is_batch=is_batch,
        )

    def metadata(
        self, index: int | EllipsisType | None = None, exclude_applied: bool = True
    ) -> dict[str, Any]:
        """What the header says, the blocks in the file (as bytes), and the EXIF tags by name.

        Nothing is applied while reading, so `exclude_applied` excludes nothing: an Orientation is
        for the caller.
        """
        _is_batch_index(index)
        header = self._preamble()
        figures = {
            "mode": header.mode,
            "shape": header.size,  # (width, height), as imageio's Pillow plugin has it
            "quality": models.quality_of_file(header),
            "quality_index": header.quality_index,
            "lossless": header.lossless,
            "model": header.model_id,
            "tile_size": header.tile_size,
            "version": header.version,
        }
        return named_tags(header.metadata.exif) | figures | header.metadata.present()

    def _preamble(self) -> container.Header:
        return container.read_preamble(self._rewound())

    def _rewound(self) -> Any:
        file = self._request.get_file()
        file.seek(self._start, os.SEEK_SET)
        return file


def _first_bytes(request: Request) -> bytes:
    """What the resource begins with.

    A file on disk is closed again: imageio forgets to where a plugin refuses.
    """
    if request._uri_type != URI_FILENAME:
        return bytes(request.firstbytes)
    try:
        with Path(request.filename).open("rb") as file:
            return file.read(len(container.SIGNATURE))
    except OSError as error:  # a folder, for one
        raise InitializationError(str(error)) from error


def _is_batch_index(index: int | EllipsisType | None) -> bool:
    if index is not None and index is not Ellipsis and (isinstance(index, bool) or index != 0):
        raise ValueError(
            f"index must be 0, None or ...: a .cwic file holds one picture, found {index!r}"
        )
    return index is Ellipsis


def _only_picture(
    ndimage: ArrayLike | Image.Image | list[ArrayLike], is_batch: bool | None
) -> NDArray[Any] | Image.Image:
    """The one picture [H,W] or [H,W,C] of an array, a list or a batch; an image as it is.

    ValueError if there is not exactly one.
    """
    if isinstance(ndimage, Image.Image):
        return ndimage
    is_list = isinstance(ndimage, (list, tuple))
    shape = () if is_list else np.shape(ndimage)  # type: ignore[arg-type]
    if is_batch is None:
        is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))
        is_batch = is_list or (len(shape) > 2 and not is_picture)
    if not is_batch:
        return np.asarray(ndimage)
    pictures = list(ndimage)  # type: ignore[arg-type]
    if len(pictures) == 1:
        only = pictures[0]
        return only if isinstance(only, Image.Image) else np.asarray(only)
    if len(shape) == 3:
        found = f"an array of shape {shape}: neither HxWxC with 1 to 4 channels nor one HxW"
    else:
        found = f"a batch of {len(pictures)}: write each to its own file"
    raise ValueError(f"a .cwic file holds one picture, found {found}")


def _asked_for_by_name(frame: FrameType) -> bool:
    """Whether imageio makes the plugin because the caller named it, which it tells no plugin.

    It then goes through a function of its own; else it asks one plugin after the other, and those
    must not write files that nobody wanted.
    """
    return frame.f_code.co_name == "loader"


def _upright(picture: NDArray[np.uint8], tags: dict[str, Any]) -> NDArray[np.uint8]:
    """Turned and mirrored as the tag Orientation says."""
    image = Image.fromarray(picture)
    image.getexif()[ExifTags.Base.Orientation] = tags.get("Orientation", 1)
    return np.array(ImageOps.exif_transpose(image))
