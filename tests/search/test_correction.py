"""Correction: what the decoder shows wrong is put right in the codes."""

import numpy as np
import pytest
import tiny_model
import torch

from pillow_cwic.analysis import Analysis
from pillow_cwic.format.grid import Box, tiles
from pillow_cwic.runtime import threads
from pillow_cwic.search.correction import correct
from pillow_cwic.synthesis import synthesize
from pillow_cwic.training import initial
from pillow_cwic.training.integer_weights import export_weights
from pillow_cwic.weights import models

BEST = tiny_model.CONFIG.quality_count - 1


def exported(path, pixels, gain=1.0, device="cpu"):
    """A model of principal components, whose encoder makes its codes `gain` times as large."""
    joint = tiny_model.joint()
    crops = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255
    initial.start(joint, lambda: crops)
    with torch.no_grad():
        for parameter in joint.encoder.convolution("shortcut").parameters():
            parameter.mul_(gain)
    export_weights(joint, path)
    return models.load(path, device)


def squared_error(analysis, coded, size):
    """Of what the codes decode to, mean over pixels and bands."""
    shown = synthesize(
        analysis.model, coded.codes, (coded.quality_index, None), analysis.grid, Box(0, 0, *size)
    )
    return np.mean((shown.astype(float) - analysis.pixels) ** 2)


@pytest.fixture
def pixels(face):
    """144 x 176 pixels of a face."""
    return np.ascontiguousarray(np.asarray(face)[:144, :176])


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_an_encoder_that_is_off_is_put_right(tmp_path, pixels, device):
    """Codes that are a fifth too small lose nine tenths of what that costs, from tile to tile."""
    size = pixels.shape[1], pixels.shape[0]
    good = Analysis(exported(tmp_path / "good.safetensors", pixels, device=device), pixels)
    least = squared_error(good, good.coded(BEST), size)

    path = tmp_path / "off.safetensors"
    off = Analysis(exported(path, pixels, gain=0.8, device=device), pixels)
    coded = off.coded(BEST)
    before = squared_error(off, coded, size)
    correct(off, tiles(*size, 64), coded, np.zeros(coded.level.shape, np.bool_))
    assert squared_error(off, coded, size) - least < 0.1 * (before - least)


def test_only_what_is_shown_is_corrected(tmp_path, pixels):
    """Tiles that are exact altogether keep their codes; others don't."""
    analysis = Analysis(exported(tmp_path / "off.safetensors", pixels, gain=0.8), pixels)
    coded, before = analysis.coded(BEST), analysis.coded(BEST)
    exact = np.zeros(coded.level.shape, np.bool_)
    exact[:, :4] = True
    correct(analysis, tiles(176, 144, 64), coded, exact)
    assert np.array_equal(coded.codes[:, :4], before.codes[:, :4])
    assert not np.array_equal(coded.codes[:, 4:8], before.codes[:, 4:8])
    assert np.array_equal(coded.level, before.level)


def test_signs_stay_as_they_are(tmp_path, pixels):
    """Codes of one threshold have no remainders, and nothing is tried on them."""
    path = tmp_path / "signs.safetensors"
    tiny_model.export(path, config=tiny_model.ONE_BIT)
    analysis = Analysis(models.load(path, "cpu"), pixels)
    coded, before = analysis.coded(BEST), analysis.coded(BEST)
    correct(analysis, tiles(176, 144, 64), coded, np.zeros(coded.level.shape, np.bool_))
    assert np.array_equal(coded.codes, before.codes)


def test_threads_change_nothing(tmp_path, pixels, monkeypatch):
    """With one core or four, the same codes but for features on the edge between two."""
    pixels = np.tile(pixels, (1, 3, 1))  # wide enough for two windows
    results = []
    for cores in (1, 4):
        monkeypatch.setattr(threads, "available_cores", lambda cores=cores: cores)
        analysis = Analysis(exported(tmp_path / "off.safetensors", pixels, gain=0.8), pixels)
        coded = analysis.coded(BEST)
        correct(analysis, tiles(528, 144, 1024), coded, np.zeros(coded.level.shape, np.bool_))
        results.append(coded.codes)
    assert (results[0] != results[1]).mean() < 1e-3
