"""Changes to bytes that know nothing of what they mean."""

import random


def changed_bytes(data: bytes, chance: random.Random) -> bytes:
    """One to four bytes flipped, put in, taken out, or the end cut off."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randrange(len(out) or 1)
        match chance.randrange(8):
            case 0 | 1 | 2 | 3 if out:
                out[at] ^= 1 << chance.randrange(8)
            case 4 if out:
                out[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
            case 5:
                out[at:at] = chance.randbytes(chance.randint(1, 8))
            case 6:
                del out[at : at + chance.randint(1, 64)]
            case _:
                del out[len(out) - chance.randint(1, 64) :]
    return bytes(out)
