"""Training pictures on disk: found in folders and tar files, surveyed, decoded in parallel.

Everything that Pillow opens counts. Invariant: what does not open, is too small or too deep is
listed with its reason and skipped, never an error; Pillow's warning about decompression bombs is
taken as a refusal. No torch here: worker processes start fast.
"""

import io
import tarfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from ..runtime.processes import worker_processes
from .records import is_own_figure

Pixels = npt.NDArray[np.uint8]
T = TypeVar("T")

DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Modes with more than 8 bits, which Pillow clips rather than scales when it converts to RGB."""


@dataclass(frozen=True)
class Picture:
    """One picture file, or one member of an uncompressed tar file."""

    name: str  # for people
    path: Path  # the file, or the tar
    offset: int = 0
    size_bytes: int = -1  # -1: to the end
    width: int = 0  # known after the survey
    height: int = 0

    def read(self) -> bytes:
        """The file's bytes; OSError."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size_bytes)


@dataclass(frozen=True)
class Skipped:
    """A picture that is not used, and why."""

    name: str
    reason: str


def find(sources: Iterable[str | Path]) -> list[Picture]:
    """All files in folders (recursively) and tar files that have a picture's extension.

    Figures of runs and evaluations are left out. The order is fixed. OSError for a source that is
    neither, or a tar that is compressed or damaged.
    """
    Image.init()
    extensions = set(Image.registered_extensions())
    pictures: list[Picture] = []

    # Sources in the order in which they are given, files sorted within each.
    for source in map(Path, sources):
        if source.is_dir():
            files = sorted(
                path
                for path in source.rglob("*")
                if path.suffix.lower() in extensions and path.is_file() and not is_own_figure(path)
            )
            pictures += [Picture(str(path.relative_to(source)), path) for path in files]
        elif source.is_file():
            pictures += _members(source, extensions)
        else:
            raise FileNotFoundError(
                f"no training data at {source}: expected a folder or an uncompressed tar file"
            )
    return pictures


def _members(path: Path, extensions: set[str]) -> list[Picture]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in extensions]
    except tarfile.TarError as error:
        raise OSError(
            f"{path} is not an uncompressed tar file ({error}); unpack it and give the folder"
        ) from None
    return [Picture(member.name, path, member.offset_data, member.size) for member in members]


def survey(
    pictures: list[Picture], min_side: int, jobs: int
) -> tuple[list[Picture], list[Skipped]]:
    """Open every picture's header -> usable ones with their sizes, and the others with reasons."""
    usable: list[Picture] = []
    skipped: list[Skipped] = []
    work = [(picture, min_side) for picture in pictures]
    outcomes = parallel(read_size, work, jobs, "looking at pictures")
    for picture, outcome in zip(pictures, outcomes, strict=True):
        if isinstance(outcome, str):
            skipped.append(Skipped(picture.name, outcome))
        else:
            usable.append(outcome)
    return usable, skipped


def read_size(work: tuple[Picture, int]) -> Picture | str:
    """Header of one picture -> the picture with its size, or the reason why it cannot be used."""
    picture, min_side = work
    outcome = _use_image(picture, lambda image: (image.mode, image.size))
    if isinstance(outcome, str):
        return outcome
    mode, (width, height) = outcome
    if mode in DEEP_MODES:
        return f"mode {mode} has more than 8 bits per band"
    if min(width, height) < min_side:
        return f"{width}x{height} is smaller than {min_side} pixels"
    return Picture(picture.name, picture.path, picture.offset, picture.size_bytes, width, height)


def decode(picture: Picture) -> Pixels | str:
    """One picture as uint8 [height, width, 3], or the reason why it cannot be decoded."""
    return _use_image(picture, lambda image: np.asarray(image.convert("RGB")))


def _use_image(picture: Picture, use: Callable[[Image.Image], T]) -> T | str:
    """What `use` gives for the opened picture, or the reason why it cannot be opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(picture.read())) as image:
                return use(image)
    except UnidentifiedImageError:
        return "not a picture that Pillow can read"
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        return str(error).split("\n")[0] or type(error).__name__
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        return str(error)


def decode_all(pictures: list[Picture], jobs: int) -> Iterator[tuple[Picture, Pixels | str]]:
    """Decode in `jobs` processes, in order, with a progress bar."""
    yield from zip(pictures, parallel(decode, pictures, jobs, "decoding pictures"), strict=True)


def parallel(function: Callable[[Any], T], work: list[Any], jobs: int, title: str) -> Iterator[T]:
    """`map` over worker processes with a progress bar; jobs = 1 works in this process."""
    bar = tqdm(total=len(work), desc=title, unit="picture", leave=False, disable=None)
    with bar:
        # Processes are not worth starting.
        if jobs <= 1 or len(work) < 2:
            for item in work:
                yield function(item)
                bar.update()
            return

        # Results in order, as they come.
        with worker_processes(jobs) as pool:
            for result in pool.map(function, work, chunksize=4):
                yield result
                bar.update()
