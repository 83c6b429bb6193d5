"""The codes: binarizer, ladder, order, exact integers, and their way through the whole codec."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from coding import encode_rounded
from PIL import Image
from places import TRAINING

import pillow_cwic
from pillow_cwic import analysis, decoding, model
from pillow_cwic.format import container
from pillow_cwic.networks.binarizer import code_integers
from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.networks.importance import kept_mask
from pillow_cwic.tools import demo
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.code_network import logistic_bits
from pillow_cwic.training.proxy_gradients import round_through
from pillow_cwic.weights import models

CPU = "cpu"
CONFIG = tiny_model.CONFIG
FLOATS = TRAINING / "models"
FULL = recipes.load("light").model


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's weights file."""
    path = tmp_path_factory.mktemp("successive") / "tiny.safetensors"
    tiny_model.export(path)
    return path


@pytest.fixture(scope="module")
def loaded(path: Path) -> model.Model:
    """The tiny model."""
    return models.load(path, CPU)


@pytest.fixture(scope="module")
def pixels(photo: Image.Image) -> np.ndarray:
    """The photo, mirrored to 300 x 220 pixels."""
    a = np.asarray(photo)
    a = np.pad(a, ((0, 220 - a.shape[0]), (0, 300 - a.shape[1]), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(a)


@pytest.fixture(scope="module")
def data(pixels: np.ndarray, path: Path) -> bytes:
    """`pixels` in the middle of the dial."""
    return pillow_cwic.encode(pixels, quality=0.5, model=path)


def random_codes(
    height: int, width: int, spread: float, config: ModelConfig = CONFIG
) -> tuple[np.ndarray, np.ndarray]:
    """Codes int16 [h,w,n] that the levels uint8 [h,w] allow; the first channels spread most."""
    random = np.random.default_rng(height * 1000 + width)
    level = random.integers(0, config.levels, (height, width)).astype(np.uint8)
    widths = np.linspace(spread, 0.3, config.channels)
    codes = code_integers(random.normal(0, widths, (height, width, config.channels)))
    return codes * kept_mask(level, config.kept_planes), level


# The binarizer


def test_the_successive_binarizer_is_a_ladder_of_the_papers():
    """sign(y) * sum over j of [abs(y) > j - 1/2], counted threshold by threshold.

    Off the thresholds themselves.
    """
    y = torch.linspace(-6.03, 6.07, 997)
    ladder = sum((y.abs() - j + 0.5 > 0).float() for j in range(1, 8)) * y.sign()
    assert torch.equal(round_through(y), ladder)
    assert np.array_equal(code_integers(y.numpy()), ladder.numpy())


def test_the_proxy_gradient_is_the_identity():
    """Backward, the ladder passes every gradient on unchanged, however large the feature."""
    y = torch.tensor([-300.2, -0.6, 0.0, 0.4, 2.5, 17.0], requires_grad=True)
    weight = torch.tensor([1.0, -2.0, 3.0, 4.0, 5.0, -6.0])
    (round_through(y) * weight).sum().backward()
    assert torch.equal(y.grad, weight)


# Rate


def test_real_bytes_are_what_training_estimates(loaded):
    """The stream is within 0.5% of the float networks' cross-entropy, which training minimises."""
    joint, (codes, level) = tiny_model.joint(), random_codes(48, 40, 2.0)
    exists = torch.from_numpy(kept_mask(level, CONFIG.kept_planes))
    v = torch.from_numpy(codes).permute(2, 0, 1)[None].float()  # [1,n,h,w]
    q, index = torch.from_numpy(level)[None, None].float(), torch.tensor([4])
    with torch.no_grad():
        mean, log_s = joint.planes(v, q, index)
        bits = float((logistic_bits(v, mean, log_s) * exists.permute(2, 0, 1)).sum())
        bits -= float(joint.maps(q, index).gather(1, q.long()).sum())
    assert 8 * len(loaded.entropy.encode(codes, level, 4)) == pytest.approx(bits, rel=0.005)


# The configuration


def test_the_configuration_survives_json():
    """JSON reads back to the same configuration; fields that no model has are refused."""
    for config in (CONFIG, FULL):
        assert ModelConfig.from_dict(json.loads(config.to_json())) == config
    with pytest.raises(ValueError, match="unknown model configuration field"):
        ModelConfig.from_dict({"wavelet": 1})
    with pytest.raises(ValueError, match="multiple of 16, found 18"):
        replace(CONFIG, kept_planes=(0, 18))
    with pytest.raises(ValueError, match="decoder_blocks must be three whole numbers"):
        replace(CONFIG, decoder_blocks=(1, 2))


def test_shares_of_the_similarities_are_linear_between_their_points():
    """At equal distances over the quality index; one index and many, as a tensor, get the same."""
    config = replace(
        CONFIG,
        quality_count=64,
        ms_ssim_weight=(0.0, 0.0, 0.3, 0.2),
        ssim_weight=(0.1, 0.1, 0.1, 0.4),
    )
    indices = [0.0, 14.0, 21.0, 35.0, 42.0, 49.0, 63.0]
    expected = [(0, 0.1), (0, 0.1), (0, 0.1), (0.2, 0.1), (0.3, 0.1), (0.8 / 3, 0.2), (0.2, 0.4)]
    assert [config.similarity_weights(index) for index in indices] == [
        pytest.approx(pair) for pair in expected
    ]
    both = torch.stack(config.similarity_weights(torch.tensor(indices)), 1)
    assert both.flatten().tolist() == pytest.approx(
        [share for pair in expected for share in pair], abs=1e-6
    )


@pytest.mark.parametrize("blocks", [[1.5, 1, 1], [-1, 1, 1], [True, 1, 1], [1, 1], "abc"])
def test_block_counts_are_whole_numbers(blocks):
    """Block counts that cannot be built are refused by name when the configuration is read."""
    for name in ("encoder_blocks", "decoder_blocks"):
        with pytest.raises(ValueError, match=f"{name} must be three whole numbers"):
            ModelConfig.from_dict(json.loads(CONFIG.to_json()) | {name: blocks})


# Through the whole codec


def test_pillow_writes_and_reads_it(path, photo):
    """`save(model=path)` and `open` give a picture of the same size, with all channels in place."""
    file = io.BytesIO()
    photo.save(file, "CWIC", model=str(path), quality=1.0)
    found = Image.open(file)
    assert found.size == photo.size
    assert found.convert("RGB").size == photo.size
    assert pillow_cwic.read_header(file.getvalue()).model_id == models.find(path).id


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (64, 48), (50, 95)])
def test_any_size_comes_back(path, size):
    """Grey and colour of sizes off the 16-pixel grid keep their shape, and alpha its values."""
    a = np.arange(size[0] * size[1] * 4, dtype=np.uint8).reshape(*size, 4)
    b = pillow_cwic.decode(pillow_cwic.encode(a, model=path))
    assert b.shape == a.shape
    assert np.array_equal(a[..., 3], b[..., 3])
    assert pillow_cwic.decode(pillow_cwic.encode(a[..., 0], model=path)).shape == size


