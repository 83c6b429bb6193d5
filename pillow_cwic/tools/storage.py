"""Files of any storage that fsspec knows, by the names that people typed.

Invariants: what exists on this machine is a file, whatever its name looks like; a file that is
written is complete under its name or not there.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Self

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from ..runtime.files import write_atomically


@dataclass(frozen=True)
class Place:
    """A file of some storage."""

    store: fsspec.AbstractFileSystem  # travels as what it takes to open it again
    path: str
    name: str = field(compare=False)  # as people know it

    def __str__(self) -> str:
        """The name."""
        return self.name

    @classmethod
    def of(cls, name: str) -> Self:
        """A path or URL.

        ValueError for a protocol that is not known, OSError for one that needs another package.
        """
        if os.path.lexists(name) or "://" not in name:
            # fsspec takes "::" in a name for a chain of URLs.
            return cls(LocalFileSystem(), Path(name).absolute().as_posix(), name)
        try:
            store, path = fsspec.core.url_to_fs(name)
        except ImportError as error:
            raise OSError(f"{name}: {error}") from error
        return cls(store, path, name)

    @property
    def is_local(self) -> bool:
        """Whether it is a file of this machine, without anything between."""
        return isinstance(self.store, LocalFileSystem)

    @property
    def is_in_memory(self) -> bool:
        """Whether only this process can see it."""
        return isinstance(self.store, MemoryFileSystem)

    def below(self, relative: str) -> Self:
        """A file in the folder that this is."""
        path = f"{self.path.rstrip('/')}/{relative}"
        return type(self)(self.store, path, f"{self.name.rstrip('/')}/{relative}")

    def numbered(self, frame: int, digits: int) -> Self:
        """The same name with a number before its extension."""
        path, name = (
            str(PurePosixPath(text).with_stem(f"{PurePosixPath(text).stem}-{frame:0{digits}}"))
            for text in (self.path, self.name)
        )
        return type(self)(self.store, path, name)

    def is_same(self, other: Place) -> bool:
        """Whether both are one file, also through links."""
        if self.is_local and other.is_local and os.path.exists(self.path):  # noqa: PTH110
            return os.path.exists(other.path) and Path(self.path).samefile(other.path)  # noqa: PTH110
        return self.store == other.store and self.path == other.path

    def files(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is in the folder that this is, and below: relative names, in order, with details."""
        if self.store.exists(self.path):
            found = self.store.find(self.path, detail=True)
            for path in sorted(found):
                yield path.removeprefix(self.path).lstrip("/"), found[path]

    def is_done(self) -> bool:
        """Whether it is a file that holds something: an empty one is no result."""
        return bool(self.store.isfile(self.path)) and self.store.size(self.path) != 0

    def read(self) -> bytes:
        """All of the file."""
        return bytes(self.store.cat_file(self.path))

    def write(self, data: bytes) -> None:
        """Write it under another name and give it its own at last: nobody finds half of it."""
        parent, name = self.path.rsplit("/", 1)
        self.store.makedirs(parent, exist_ok=True)
        if self.is_local:
            write_atomically(Path(self.path), data)
            return
        partial = f"{parent}/.{name}.{uuid.uuid4().hex}.partial"
        try:
            self.store.pipe_file(partial, data)
            self.store.mv(partial, self.path)
        except BaseException:
            if self.store.exists(partial):
                self.store.rm_file(partial)
            raise
