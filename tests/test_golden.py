"""Golden files pin format version 1 and the shipped model.

What was written once is read, and written, for ever. Those in `golden/tiny` do so with a tiny model
that lies beside them, whatever model is shipped.
"""

import io

import numpy as np
import pytest
from closeness import assert_close
from coding import CPU
from PIL import Image
from places import GOLDEN as FOLDER

import pillow_cwic
from pillow_cwic import decoding
from pillow_cwic.format import container
from pillow_cwic.format.grid import tiles
from pillow_cwic.weights import models

GOLDEN = sorted(FOLDER.glob("*.cwic"))
TINY = sorted((FOLDER / "tiny").glob("*.cwic"))
BOTH = [
    pytest.param(path, id="/".join(path.relative_to(FOLDER).with_suffix("").parts))
    for path in GOLDEN + TINY
]


@pytest.fixture(autouse=True, scope="module")
def tiny() -> None:
    """The tiny model is in no manifest."""
    models.load(FOLDER / "tiny" / "tiny.safetensors", CPU)


def test_the_golden_files_are_there_and_small():
    """Eight files of the default model, every mode among them, less than 100 kB."""
    headers = [container.read_header(path) for path in GOLDEN]
    assert {header.mode for header in headers} == {"L", "LA", "RGB", "RGBA"}
    assert {header.model_id for header in headers} == {models.find(None).id}
    assert len(GOLDEN) == 8
    assert sum(path.stat().st_size for path in GOLDEN) < 100_000


def test_the_golden_files_of_the_tiny_model_are_there_and_small():
    """Four files of a model of their own, less than 250 kB with it and their pictures."""
    headers = [container.read_header(path) for path in TINY]
    assert [(header.mode, header.has_quality_map) for header in headers] == [
        ("LA", False),
        ("RGB", False),
        ("RGB", True),
        ("RGB", False),
    ]
    assert {header.model_id for header in headers} == {
        models.find(FOLDER / "tiny" / "tiny.safetensors").id
    }
    assert sum(path.stat().st_size for path in (FOLDER / "tiny").iterdir()) < 250_000


@pytest.mark.parametrize("path", BOTH)
def test_a_golden_file_decodes_to_its_picture(path):
    """Pixels are within 1 of 255 of those decoded when the file was made; alpha is exact."""
    pixels = pillow_cwic.decode(path.read_bytes())
    stored = np.asarray(Image.open(path.with_suffix(".png")))
    assert_close(pixels, stored)
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        assert np.array_equal(pixels[:, :, -1], stored[:, :, -1])


@pytest.mark.parametrize("path", BOTH)
def test_decoded_codes_are_coded_to_the_same_bytes(path):
    """Entropy coder and container reproduce the file from its own codes, levels and metadata.

    Byte for byte.
    """
    data = path.read_bytes()
    parsed = container.read(data)
    header, model = parsed.header, models.load(parsed.header.model_id, CPU)
    boxes = tiles(*header.size, header.tile_size)

    def again(stream, box):
        codes, level = model.entropy.decode(stream, (box.height, box.width), header.quality_index)
        return model.entropy.encode(codes, level, header.quality_index)

    found = [again(*job) for job in zip(parsed.tiles, boxes, strict=True)]
    assert container.write(header, found, parsed.alpha, parsed.metadata, parsed.quality_map) == data


def test_golden_metadata_is_kept_byte_for_byte():
    """ICC profile, EXIF, XMP, resolution and comment come back as they were given."""
    path = FOLDER / "metadata.cwic"
    found = container.read(path.read_bytes()).metadata
    assert found == container.Metadata(b"icc", b"Exif\0\0MM", b"<x/>", (300.0, 299.5), b"hej")


def test_the_golden_region_file_carries_its_quality_map():
    """A file made with `importance` says in QMAP how far each block is from the header."""
    path = FOLDER / "region.cwic"
    parsed = container.read(path.read_bytes())
    blocks = np.asarray(Image.open(io.BytesIO(parsed.quality_map))).astype(int) - 128
    half = models.load(None, CPU).config.quality_count / 2
    far, near = round((64 - 128) / 128 * half), round((255 - 128) / 128 * half)
    assert blocks.tolist() == [[far] * 6, *[[far, far, near, near, far, far]] * 2, [far] * 6]
    shift = decoding.quality_offsets(parsed)
    assert shift is not None
    assert shift.shape == (8, 12)
    assert (shift[:, :3] == far).all()
    assert (shift[3:5, 5:7] == near).all()
    quarters = [far + (near - far) * quarter / 4 for quarter in (0, 1, 3, 4)]
    assert shift[3, 2:6].tolist() == quarters  # linear between the centres of two blocks
