"""The imageio plugin: imread, imwrite, improps, immeta, imiter and imageio.v2 for .cwic files.

Translation only, between imageio's requests and the codec. A file holds one picture: it is index 0,
and `...` is a batch of one. Invariant: properties and metadata decode nothing; nothing is written
before the encoder has succeeded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
from imageio.core.request import URI_BYTES, InitializationError, IOMode, Request
from imageio.core.v3_plugin_api import ImageProperties, PluginV3
from numpy.typing import ArrayLike, NDArray
from PIL import ExifTags, Image

from .format import container
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
            if extension not in (None, _EXTENSION):
                raise InitializationError(
                    f"the cwic plugin writes {_EXTENSION} files, not {extension}"
                )
        elif not request.firstbytes.startswith(container.SIGNATURE):
            raise InitializationError("not a .cwic file: it does not start with the signature")
        else:
            self._start = request.get_file().tell()
        self._accepted = True

    def close(self) -> None:
        """Close the file, unless the request was left to other plugins: they still need it."""
        if self._accepted:
            super().close()

    def read(
        self,
        *,
        index: int | EllipsisType | None = None,
        region: Region | None = None,
        mode: str | None = None,
        device: Device = None,
    ) -> NDArray[np.uint8]:
        """Decode the picture: uint8 [H,W], or [H,W,C] with C = 2 grey and alpha, 3 RGB, 4 RGBA.

        index: None or 0, or `...` for a batch [1,...]; anything else is a ValueError. region:
        (left, upper, right, lower) in pixels, decoded alone. mode: a mode of Pillow's to convert
        to. device: as in pillow_cwic.decode.
        """
        with no_fork():
            from .decoding import decode

        is_batch = _is_batch_index(index)
        picture = decode(self._rewound(), device=device, region=region)
        if mode is not None:
            picture = np.array(Image.fromarray(picture).convert(mode))
        return picture[None] if is_batch else picture  # [1,H,W] or [1,H,W,C]

    def iter(self, **options: Any) -> Iterator[NDArray[np.uint8]]:
        """The one picture; options as in `read`."""
        yield self.read(**options)

    def write(
        self,
        ndimage: ArrayLike | list[ArrayLike],
        *,
        is_batch: bool | None = None,
        **options: Any,
    ) -> bytes | None:
        """Encode one picture.

        ndimage: uint8 [H,W] or [H,W,C] with C = 1..4, or a list or batch with one such picture.
        options: quality, bpp, max_bytes, importance, effort, model, device, icc_profile, exif, xmp,
        dpi, comment, as in pillow_cwic.encode. Returns the bytes if the target is "<bytes>".
        ValueError for more than one picture.
        """
        with no_fork():
            from .encoding import encode
            from .options import EncodeOptions

        if self._written:
            raise ValueError(
                "a .cwic file holds one picture, and it has been written: use a new file"
            )
        checked = EncodeOptions.from_keywords(**options)
        data = encode(_only_picture(ndimage, is_batch), checked)
        self._request.get_file().write(data)
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
            "model": header.model_id,
            "tile_size": header.tile_size,
            "version": header.version,
        }
        return _exif_tags(header.metadata.exif) | figures | header.metadata.present()

    def _preamble(self) -> container.Header:
        return container.read_preamble(self._rewound())

    def _rewound(self) -> Any:
        file = self._request.get_file()
        file.seek(self._start, os.SEEK_SET)
        return file


def _is_batch_index(index: int | EllipsisType | None) -> bool:
    if index is not None and index is not Ellipsis and (isinstance(index, bool) or index != 0):
        raise ValueError(
            f"index must be 0, None or ...: a .cwic file holds one picture, found {index!r}"
        )
    return index is Ellipsis


def _only_picture(ndimage: ArrayLike | list[ArrayLike], is_batch: bool | None) -> NDArray[Any]:
    """The one picture [H,W] or [H,W,C] of an array, a list or a batch.

    ValueError if there is not exactly one.
    """
    if is_batch is None:
        shape = np.shape(ndimage) if not isinstance(ndimage, (list, tuple)) else ()
        is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 2, 3, 4))
        is_batch = isinstance(ndimage, (list, tuple)) or (len(shape) > 2 and not is_picture)
    if not is_batch:
        return np.asarray(ndimage)
    pictures = list(ndimage)  # type: ignore[arg-type]
    if len(pictures) != 1:
        raise ValueError(
            f"a .cwic file holds one picture, found a batch of {len(pictures)}: write each to its "
            "own file"
        )
    return np.asarray(pictures[0])


def _exif_tags(exif: bytes | None) -> dict[str, Any]:
    if not exif:
        return {}
    tags = Image.Exif()
    try:
        tags.load(exif)
        return {ExifTags.TAGS[key]: value for key, value in tags.items() if key in ExifTags.TAGS}
    except (
        SyntaxError,
        ValueError,
        KeyError,
    ):  # a block that is not TIFF: it stays available as bytes
        return {}