def test_no_seam_between_tiles_and_a_region_is_a_crop(pixels, path):
    """Tiles of 64 pixels decode to the picture of one tile; a region needs only the tiles near it.

    Codes are only rounded here: a choice between two looks at the codes around, which end where a
    tile does.
    """
    data = encode_rounded(pixels, 4, model=path)
    whole = pillow_cwic.decode(data).astype(int)
    assert (
        np.abs(pillow_cwic.decode(data, region=(37, 50, 205, 101)) - whole[50:101, 37:205]).max()
        <= 1
    )
    tiled = encode_rounded(pixels, 4, 64, model=path)
    assert len(container.read(tiled).tiles) == 20
    assert np.abs(pillow_cwic.decode(tiled).astype(int) - whole).max() <= 1
    assert (
        np.abs(pillow_cwic.decode(tiled, region=(100, 70, 180, 150)) - whole[70:150, 100:180]).max()
        <= 1
    )
    lost = container.Container(
        container.read_header(tiled), (*container.read(tiled).tiles[:19], None)
    )
    assert (
        np.abs(decoding.decode_container(lost, region=(0, 0, 90, 90)) - whole[:90, :90]).max() <= 1
    )


def test_choosing_codes_beats_rounding_them():
    """On a photograph, with the shipped model.

    4 % fewer bytes, and a better picture than rounding gives in as many.
    """
    with Image.open(demo.SHIPPED) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    chosen = pillow_cwic.encode(pixels, quality=0.3)
    rounded = encode_rounded(pixels, 19)
    lower = (encode_rounded(pixels, index) for index in range(18, 0, -1))
    as_small = next(data for data in lower if len(data) <= len(chosen))

    def psnr(data):
        return 10 * np.log10(
            255**2 / np.mean((pillow_cwic.decode(data).astype(float) - pixels) ** 2)
        )

    assert len(chosen) < 0.96 * len(rounded)
    assert psnr(chosen) > psnr(as_small)


def test_the_importance_map_has_one_level_per_16_pixels(pixels, data, loaded):
    """importance_map() gives the levels that the encoder chose, on the coarser grid."""
    found = pillow_cwic.importance_map(data)
    assert found.shape == (14, 19)
    assert np.array_equal(found, analysis.Analysis(loaded, pixels).coded(4).level)


def test_a_picture_of_importance_moves_the_quality(pixels, data, path):
    """Regions have their own gains in encoder and decoder.

    Neutral grey changes nothing, a white half changes bytes.
    """
    neutral = np.full(pixels.shape[:2], 128, np.uint8)
    mask = neutral.copy()
    mask[:, 160:] = 255
    same = pillow_cwic.decode(
        pillow_cwic.encode(pixels, quality=0.5, importance=neutral, model=path)
    ).astype(int)
    assert np.abs(same - pillow_cwic.decode(data)).max() <= 1
    moved = container.read(pillow_cwic.encode(pixels, quality=0.5, importance=mask, model=path))
    assert len(moved.tiles[0]) > len(container.read(data).tiles[0])
    assert decoding.decode_container(moved).shape == pixels.shape
