"""Golden files pin format version 1 and the shipped model: what was written once is read, and written, for ever."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pillow_cwic
from pillow_cwic import codec, container, tiling, weights, workers

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.cwic"))


def test_the_golden_files_are_there_and_small():
    """Eight files, every mode among them, less than 100 kB with their pictures."""
    headers = [container.read_header(path) for path in GOLDEN]
    assert {header.mode for header in headers} == {"L", "LA", "RGB", "RGBA"}
    assert len(GOLDEN) == 8
    assert sum(path.stat().st_size for path in GOLDEN) < 100_000


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_file_decodes_to_its_picture(path):
    """Pixels are within 1 of 255 of those decoded when the file was made; alpha is exact."""
    pixels = pillow_cwic.decode(path.read_bytes()).astype(int)
    stored = np.asarray(Image.open(path.with_suffix(".png"))).astype(int)
    assert pixels.shape == stored.shape
    assert np.abs(pixels - stored).max() <= 1
    if pixels.ndim == 3 and pixels.shape[2] in (2, 4):
        assert np.array_equal(pixels[:, :, -1], stored[:, :, -1])


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_decoded_codes_are_coded_to_the_same_bytes(path):
    """Entropy coder and container reproduce the file byte for byte from its own codes, levels and metadata."""
    data = path.read_bytes()
    parsed = container.read(data)
    header, model = parsed.header, weights.load(None, torch.device("cpu"))
    boxes = tiling.tiles(*header.size, header.tile_size)

    def again(job):
        stream, box = job
        codes, level = model.entropy.decode(stream, (box.height, box.width), header.quality_index)
        return model.entropy.encode(codes, level, header.quality_index)

    tiles = workers.map_one_thread(again, zip(parsed.tiles, boxes, strict=True))
    assert container.write(header, tiles, parsed.alpha, parsed.metadata, parsed.quality_map) == data


def test_golden_metadata_is_kept_byte_for_byte():
    """ICC profile, EXIF, XMP, resolution and comment come back as they were given."""
    path = Path(__file__).parent / "golden" / "metadata.cwic"
    found = container.read(path.read_bytes()).metadata
    assert found == container.Metadata(b"icc", b"Exif\0\0MM", b"<x/>", (300.0, 299.5), b"hej")


def test_the_golden_region_file_carries_its_quality_map():
    """A file made with `importance` says in QMAP how far each block's quality is from the header's."""
    path = Path(__file__).parent / "golden" / "region.cwic"
    parsed = container.read(path.read_bytes())
    shift = codec._quality_shift(parsed)
    assert shift is not None
    assert shift.shape == (16, 24)
    blocks = np.asarray(Image.open(io.BytesIO(parsed.quality_map))).astype(int) - 128
    assert blocks.tolist() == [[-16] * 6, [-16, -16, 32, 32, -16, -16], [-16, -16, 32, 32, -16, -16], [-16] * 6]
    assert (shift[:, :6] == -16).all()
    assert (shift[6:10, 10:14] == 32).all()
    assert shift[7, 6:10].tolist() == [-10, 2, 14, 26]  # linear between the centres of two blocks
