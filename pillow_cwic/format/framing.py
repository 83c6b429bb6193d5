"""Sections: the framing of a file, whatever the sections mean (docs/format.md, sections 1 and 2).

A section is a 4-byte type, a length, a payload and the CRC-32 of type and payload. Invariant: no
more memory is taken than the bytes that are really there, whatever a length field claims. Must not
know which types exist.
"""

import os
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from ..errors import FormatError

SIGNATURE = b"\x89CWIC\r\n\x1a"
FRAME_BYTES = 12  # what a section takes beyond its payload
MAX_PAYLOAD_BYTES = 2**32 - 1

_START = struct.Struct(">4sI")  # type, length of the payload
_CHUNK_BYTES = 2**20
_TEXT_TRANSFERS = (  # what tools that take the file for text make of the signature
    SIGNATURE.replace(b"\r\n", b"\n"),
    SIGNATURE.replace(b"\n", b"\r\n"),
    SIGNATURE.replace(b"\r", b"\n"),
    b"\xc2" + SIGNATURE,  # read as Latin-1, written as UTF-8
    b"\xef\xbf\xbd" + SIGNATURE[1:],  # read as UTF-8 with replacement characters
    bytes(byte & 0x7F for byte in SIGNATURE),
)

Buffer: TypeAlias = bytes | bytearray | memoryview

Payload: TypeAlias = bytes | memoryview
"""Of a section that was read: nothing changes it."""

DataOrFile: TypeAlias = Buffer | str | os.PathLike[str] | BinaryIO
"""The bytes of a file, its path, or an open binary file, which is read from where it stands."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a section lies, in bytes: the offset of its first one, and its payload's length."""

    type: str
    offset: int
    length: int

    @property
    def critical(self) -> bool:
        """Whether a reader that does not know the type must refuse the file.

        As in PNG: its first letter is upper-case.
        """
        return self.type[0].isupper()

    @property
    def end(self) -> int:
        """The offset of the first byte behind the section."""
        return self.offset + FRAME_BYTES + self.length

    def __str__(self) -> str:
        return f"section {self.type} at offset {self.offset}"


class Source(Protocol):
    """Bytes read from front to back; `size` is None where only reading to the end would tell."""

    position: int
    size: int | None

    def read(self, count: int) -> bytes | memoryview:
        """The next `count` bytes, or fewer at the end."""

    def skip(self, count: int) -> None:
        """Move over `count` bytes; past the end only the position tells."""


class Memory:
    """A source over bytes in memory; reads without copying."""

    def __init__(self, data: Buffer) -> None:
        try:
            self._view = memoryview(data).cast("B")
        except TypeError:
            kind = type(data).__name__
            raise TypeError(f"expected bytes, a path or a binary file, found {kind}") from None
        self.position = 0
        self.size: int | None = len(self._view)

    def read(self, count: int) -> memoryview:
        """The next `count` bytes, or fewer at the end."""
        part = self._view[self.position : self.position + count]
        self.position += len(part)
        return part

    def skip(self, count: int) -> None:
        """Move over `count` bytes."""
        self.position += count


class File:
    """A source over a binary file from where it stands: seeks where it can, else reads through."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.position = 0
        self.size: int | None = None
        seekable = getattr(file, "seekable", None)
        if seekable is not None and seekable():
            start = file.tell()
            file.seek(0, os.SEEK_END)
            self.size = max(file.tell() - start, 0)
            file.seek(start)

    def read(self, count: int) -> bytes:
        """The next `count` bytes, or fewer at the end; in pieces, since `count` may be a lie."""
        parts = list[bytes]()
        while count and (part := self._file.read(min(count, _CHUNK_BYTES))):
            if not isinstance(part, bytes):
                raise TypeError(
                    "expected a file opened in binary mode, but read() returned "
                    f"{type(part).__name__}"
                )
            parts.append(part)
            count -= len(part)
            self.position += len(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Move over `count` bytes."""
        if self.size is not None:
            self._file.seek(count, os.SEEK_CUR)
            self.position += count
            return
        while count and (part := self.read(min(count, _CHUNK_BYTES))):
            count -= len(part)


