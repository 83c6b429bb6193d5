"""A colour profile for CMYK, written by hand: the look of paper and each ink; Lab -> sRGB."""

import itertools
import struct

import numpy as np

LAB = {  # of single inks at full strength
    (0, 0, 0, 0): (100.0, 0.0, 0.0),
    (1, 0, 0, 0): (56.0, -36.0, -44.0),
    (0, 1, 0, 0): (48.0, 70.0, -4.0),
    (0, 0, 1, 0): (89.0, -5.0, 80.0),
    (0, 0, 0, 1): (0.0, 0.0, 0.0),
}
_BLACK = (0.0, 0.0, 0.0)


def build() -> bytes:
    """ICC version 2, class "prtr", with a table of the 16 corners; mixtures of inks are black."""
    corners = itertools.product((0, 1), repeat=4)  # the last ink varies fastest
    grid = b"".join(_lab_bytes(LAB.get(corner, _BLACK)) for corner in corners)
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + grid + ramp * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text\0\0\0\0by hand\0"
    name = b"desc\0\0\0\0" + struct.pack(">I", 8) + b"by hand\0" + bytes(78)
    tags = {b"A2B0": table, b"wtpt": white, b"cprt": text, b"desc": name}
    return _profile(tags)


def _lab_bytes(lab: tuple[float, float, float]) -> bytes:
    return bytes((round(lab[0] * 2.55), round(lab[1]) + 128, round(lab[2]) + 128))


def _profile(tags: dict[bytes, bytes]) -> bytes:
    directory = struct.pack(">I", len(tags))
    offset = 128 + 4 + 12 * len(tags)
    body = b""
    for signature, data in tags.items():
        data += bytes(-len(data) % 4)
        directory += struct.pack(">4sII", signature, offset + len(body), len(data))
        body += data
    size = offset + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"\0\0\0\0", 0x02100000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + directory + body


def srgb_of(lab: tuple[float, float, float]) -> np.ndarray:
    """The colour in sRGB, 0..255, by the formulas of CIE (D50, Bradford) and IEC 61966-2-1."""
    fy = (lab[0] + 16) / 116
    f = np.array([fy + lab[1] / 500, fy, fy - lab[2] / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * (0.9642, 1, 0.8249)
    matrix = np.array(
        [
            [3.1341359, -1.6172888, -0.4906628],
            [-0.9787954, 1.9161416, 0.0334541],
            [0.0719553, -0.2289769, 1.4053860],
        ]
    )
    linear = np.clip(matrix @ xyz, 0, 1)
    gamma = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(gamma * 255)
