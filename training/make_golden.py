"""Write the golden files of the tests: run once per format version and model, never to make a failing test pass.

python training/make_golden.py tests/golden
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

import pillow_cwic
from pillow_cwic.demo import SHIPPED


def golden_pictures() -> dict[str, tuple[np.ndarray, dict[str, object]]]:
    """Name -> pixels and options: every mode, odd sizes, several qualities, metadata, regions."""
    photo = np.asarray(Image.open(SHIPPED).convert("RGB"))
    face, patch = photo[40:168, 150:342], photo[200:273, 60:161]
    alpha = np.tile(np.arange(101, dtype=np.uint8) * 2, (73, 1))
    importance = np.full(face.shape[:2], 64, np.uint8)
    importance[32:96, 64:128] = 255
    return {
        "rgb-low": (face, {"quality": 10 / 63}),
        "rgb-high": (face, {"quality": 1.0}),
        "grey": (patch[:, :, 1], {"quality": 0.5}),
        "rgba": (np.dstack([patch, alpha]), {"quality": 0.3}),
        "grey-alpha": (np.dstack([patch[:, :, 1], alpha]), {"quality": 0.0}),
        "one-pixel": (photo[:1, :1], {}),
        "metadata": (
            patch,
            {"icc_profile": b"icc", "exif": b"Exif\0\0MM", "xmp": b"<x/>", "dpi": (300, 299.5), "comment": "hej"},
        ),
        "region": (face, {"quality": 0.4, "importance": importance}),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, options) in golden_pictures().items():
        data = pillow_cwic.encode(pixels, device="cpu", **options)
        (folder / f"{name}.cwic").write_bytes(data)
        Image.fromarray(pillow_cwic.decode(data, device="cpu")).save(folder / f"{name}.png")