@contextmanager
def open_source(data_or_file: DataOrFile) -> Iterator[Source]:
    """A source over bytes, a path, or a binary file of which only read() is needed.

    TypeError for anything else.
    """
    if isinstance(data_or_file, str | os.PathLike):
        with Path(data_or_file).open("rb") as file:
            yield File(file)
    elif isinstance(data_or_file, bytes | bytearray | memoryview):
        yield Memory(data_or_file)
    elif hasattr(data_or_file, "read"):
        yield File(data_or_file)
    else:
        # Another buffer, or a TypeError that says what is expected.
        yield Memory(data_or_file)  # type: ignore[arg-type]


def pack(kind: str, payload: Buffer) -> bytes:
    """The bytes of one section.

    Raises ValueError if the payload is too long for the length field.
    """
    name = kind.encode("ascii")
    body = memoryview(payload).cast("B")
    if len(body) > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"the payload of a {kind} section has {len(body)} bytes; at most {MAX_PAYLOAD_BYTES} "
            "fit"
        )
    checksum = zlib.crc32(body, zlib.crc32(name))
    return b"".join((_START.pack(name, len(body)), body, checksum.to_bytes(4, "big")))


def read_signature(source: Source) -> None:
    """Consume the signature; raises FormatError, with a hint where a transfer as text shows."""
    start = bytes(source.read(len(SIGNATURE)))
    if start == SIGNATURE:
        return

    # What it is instead: the beginning of one, or what a transfer left of one.
    if SIGNATURE.startswith(start):
        raise FormatError(
            f"not a .cwic file: it ends after {len(start)} bytes, within the signature"
        )
    message = f"not a .cwic file: it starts with {start.hex(' ')}, expected {SIGNATURE.hex(' ')}"
    if any(start.startswith(text[: len(start)]) for text in _TEXT_TRANSFERS):
        message += (
            "; it was a .cwic file once, damaged by a transfer as text (line ends or high bits "
            "changed): transfer it again in binary mode"
        )
    raise FormatError(message)


def read_start(source: Source) -> Section:
    """The type and length of the section that begins here.

    Raises FormatError if it cannot lie in the file.
    """
    offset = source.position
    start = source.read(_START.size)
    if len(start) < _START.size:
        due = f"a section of {FRAME_BYTES} bytes or more is due at offset {offset}"
        raise FormatError(f"the file is cut off at offset {offset + len(start)}: {due}")
    kind, length = _START.unpack(start)
    if not (kind.isalpha() and kind.isascii()):
        raise FormatError(
            f"section at offset {offset}: its type is {kind.hex(' ')}, expected four ASCII letters"
        )
    section = Section(sys.intern(kind.decode("ascii")), offset, length)
    if source.size is not None and section.end > source.size:
        raise cut_off(section, source.size)
    return section


def read_payload(source: Source, section: Section) -> bytes | memoryview:
    """The payload of the section that read_start() found.

    Raises FormatError if cut off or if the checksum differs.
    """
    payload = source.read(section.length)
    stored = source.read(4)
    if len(payload) + len(stored) < section.length + 4:
        raise cut_off(section, source.position)
    checksum = zlib.crc32(payload, zlib.crc32(section.type.encode("ascii")))
    if checksum != int.from_bytes(stored, "big"):
        raise FormatError(
            f"checksum mismatch: {section} says {stored.hex()}, its bytes give {checksum:08x}; "
            "it is damaged"
        )
    return payload


def cut_off(section: Section, size: int) -> FormatError:
    """The error for a section that goes on behind the end of the file; `size` in bytes."""
    needed = f"{section} of {section.length} bytes needs {section.end - size} more"
    return FormatError(f"the file is cut off at offset {size}: {needed}, or its length is damaged")
