"""Containers for the tests.

A sound one with everything in it, and the parts to make unsound ones by hand.
"""

import io
import random
import struct
import zlib

from pillow_cwic.format import container
from pillow_cwic.format.container import Header, Metadata

MODEL = "0123456789abcdef"
HEADER = Header(
    width=200, height=130, bands=3, alpha=True, quality_index=19, model_id=MODEL, tile_size=64
)
TILES = [
    bytes([index] * (4 * index)) for index in range(12)
]  # 4 columns, 3 rows; the first one empty
ALPHA = b"\x89PNG\r\n\x1a\n and so on"
METADATA = Metadata(
    b"profile\x00", b"Exif\x00\x00II*\x00", b"<x:xmpmeta/>", (72.0, 0.1 + 0.2), b"caf\xe9\x00"
)
FILE = container.write(HEADER, TILES, ALPHA, METADATA)

# docs/format.md shows this file: 9 x 8 px RGB, quality index 31, one tile of two words, a comment.
GOLDEN = bytes.fromhex(
    "89 43 57 49 43 0d 0a 1a"
    "48 45 41 44 00 00 00 14 01 01 1f 0a 00 00 00 09 00 00 00 08"
    "01 23 45 67 89 ab cd ef db 56 6a 11"
    "63 4d 4e 54 00 00 00 02 68 69 16 f5 d1 9e"
    "54 49 4c 45 00 00 00 08 11 22 33 44 55 66 77 88 0d 14 1f bb"
)


def section(kind: str | bytes, payload: bytes = b"") -> bytes:
    """A section made without the code under test."""
    name = kind if isinstance(kind, bytes) else kind.encode()
    return (
        struct.pack(">4sI", name, len(payload))
        + payload
        + struct.pack(">I", zlib.crc32(name + payload))
    )


def head(**changes: int) -> bytes:
    """A HEAD section of a 65 x 64 px grey image in two tiles, with fields changed."""
    fields = {
        "version": 1,
        "flags": 0,
        "quality": 5,
        "log2_tile": 6,
        "width": 65,
        "height": 64,
    } | changes
    return section("HEAD", struct.pack(">BBBBII", *fields.values()) + bytes.fromhex(MODEL))


def file(*sections: bytes) -> bytes:
    """A file with these sections, sound or not."""
    return container.SIGNATURE + b"".join(sections)


TWO = section("TILE", b"aaaa") + section("TILE", b"bbbbbbbb")


class Pipe:
    """A file of which only read() works, a few bytes at a time."""

    def __init__(self, data: bytes, step: int = 7) -> None:
        self._data, self._step = io.BytesIO(data), step
        self.taken = self.largest = 0  # bytes read in all; bytes asked for at once

    def read(self, count: int) -> bytes:
        """At most `step` bytes."""
        self.largest = max(self.largest, count)
        part = self._data.read(min(count, self._step))
        self.taken += len(part)
        return part


def scramble(data: bytes, chance: random.Random) -> bytes:
    """A file with sections dropped, doubled, swapped, of other lengths or types, or bytes."""
    pieces = [data[:8]] + [data[s.offset : s.end] for s in container.read_header(data).sections]
    for _ in range(chance.randint(1, 3)):
        at, to = chance.randrange(len(pieces)), chance.randrange(len(pieces))
        match chance.randrange(7):
            case 0:
                pieces[at], pieces[to] = pieces[to], pieces[at]
            case 1:
                pieces.insert(to, pieces[at])
            case 2:
                pieces[at] = b""
            case 3 if len(pieces[at]) > 8:  # another length, small or any
                length = chance.choice([chance.getrandbits(32), chance.randrange(64)])
                pieces[at] = pieces[at][:4] + struct.pack(">I", length) + pieces[at][8:]
            case 4 if len(pieces[at]) > 11:  # another type, with the checksum made to fit
                kind = chance.choice(["HEAD", "ALPH", "TILE", "dPIx", "cMNT", "ABCD", "abcd"])
                pieces[at] = section(kind, pieces[at][8:-4])
            case 5 if len(pieces[at]) > 11:  # another payload, with the checksum made to fit
                pieces[at] = section(
                    pieces[at][:4], chance.randbytes(chance.choice([0, 4, 16, 20]))
                )
            case _:
                cut = chance.randrange(len(pieces[at]) + 1)
                pieces[at] = (
                    pieces[at][:cut] + chance.randbytes(chance.randrange(4)) + pieces[at][cut:]
                )
    return b"".join(pieces)
