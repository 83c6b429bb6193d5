"""One trial: a changed input, everything that reads it, and what must never happen.

Never: another exception than a CwicError (foreign); damaged bytes that are taken for sound, or
pixels that contradict each other (silent); more time or memory than the pixels are worth (hang).
"""

from __future__ import annotations

import contextlib
import io
import random
import signal
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

import pillow_cwic
from pillow_cwic import decoding
from pillow_cwic.encoding import encode
from pillow_cwic.errors import CwicError
from pillow_cwic.format import container
from pillow_cwic.options import EncodeOptions
from pillow_cwic.weights import manifest, models
from pillow_cwic.weights.file import parse_model

from ..helpers.coding import load, partly_exact
from . import mutations
from .blind import changed_bytes

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny"
CORPUS = Path(__file__).parent / "corpus"
"""Inputs that were faults once; each is read first, by what its name begins with."""

SECONDS = 20  # of processor time for a trial: what is read has a quarter of a megapixel at most
PIXELS = 1 << 18

Kind = tuple[list[bytes], mutations.Mutation, Callable[[bytes, bytes], bool]]
"""Sound inputs, how they are changed, and what reads (changed, sound): whether it was accepted."""


class SilentError(Exception):
    """Something wrong was taken for right."""


class HangError(BaseException):
    """A trial took too long."""


@dataclass
class Tally:
    """What became of the trials of one kind."""

    read: int = 0
    refused: int = 0
    faults: list[tuple[str, bytes]] = field(default_factory=list)

    @property
    def trials(self) -> int:
        """All of them."""
        return self.read + self.refused + len(self.faults)


def kinds() -> dict[str, Kind]:
    """Every kind of trial by its name."""
    models.find(GOLDEN / "tiny.safetensors")  # files of this model can be decoded from now on
    Image.MAX_IMAGE_PIXELS = PIXELS
    decoding.ALWAYS_DECODED = PIXELS
    files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.cwic"))]
    files += _files_of_everything()
    weights = [(GOLDEN / "tiny.safetensors").read_bytes()]
    manifests = [(Path(__file__).parents[2] / "weights_manifest.json").read_bytes()]
    return {
        "bytes": (files, changed_bytes, read_damaged),
        "sections": (files, mutations.changed_sections, read_forged),
        "manifests": (manifests, mutations.changed_json, read_manifest),
        "weights": (weights, mutations.changed_safetensors, read_weights),
    }


def _files_of_everything() -> list[bytes]:
    """Alpha, a quality map, all metadata, six tiles; exact blocks, some or all."""
    chance = np.random.default_rng(1)
    pixels = np.cumsum(chance.integers(-3, 4, (80, 140, 4)), 1).astype(np.uint8)
    options = EncodeOptions.from_keywords(
        model=GOLDEN / "tiny.safetensors",
        importance=np.linspace(0, 255, 80 * 140).reshape(80, 140).astype(np.uint8),
        icc_profile=b"profile",
        exif=b"Exif\0\0II*\0",
        xmp=b"<x/>",
        dpi=(300, 300),
        comment="comment",
    )
    lossless = EncodeOptions(model=GOLDEN / "tiny.safetensors", lossless=True)
    return [
        encode(pixels, options, tile_size=64),
        encode(pixels, lossless, tile_size=64),
        partly_exact(pixels[..., :3], load(GOLDEN / "tiny.safetensors"), 0.3),
    ]


def corpus(name: str) -> list[bytes]:
    """The corpus's inputs of a kind."""
    return [path.read_bytes() for path in sorted(CORPUS.glob(f"{name}-*"))]


def replay(name: str, kind: Kind, tally: Tally) -> None:
    """The corpus's inputs of a kind, as they are."""
    for data in corpus(name):
        read(kind, data, b"", tally)


def run(kind: Kind, chance: random.Random, tally: Tally) -> None:
    """One trial of a kind, counted in the tally."""
    inputs, mutate, _ = kind
    sound = chance.choice(inputs)
    read(kind, mutate(sound, chance), sound, tally)


