"""The special case of one threshold: codes are -1 and +1 (`ladder = 0`), one bit each."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from both_decoders import agree
from coding import encode_in_tiles
from independent_decoder import File
from independent_entropy import Model as DocumentModel
from PIL import Image
from training_pictures import write_pieces

import pillow_cwic
from pillow_cwic import analysis, decoding, model
from pillow_cwic.format import container
from pillow_cwic.networks.binarizer import code_signs
from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.networks.importance import kept_mask
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.__main__ import main
from pillow_cwic.training.code_network import sign_bits
from pillow_cwic.training.losses import rate_distortion
from pillow_cwic.training.proxy_gradients import sign_through
from pillow_cwic.weights import models

CPU = "cpu"
CONFIG = tiny_model.ONE_BIT


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's weights file."""
    path = tmp_path_factory.mktemp("one-threshold") / "tiny.safetensors"
    tiny_model.export(path, config=CONFIG)
    return path


@pytest.fixture(scope="module")
def loaded(path: Path) -> model.Model:
    """The tiny model."""
    return models.load(path, CPU)


@pytest.fixture(scope="module")
def document(path: Path) -> DocumentModel:
    """The same in the hands of the independent decoder."""
    return DocumentModel(path.read_bytes())


@pytest.fixture(scope="module")
def pixels(photo: Image.Image) -> np.ndarray:
    """The photo at 147 x 101 pixels: six tiles of 64, ragged at both borders."""
    return np.asarray(photo.resize((147, 101)))


def random_signs(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes int16 [h,w,n] of either sign that the levels uint8 [h,w] allow, and those.

    Neighbours often agree.
    """
    random = np.random.default_rng(height * 1000 + width)
    level = random.integers(0, CONFIG.levels, (height, width)).astype(np.uint8)
    codes = code_signs(random.normal(0, 1, (height, width, CONFIG.channels)).cumsum(1))
    return codes * kept_mask(level, CONFIG.kept_planes), level


# Configuration and binarizer


def test_a_ladder_of_none_is_a_configuration():
    """`ladder = 0` reads and writes as JSON and means one threshold.

    Less than 0 or more than 63 is refused.
    """
    assert ModelConfig.from_dict(json.loads(CONFIG.to_json())) == CONFIG
    assert CONFIG.one_bit
    assert not tiny_model.CONFIG.one_bit
    for ladder in (-1, 64):
        with pytest.raises(ValueError, match=rf"ladder must be .* found {ladder}"):
            replace(CONFIG, ladder=ladder)


def test_codes_are_the_signs_of_the_features(loaded, pixels):
    """Where the map keeps a channel the code says whether the feature is above 0.

    Elsewhere it is 0.
    """
    walk = analysis.Analysis(loaded, pixels)
    coded = walk.coded(4)
    inputs = {"x": walk._heads(walk.grid, 4)[0], "pixels": walk.pixels_of(walk.grid)}
    (y,) = loaded.codes(CONFIG.channels)(inputs, 4.0, walk.grid, walk.grid)
    expected = np.where(y > 0, 1, -1) * kept_mask(coded.level, CONFIG.kept_planes)
    assert np.array_equal(coded.codes, expected)
    assert np.unique(coded.codes).tolist() == [-1, 0, 1]
    assert coded.codes.dtype == np.int16
    assert coded.remainders is None


# The decision


def test_more_likely_signs_cost_less():
    """The higher the mean, the cheaper +1 and the dearer -1; at a mean of 0 both cost one bit."""
    costs = [
        [
            float(sign_bits(torch.tensor(float(code)), torch.tensor(mean), torch.tensor(-1.0)))
            for code in (1, -1)
        ]
        for mean in (-1.0, -0.3, 0.0, 0.3, 1.0)
    ]
    assert costs[2] == [1, 1]
    assert all(low[0] > high[0] and low[1] < high[1] for low, high in pairwise(costs))


def test_the_rate_draws_features_to_the_predicted_side():
    """Through the signs' proxy function, a feature is pulled to its mean, from either side."""
    y = torch.tensor([-2.0, -0.1, 0.1, 2.0, -2.0, -0.1, 0.1, 2.0], requires_grad=True)
    mean = torch.tensor([0.5] * 4 + [-0.5] * 4)
    sign_bits(sign_through(y), mean, torch.zeros(8)).sum().backward()
    assert torch.equal(-y.grad.sign(), mean.sign())


# Exact integers


def test_real_bytes_are_what_training_estimates(loaded):
    """The stream is within 0.5% of the float networks' cross-entropy, which training minimises."""
    joint, (codes, level) = tiny_model.joint(config=CONFIG), random_signs(48, 40)
    v = torch.from_numpy(codes).permute(2, 0, 1)[None].float()  # [1,n,h,w]
    q, index = torch.from_numpy(level)[None, None].float(), torch.tensor([4])
    with torch.no_grad():
        mean, log_s = joint.planes(v, q, index)
        bits = float((sign_bits(v, mean, log_s) * v.abs()).sum())
        bits -= float(joint.maps(q, index).gather(1, q.long()).sum())
    assert float((mean.abs() > 1).float().mean()) > 0.1  # past the end of the table, too
    assert 8 * len(loaded.entropy.encode(codes, level, 4)) == pytest.approx(bits, rel=0.005)


# Through the whole codec


@pytest.mark.parametrize("size", [(1, 1), (17, 9), (50, 95)])
def test_any_size_comes_back(path, document, photo, size):
    """Pillow writes and reads pictures with alpha of any size.

    The independent decoder finds the same in the file.
    """
    picture = photo.resize(size[::-1])
    alpha = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size)
    picture.putalpha(Image.fromarray(alpha))
    file = io.BytesIO()
    picture.save(file, "CWIC", model=str(path), quality=1.0)
    found = np.asarray(Image.open(file))
    assert np.array_equal(found[..., 3], alpha)
    agree(File(file.getvalue(), document), file.getvalue(), found)


