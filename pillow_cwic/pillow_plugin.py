"""The Pillow plugin: `Image.open` and `Image.save` for .cwic files.

Translation only: what a picture is called here and what it is called in Pillow. Invariant: opening
reads header and metadata, never pixels, and imports no torch; saving loses nothing silently,
neither precision nor an option.
"""

from __future__ import annotations

import os
from dataclasses import replace
from io import BytesIO
from typing import IO, Any, BinaryIO, cast

from PIL import Image, ImageFile

from .errors import FormatError
from .format import container
from .format.exif import exif_tags
from .format.metadata import METADATA_NAMES
from .image_modes import LASTING, lasting_blocks
from .options import OPTION_NAMES, EncodeOptions
from .runtime.files import read_whole, write_whole
from .runtime.forks import ForkedLock, no_fork
from .runtime.warn import warn_caller
from .weights import models

MIME_TYPE = "image/x-cwic"

MOST_DPI = 5e7
"""A resolution above is none: no format holds it, so it would stop every later save."""


def register() -> None:
    """Make Pillow know .cwic; doing it again changes nothing."""
    Image.register_open(CwicImageFile.format, CwicImageFile, _accept)
    Image.register_save(CwicImageFile.format, _save)
    Image.register_save_all(CwicImageFile.format, _save_all)
    Image.register_extension(CwicImageFile.format, ".cwic")
    Image.register_mime(CwicImageFile.format, MIME_TYPE)


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(container.SIGNATURE)


class CwicImageFile(ImageFile.ImageFile):
    """An opened .cwic file.

    `info` has the metadata that the file holds, "model" (its id) and, where that model is known
    here, "cwic_quality" (the dial in 0..1); or "lossless" where every pixel was kept.
    """

    format = "CWIC"
    format_description = "Content-weighted image compression"

    def _open(self) -> None:
        if self.fp is None or not _accept(self.fp.read(len(container.SIGNATURE))):
            raise SyntaxError("not a .cwic file")
        self.fp.seek(0)
        header = container.read_preamble(cast(BinaryIO, self.fp))
        self._header = header
        self._size, self._mode = header.size, header.mode
        self.info["model"] = header.model_id
        if header.lossless:
            self.info["lossless"] = True
        quality = models.quality_of_file(header)
        if quality is not None:
            self.info["cwic_quality"] = quality
        self.info.update(header.metadata.present())
        if max(self.info.get("dpi", (0, 0))) > MOST_DPI:
            warn_caller(f"the resolution {self.info.pop('dpi')} dpi is none, and left out")
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
        # Threads may share an image: one of them decodes, the others wait.
        self._decoding = ForkedLock()

    def getexif(self) -> Image.Exif:
        """The EXIF tags; none, with a warning, where the block is no EXIF."""
        if self._exif is None and exif_tags(self.info.get("exif")) is None:
            warn_caller(f'info["exif"], {len(self.info["exif"])} bytes, is no EXIF: it has no tags')
            self._exif = Image.Exif()
            self._exif._loaded = True
        return super().getexif()

    def verify(self) -> None:
        """Check the whole file without decoding it; FormatError names the damaged section.

        Closes the file. RuntimeError, as Pillow's plugins have it, once the pixels are there.
        """
        if not self.tile:
            raise RuntimeError("verify must be called directly after open")
        try:
            container.read(self._read_file())
        finally:
            super().verify()

    def load(self) -> Any:
        """Decode the pixels, once."""
        if not self.tile:  # loaded before, or a copy or pickle, which never had a file
            return super().load()
        with self._decoding.held:
            if self.tile:
                pixels = self._decode()
                with no_fork():  # a child finds the file or the picture, nothing between
                    if self._exclusive_fp and self.fp is not None:
                        self.fp.close()
                    self.fp = BytesIO(pixels)
                    return super().load()
            return super().load()

    def load_seek(self, pos: int) -> None:
        """Stay where we are: the file has been replaced by its pixels.

        That this exists makes Pillow's Parser wait.
        """

    def _read_file(self) -> bytes:
        if self.fp is None:
            raise ValueError("Operation on closed image")  # the words that Pillow uses
        return read_whole(self.fp)

    def _check_header(self, found: container.Container) -> None:
        """FormatError if the file is not the one whose header was read, as `info` tells of that."""
        kept = found.metadata if not found.damage else self._header.metadata
        if (found.header, kept) != (self._header, self._header.metadata):
            header = replace(found.header, metadata=kept)
            raise FormatError(
                f"{os.fsdecode(self.filename) or 'the .cwic file'} was rewritten after it was "
                f"opened: it has {_described(header)} now, and had {_described(self._header)}; "
                "open it again"
            )

    def _decode(self) -> bytes:
        with no_fork():
            from .decoding import decode_container

        tolerant = ImageFile.LOAD_TRUNCATED_IMAGES
        found = (container.salvage if tolerant else container.read)(self._read_file())
        self._check_header(found)
        pixels = decode_container(found)  # uint8 [H,W] or [H,W,C]
        if found.damage:
            name = os.fsdecode(self.filename) or "the .cwic file"
            warn_caller(f"{name} is damaged, the rest is shown: {'; '.join(found.damage)}")
        return pixels.tobytes()