def read(kind: Kind, data: bytes, sound: bytes, tally: Tally) -> None:
    """One input of a kind, made of a sound one, counted in the tally."""
    _, _, read_input = kind
    try:
        with _limited_time(), warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", message="the resolution .* is none, and left out")
            accepted = read_input(data, sound)
    except SilentError as error:
        tally.faults.append((f"silent: {error}", data))
    except HangError:
        tally.faults.append((f"hang: more than {SECONDS} s of processor time", data))
    except Exception as error:
        tally.faults.append((f"foreign: {type(error).__name__}: {error}"[:200], data))
    else:
        tally.read += accepted
        tally.refused += not accepted


@contextlib.contextmanager
def _limited_time() -> Iterator[None]:
    def expire(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def read_damaged(data: bytes, sound: bytes) -> bool:
    """Bytes changed without mending a checksum: refused, unless they are as they were."""
    accepted = _reads(data)
    if accepted and data != sound:
        raise SilentError("changed bytes were read")
    _salvaged(data)
    return accepted


def read_forged(data: bytes, sound: bytes) -> bool:
    """A file with checksums that fit: refused, or everything read of it agrees."""
    accepted = _reads(data)
    _salvaged(data)
    return accepted


def _reads(data: bytes) -> bool:
    """All that reads a file; whether it could be decoded."""
    header = _attempt(lambda: pillow_cwic.read_header(data))
    pixels = _attempt(lambda: pillow_cwic.decode(data))
    levels = _attempt(lambda: pillow_cwic.importance_map(data))
    opened = _opened(data)
    if pixels is None:
        return False
    if header is None or opened is None or levels is None:
        raise SilentError("decode reads what others refuse")
    width, height = header.size
    channels = header.bands + header.alpha
    expected = (height, width) if channels == 1 else (height, width, channels)
    if pixels.shape != expected or levels.shape != (-(-height // 16), -(-width // 16)):
        raise SilentError(f"{header.size}: pixels {pixels.shape}, levels {levels.shape}")
    if not np.array_equal(opened, pixels):
        raise SilentError("Pillow shows other pixels than decode")

    # A part is as the whole, to the rounding of its windows.
    region = (width // 3, height // 3, width // 3 + 1 + width // 4, height // 3 + 1 + height // 4)
    part = pillow_cwic.decode(data, region=region)
    whole = pixels[region[1] : region[3], region[0] : region[2]]
    if np.abs(part.astype(int) - whole).max() > 1:
        raise SilentError("a region shows other pixels than the whole")
    return True


def _opened(data: bytes) -> np.ndarray | None:
    """The picture through Pillow, which may refuse it by its own errors."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image)
    except (OSError, Image.DecompressionBombError):
        return None


def _salvaged(data: bytes) -> None:
    """What is left of a damaged file is shown, and its losses named."""
    found = _attempt(lambda: container.salvage(data))
    if found is None:
        return
    if (None in found.tiles) > bool(found.damage):
        raise SilentError("tiles are lost that no message names")
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*is damaged, the rest is shown")
            _opened(data)
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False


def read_manifest(data: bytes, sound: bytes) -> bool:
    """A manifest: what is right of it, in a message that steers no terminal."""
    try:
        found = manifest.usable(data, "/models/manifest.json")
    except CwicError as error:
        if not str(error).replace("\n", "").isprintable():
            raise SilentError("control characters in a message") from error
        return False
    for entry in found.models:
        entry.local_files()
        entry.remote_urls()
    return not found.problems


def read_weights(data: bytes, sound: bytes) -> bool:
    """A weights file: a model, or a WeightsError."""
    return _attempt(lambda: parse_model(data, "changed", "cpu", id="0" * 16)) is not None


def _attempt(read: Callable[[], object]) -> object:
    try:
        return read()
    except CwicError:
        return None