def test_tiles_regions_salvage_and_the_quality_map(path, document, pixels):
    """Six tiles with a quality map.

    The independent decoder agrees, a region is a crop, a lost tile costs no other.
    """
    importance = np.random.default_rng(0).integers(0, 256, (11, 16)).astype(np.uint8)
    data = encode_in_tiles(pixels, quality=0.6, importance=importance, model=path, device="cpu")
    file, whole = File(data, document), pillow_cwic.decode(data, device="cpu")
    assert len(file.tiles) == 6
    agree(file, data, whole)
    assert [tile.rewritten() for tile in file.tiles] == file.payloads("TILE")
    part = pillow_cwic.decode(data, region=(37, 50, 140, 101)).astype(int)
    assert np.abs(part - whole[50:101, 37:140]).max() <= 1
    read = container.read(data)
    lost = container.Container(
        container.read_header(data), (*read.tiles[:5], None), quality_map=read.quality_map
    )
    kept_part = decoding.decode_container(lost, region=(0, 0, 40, 40)).astype(int)
    assert np.abs(kept_part - whole[:40, :40]).max() <= 1


# Training

RECIPE = tiny_model.RECIPE
for usual, here in (
    ('name = "tiny"', 'name = "signs"'),
    ("ladder = 31", "ladder = 0"),
    ("[0, 3, 8, 16]", "[0, 4, 8, 16]"),
    ("quality_count = 8", "quality_count = 2"),
    ("[0, 7]", "[0, 1]"),
    ("2e-3", "5e-3"),
):
    assert usual in RECIPE
    RECIPE = RECIPE.replace(usual, here)


def test_every_parameter_learns_and_nothing_is_random():
    """The loss reaches all parts, the rate the encoder too.

    Two passes in training cost the same bits, to the bit.
    """
    joint = tiny_model.joint(config=CONFIG).train()
    torch.manual_seed(3)
    x, index = torch.rand(2, 3, 48, 48), torch.tensor([1, 6])
    outcome = joint(x, index)
    assert torch.equal(outcome.code_bits, joint(x, index).code_bits)
    (from_rate,) = torch.autograd.grad(
        outcome.code_bits.sum(), joint.encoder.convolution("codes").weight, retain_graph=True
    )
    assert float(from_rate.abs().sum()) > 0
    rate_distortion(outcome, x, index, CONFIG, recipes.LossRecipe()).loss.backward()
    idle = [
        n for n, p in joint.named_parameters() if p.grad is None or float(p.grad.abs().sum()) == 0
    ]
    # The first step knows no codes; quality modulation starts with its output layer at zero.
    assert [name for name in idle if ".hidden." not in name] == ["planes.step.0.known.weight"]


def test_a_run_learns_and_its_model_is_used(photo, tmp_path):
    """60 steps, stopped and resumed.

    The error falls, and Pillow saves and opens with the exported model.
    """
    write_pieces(tmp_path / "photos")
    (tmp_path / "signs.toml").write_text(RECIPE)
    command = ["train", str(tmp_path / "signs.toml"), "--data", str(tmp_path / "photos")]
    command += ["--out", str(tmp_path / "out"), "--quiet", "--device", "cpu"]
    command += ["--steps", "60", "--jobs", "1", "--threads", "1"]
    assert main([*command, "--stop-after", "0.001"]) == 0
    assert main([*command, "--resume"]) == 0
    log = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    errors = [line["mse"] for line in log if line["event"] == "step"]
    assert np.mean(errors[-3:]) < 0.6 * errors[0]
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (facts["steps"], facts["skipped_steps"], facts["finished"]) == (60, 0, True)
    assert "started_from" not in facts  # a start as a transform codec is for integer codes
    assert main(["export", str(tmp_path / "out"), "--name", "signs", "--out", str(tmp_path)]) == 0
    photo.save(tmp_path / "x.cwic", model=str(tmp_path / "signs.safetensors"), quality=1.0)
    with Image.open(tmp_path / "x.cwic") as image:
        assert np.asarray(image).shape == (72, 88, 3)
    assert models.load(tmp_path / "signs.safetensors", CPU).config.one_bit