def _described(header: container.Header) -> str:
    size = f"{header.width} x {header.height} pixels, {header.mode}"
    return f"{size}, quality index {header.quality_index}, {len(header.metadata.present())} blocks"


def _save_all(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    others = list(im.encoderinfo.pop("append_images", []))
    frames = sum(getattr(picture, "n_frames", 1) for picture in [im, *others])
    if frames != 1:
        raise ValueError(
            f"a .cwic file holds one picture, found {frames}: save each under a name of its own"
        )
    _save(im, fp, filename)


def _save(im: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    emptied = _emptied_by_opening(fp)
    try:
        if im.encoderinfo.get("append"):
            raise ValueError(
                "append=True: a .cwic file holds one picture, nothing can be appended to it"
            )
        write_whole(fp, _encode(im))
    except Exception as error:
        if emptied:
            _add_to_message(
                error,
                f"{os.fsdecode(filename)} was emptied when it was opened for saving; what was in "
                "it is gone",
            )
        raise


def _encode(im: Image.Image) -> bytes:
    with no_fork():
        from .encoding import encode

    options = dict(im.encoderinfo)
    unknown = sorted(options.keys() - {*OPTION_NAMES, *METADATA_NAMES, "append"})
    if unknown:  # pipelines pass one set of options to every format: say so, and go on
        known = ", ".join(OPTION_NAMES + METADATA_NAMES)
        warn_caller(f"saving as CWIC ignores {', '.join(unknown)}; it knows {known}")
    arguments = {name: options[name] for name in OPTION_NAMES if name in options}
    return encode(im, EncodeOptions.from_keywords(**arguments, **_metadata(im)))


def _metadata(im: Image.Image) -> dict[str, Any]:
    """The blocks to store. As in Pillow's own plugins, ICC profile and comment stay with an image.

    The others, which an edit may have made untrue, are stored only if asked for.
    """
    asked = im.encoderinfo
    blocks: dict[str, Any] = {name: asked.get(name) for name in ("exif", "xmp", "dpi")}
    lasting = lasting_blocks(im)
    blocks |= {name: asked.get(name, lasting.get(name)) for name in LASTING}
    if isinstance(blocks["exif"], Image.Exif):
        blocks["exif"] = blocks["exif"].tobytes()
    if isinstance(blocks["xmp"], str):
        blocks["xmp"] = blocks["xmp"].encode()
    return {name: value or None for name, value in blocks.items()}  # for Pillow, b"" is "none", too


def _emptied_by_opening(fp: IO[bytes]) -> bool:
    """Whether `fp` is an empty file that was there before it was opened.

    Pillow empties the file before it calls a plugin, and does not say whether there was one. A file
    just created has one time stamp for everything; one that was truncated has been modified after
    its last access.
    """
    try:
        state = os.fstat(fp.fileno())
    except (AttributeError, OSError):  # not a real file
        return False
    return state.st_size == 0 and state.st_atime_ns < state.st_mtime_ns


def _add_to_message(error: Exception, text: str) -> None:
    if isinstance(error, OSError) and error.strerror:
        error.strerror = f"{error.strerror}; {text}"
    elif len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}; {text}",)
    else:
        error.add_note(text)
