"""Changes to pictures inside a .cwic file: planes, and the lossless picture of a tile."""

from __future__ import annotations

import io
import random
import struct
import zlib

from PIL import Image

from .blind import changed_bytes

Chunks = list[tuple[bytes, bytes]]  # type and payload

START = struct.Struct(">BBHI")  # of a tile with exact blocks
CHUNKS = [
    (b"IDAT", b""),
    (b"IEND", b""),
    (b"PLTE", bytes(768)),
    (b"tRNS", bytes(6)),
    (b"gAMA", struct.pack(">I", 20000)),
    (b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 20))),
    (b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 22))),
    (b"acTL", struct.pack(">II", 2, 0)),
    (b"fcTL", struct.pack(">IIIIIHHBB", 0, 1, 1, 0, 0, 1, 1, 0, 0)),
    (b"abCd", b""),
]


def changed_png(data: bytes, chance: random.Random) -> bytes:
    """A PNG file with a chunk or its pixels changed, and checksums that fit."""
    chunks: Chunks = []
    at = 8
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunks.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    if not chunks:
        return changed_bytes(data, chance)
    at = chance.randrange(len(chunks))
    kind, payload = chunks[at]
    match chance.randrange(5):
        case 0:
            chunks[at] = (kind, changed_bytes(payload, chance))
        case 1:
            chunks.insert(at, chance.choice(CHUNKS))
        case 2:
            del chunks[at]
        case _ if kind == b"IDAT":
            chunks[at] = (kind, _changed_rows(payload, chance))
        case _ if kind == b"IHDR" and len(payload) == 13:
            fields = list(struct.unpack(">IIBBBBB", payload))
            number = chance.randrange(7)
            fields[number] = chance.choice([0, 1, 2, 3, 4, 8, 16, 64, 255])
            chunks[at] = (kind, struct.pack(">IIBBBBB", *fields))
    framed = (
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in chunks
    )
    return data[:8] + b"".join(framed)


def _changed_rows(payload: bytes, chance: random.Random) -> bytes:
    """The rows behind the compression: other filters, too many, too few."""
    try:
        rows = zlib.decompress(payload)
    except zlib.error:
        return payload
    return zlib.compress(chance.choice([changed_bytes(rows, chance), rows * 2, rows[:-1], b""]))


def changed_exact_tile(body: bytes, chance: random.Random) -> bytes:
    """A tile with exact blocks: its map, its picture or its lengths changed; the others fit."""
    if len(body) < START.size:
        return changed_bytes(body, chance)
    number, reserved, map_bytes, picture_bytes = START.unpack_from(body)
    end = START.size + map_bytes + picture_bytes
    packed = body[START.size : START.size + map_bytes]
    picture = body[START.size + map_bytes : end]
    stream = body[end + -end % 4 :]
    match chance.randrange(6):
        case 0:
            packed = _changed_map(packed, chance)
        case 1:
            number = chance.randrange(4)
        case 2:
            stream = chance.choice([b"", stream[:-4], stream * 2, chance.randbytes(40)])
        case 3:
            picture = changed_bytes(picture, chance)
        case _:
            number, picture = _other_picture(picture, chance)
    layer = START.pack(number, reserved, len(packed) & 0xFFFF, len(picture)) + packed + picture
    return layer + bytes(-len(layer) % 4) + stream


def _changed_map(packed: bytes, chance: random.Random) -> bytes:
    try:
        bits = zlib.decompress(packed) or bytes(2)
    except zlib.error:
        return b""
    changed = changed_bytes(bits, chance)
    return zlib.compress(chance.choice([changed, changed[: len(bits)], bytes(len(bits)), bits * 9]))


def _other_picture(data: bytes, chance: random.Random) -> tuple[int, bytes]:
    """The same picture, or one of another size, as another program may write it."""
    number = chance.choice([1, 2])
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        image = Image.new("RGB", (64, 64))
    if chance.random() < 0.3:
        image = image.resize((chance.randint(1, 80), chance.randint(1, 80)))
    image = image.convert(chance.choice(["RGB", "RGB", "RGB", "L", "RGBA", "P", "1"]))
    extra: dict[str, object] = {}
    if chance.random() < 0.3:
        extra = {"save_all": True, "append_images": [Image.new(image.mode, image.size)]}
    if chance.random() < 0.2:
        extra["icc_profile"] = b"profile" * chance.choice([1, 1000])
    out = io.BytesIO()
    if number == 1 and chance.random() < 0.8:
        image.save(out, "PNG", **extra)
        made = out.getvalue()
        return number, changed_png(made, chance) if chance.random() < 0.7 else made
    image.save(out, "WEBP", lossless=chance.random() < 0.8, **extra)
    return number, out.getvalue() + bytes(chance.choice([0, 0, 1, 2]))
