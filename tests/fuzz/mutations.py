"""Changes to files that know their parts, and mend every checksum."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable

from .blind import changed_bytes
from .pictures import changed_exact_tile, changed_png

Mutation = Callable[[bytes, random.Random], bytes]

SIGNATURE_BYTES = 8
EXACT_FLAG = 8
TYPES = [b"HEAD", b"iCCP", b"eXIF", b"xMPm", b"dPIx", b"cMNT", b"QMAP", b"ALPH", b"TILE", b"abcD"]
SIDES = [0, 1, 2, 15, 16, 17, 47, 48, 49, 63, 64, 65, 200, 1023, 1024, 1025, 5000, 2**24, 2**32 - 1]
NUMBERS = [0.0, -0.0, 1.0, 72.0, 1e-300, 1e300, -1.0, float("inf"), float("nan")]

Pieces = list[tuple[bytes, bytes]]  # type and payload


def changed_sections(data: bytes, chance: random.Random) -> bytes:
    """Sections of a .cwic file moved, doubled, left out or changed; their checksums fit."""
    pieces = sections(data)
    head = dict(pieces).get(b"HEAD", b"")
    exact = len(head) > 1 and bool(head[1] & EXACT_FLAG)
    for _ in range(chance.randint(1, 3)):
        if pieces:
            _change_piece(pieces, exact, chance)
    return data[:SIGNATURE_BYTES] + b"".join(packed(kind, body) for kind, body in pieces)


def sections(data: bytes) -> Pieces:
    """Type and payload of every section of a sound file."""
    found = []
    at = SIGNATURE_BYTES
    while at < len(data):
        kind, length = struct.unpack_from(">4sI", data, at)
        found.append((kind, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def packed(kind: bytes, body: bytes) -> bytes:
    """A section, with the checksum that it should have."""
    return struct.pack(">4sI", kind, len(body)) + body + _crc(kind + body)


def _crc(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "big")


def _change_piece(pieces: Pieces, exact: bool, chance: random.Random) -> None:
    at = chance.randrange(len(pieces))
    kind, body = pieces[at]
    match chance.randrange(8):
        case 0:
            pieces.insert(chance.randrange(len(pieces) + 1), pieces[at])
        case 1:
            del pieces[at]
        case 2:
            pieces.insert(chance.randrange(len(pieces)), pieces.pop(at))
        case 3:
            pieces[at] = (chance.choice(TYPES), body)
        case _:
            pieces[at] = (kind, _changed_payload(kind, body, exact, chance))


def _changed_payload(kind: bytes, body: bytes, exact: bool, chance: random.Random) -> bytes:
    if kind == b"HEAD" and len(body) == 20 and chance.random() < 0.9:
        return _changed_head(body, chance)
    if kind in (b"ALPH", b"QMAP") and chance.random() < 0.8:
        return changed_png(body, chance)
    if kind == b"dPIx":
        return struct.pack(">2d", chance.choice(NUMBERS), chance.choice(NUMBERS))
    if kind == b"TILE" and exact and chance.random() < 0.8:
        return changed_exact_tile(body, chance)
    if kind == b"TILE" and chance.random() < 0.8:
        if chance.random() < 0.5:
            changed = changed_bytes(body, chance)
            return changed + bytes(-len(changed) % 4)
        words = chance.choice([0, 1, 2, 3, len(body) // 4, 300])
        return chance.choice([body[: 4 * words], chance.randbytes(4 * words), body + bytes(4)])
    return changed_bytes(body, chance)


def _changed_head(body: bytes, chance: random.Random) -> bytes:
    fields = list(struct.unpack(">BBBBII8s", body))
    match chance.randrange(6):
        case 0:
            fields[1] ^= 1 << chance.randrange(6)
        case 1:
            fields[2] = chance.choice([0, 1, 7, 8, 63, 64, 255])
        case 2:
            fields[3] = chance.randrange(5, 13)
        case 3:
            fields[4] = chance.choice([*SIDES, chance.randint(1, 300)])
        case 4:
            fields[5] = chance.choice([*SIDES, chance.randint(1, 300)])
        case _:
            fields[4], fields[5] = fields[5], fields[4]
    return struct.pack(">BBBBII8s", *fields)


def changed_json(data: bytes, chance: random.Random) -> bytes:
    """A manifest with values exchanged for others, somewhere in it."""
    document = json.loads(data)
    for _ in range(chance.randint(1, 3)):
        _change_value(document, chance)
    text = json.dumps(document).encode()
    return changed_bytes(text, chance) if chance.random() < 0.3 else text


def _change_value(document: object, chance: random.Random) -> None:
    holder = document
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))  # type: ignore[arg-type]
        if not keys:
            return
        key = chance.choice(keys)
        inner = holder[key]  # type: ignore[index]
        if isinstance(inner, (dict, list)) and chance.random() < 0.8:
            holder = inner
            continue
        holder[key] = _other_value(chance)  # type: ignore[index]
        return


def _other_value(chance: random.Random) -> object:
    nested: object = 1
    for _ in range(chance.choice([1, 5, 300])):
        nested = [nested]
    values = [None, True, 0, -1, 1.5, 10**400, float("nan"), float("inf"), "", "a" * 3000]
    values += ["\x1b[2J", "../x", "%2e%2e/x", "http://[x", "\0", [], {}, {"a": 1}, nested]
    return chance.choice(values)


def changed_safetensors(data: bytes, chance: random.Random) -> bytes:
    """A weights file with its header's JSON, its length or its bytes changed."""
    length = int.from_bytes(data[:8], "little")
    if chance.random() < 0.3:
        return changed_bytes(data[: 8 + length], chance) + data[8 + length :]
    if chance.random() < 0.3:
        out = bytearray(data)
        out[chance.randrange(8 + length, len(out))] ^= 1 << chance.randrange(8)
        return bytes(out)
    header = json.loads(data[8 : 8 + length])
    key = next(iter(header["__metadata__"]))
    if chance.random() < 0.7:
        config = json.loads(header["__metadata__"][key])
        _change_value(config, chance)
        header["__metadata__"][key] = json.dumps(config)
    else:
        _change_value(header, chance)
    text = json.dumps(header).encode()
    body = data[8 + length :]
    if chance.random() < 0.3:
        body = changed_bytes(body, chance)
    return len(text).to_bytes(8, "little") + text + body
