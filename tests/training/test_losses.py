"""Losses and curves: the numbers that training minimises and evaluation reports."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from training_pictures import photographs

from pillow_cwic.metrics import LUMA
from pillow_cwic.metrics.pictures import ssim
from pillow_cwic.tools.rivals import CURVES
from pillow_cwic.training import recipe as recipes
from pillow_cwic.training.curves import (
    Curve,
    CurvePoint,
    bd_rate,
    delta_table,
    load_anchors,
    mean_curves,
)
from pillow_cwic.training.distortion import Blur, banded, similarities
from pillow_cwic.training.joint_codec import JointCodec, Outcome
from pillow_cwic.training.losses import importance_rate, ms_ssim, rate_distortion
from pillow_cwic.training.measures import Result, Trial, compare_trial, measure

TINY = recipes.load("smoke").model


def noisy(shape: tuple[int, ...], amount: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A photograph cut to shape [B,3,h,w], and a noisy copy."""
    generator = torch.Generator().manual_seed(3)
    picture = torch.from_numpy(photographs()["coffee"].copy()).permute(2, 0, 1).float() / 255
    x = torch.stack([picture[:, 7 * k : 7 * k + shape[2], : shape[3]] for k in range(shape[0])])
    return x, (x + amount * torch.randn(x.shape, generator=generator)).clamp(0, 1)


@pytest.mark.parametrize("shape", [(2, 3, 256, 256), (1, 3, 161, 300), (1, 3, 203, 187)])
@pytest.mark.parametrize("amount", [0.01, 0.1, 0.4])
def test_ms_ssim_equals_the_library(shape: tuple[int, ...], amount: float) -> None:
    """The training loss's MS-SSIM equals pytorch-msssim's to 1e-5, and so does its gradient.

    At odd sizes, too.
    """
    from pytorch_msssim import ms_ssim as library

    x, y = noisy(shape, amount)
    mine, theirs = y.clone().requires_grad_(), y.clone().requires_grad_()
    value, expected = ms_ssim(mine, x), library(theirs, x, data_range=1.0, size_average=False)
    assert value.tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    value.sum().backward()
    expected.sum().backward()
    assert mine.grad is not None
    assert theirs.grad is not None
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-7)


def test_ssim_is_of_the_luma() -> None:
    """The SSIM beside it is pytorch-msssim's of the luma, near `evaluate`'s, which rounds it."""
    from pytorch_msssim import ssim as library

    pictures = [(picture * 255).round() for picture in noisy((2, 3, 203, 187), 0.1)]
    x, y = (picture / 255 for picture in pictures)
    both = [
        (torch.tensordot(torch.from_numpy(LUMA).float(), p, ([0], [1])) + 16 / 255)[:, None]
        for p in (x, y)
    ]
    expected = library(both[1], both[0], data_range=1.0, size_average=False)
    assert similarities(y, x)[1].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    reported = [ssim(*(p[k].permute(1, 2, 0).byte().numpy() for p in pictures)) for k in range(2)]
    assert expected.tolist() == pytest.approx(reported, abs=1e-3)
    outcome = Outcome(y, *torch.zeros(2, 2), torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))
    recipe, index = recipes.load("smoke"), torch.tensor([3, 3])
    config = replace(TINY, ssim_weight=(1.0, 1.0))
    weight = float(TINY.distortion_weight(index.float())[0])
    loss = rate_distortion(outcome, x, index, config, recipe.loss).loss.item()
    balance = (weight / recipe.loss.pivot) ** -recipe.loss.balance
    assert loss == pytest.approx(balance * weight * 200 * (1 - float(expected.mean())), rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (1, 4, 11, 12)])
def test_blurs_agree(shape: tuple[int, ...]) -> None:
    """The Gaussian window by sums and by banded matrices has one value and gradient.

    CPUs take the one, GPUs the other.
    """
    torch.manual_seed(0)
    x, y = torch.rand(shape, requires_grad=True), torch.rand(shape)
    (sums,) = torch.autograd.grad((Blur.apply(x) ** 2).sum(), x)
    (products,) = torch.autograd.grad((banded(x) ** 2).sum(), x)
    torch.testing.assert_close(Blur.apply(y), banded(y), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sums, products, rtol=1e-4, atol=1e-5)


def test_ms_ssim_of_small_pictures() -> None:
    """Under 161 pixels fewer scales are used, and the value of equal pictures is still 1.

    Under 11 there is none.
    """
    x, y = noisy((1, 3, 64, 64), 0.1)
    assert ms_ssim(x, x).item() == pytest.approx(1, abs=1e-6)
    assert 0.3 < ms_ssim(x, y).item() < 0.99
    with pytest.raises(ValueError, match="at least 11 pixels on each side, found 10"):
        ms_ssim(x[..., :10], y[..., :10])


def test_rate_distortion_loss_by_hand() -> None:
    """The loss is the mean of (lambda / pivot) ** -balance * (bpp + lambda * 255^2 * MSE).

    Lambda is each sample's own. Of the bits, the map's count four times at the lowest quality.
    """
    recipe = recipes.load("smoke")
    torch.manual_seed(0)
    joint, x, index = JointCodec(TINY), torch.rand(2, 3, 64, 64), torch.tensor([0, 7])
    with torch.no_grad():
        outcome = joint(x, index)
    terms = rate_distortion(outcome, x, index, TINY, recipe.loss)
    expected = 0.0
    for k, weight in enumerate((TINY.lambda_min, TINY.lambda_max)):
        map_weight = 1 if k else 4
        bpp = float(outcome.code_bits[k] + map_weight * outcome.map_bits[k]) / 64**2
        mse = float(((outcome.picture[k] - x[k]) ** 2).mean())
        expected += (weight / 0.006) ** -0.4 * (bpp + weight * 255**2 * mse) / 2
    assert terms.loss.item() == pytest.approx(expected, rel=1e-5)
    assert terms.ms_ssim.item() == pytest.approx(
        ms_ssim(outcome.picture, x).mean().item(), rel=1e-5
    )


def test_first_stage_of_the_paper_has_no_importance_map() -> None:
    """Without the map all planes are kept, the map costs no bits.

    Neither its branch nor its network learns.
    """
    recipe = recipes.load("paper")
    torch.manual_seed(0)
    joint, x, index = (
        JointCodec(recipe.model),
        torch.rand(1, 3, 64, 64),
        torch.zeros(1, dtype=torch.long),
    )
    joint.use_importance, joint.rate_trains_encoder = False, False
    outcome = joint(x, index)
    importance_rate(
        outcome, x, index, recipe.model, recipe.loss, stage=recipe.stages[0]
    ).loss.backward()
    assert outcome.level.unique().tolist() == [15]
    assert outcome.map_bits.tolist() == [0]
    assert (
        outcome.code_bits.detach().item() > 0.5 * 240 * 16
    )  # about one bit for each of 240 planes at 4 x 4 positions
    assert joint.encoder.convolution("importance.0").weight.grad is None
    assert joint.maps.out.weight.grad is None
    assert joint.encoder.stem.weight.grad is not None


def test_paper_loss_charges_only_importance_above_its_target() -> None:
    """The rate term is gamma * max(0, mean(p) - r), nothing below r.

    Bits teach the entropy networks but not the encoder.
    """
    recipe = recipes.load("paper")
    torch.manual_seed(0)
    joint, x, index = (
        JointCodec(recipe.model),
        torch.rand(1, 3, 64, 64),
        torch.zeros(1, dtype=torch.long),
    )
    joint.rate_trains_encoder = False
    outcome = joint(x, index)
    mean = outcome.importance.detach().mean().item()
    below, above = (
        importance_rate(
            outcome,
            x,
            index,
            recipe.model,
            recipes.LossRecipe(importance_target=target),
            stage=recipe.stages[1],
        )
        .loss.detach()
        .item()
        for target in (mean + 0.01, mean - 0.01)
    )
    assert above - below == pytest.approx(10.0, rel=1e-2)  # gamma 1000 times 0.01
    (outcome.code_bits + outcome.map_bits).sum().backward()
    assert joint.encoder.stem.weight.grad is None
    assert joint.planes.step[0].out.weight.grad is not None
    assert joint.maps.out.weight.grad is not None


def curve(name: str, factor: float = 1.0, shift: float = 0.0) -> Curve:
    """PSNR = 30 + 6 * log2(bpp / factor) + shift."""
    rates = (0.125, 0.25, 0.5, 1.0)
    return Curve(
        name, tuple(CurvePoint(factor * r, psnr=30 + 6 * float(np.log2(r)) + shift) for r in rates)
    )


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3])
def test_bd_rate_of_scaled_rates(factor: float) -> None:
    """A codec that needs `factor` times the bits has a BD-rate of 100 * (factor - 1) percent.

    Exactly.
    """
    assert bd_rate(curve("a"), curve("b", factor), "psnr") == pytest.approx(
        100 * (factor - 1), abs=1e-9
    )


def test_bd_rate_of_better_pictures() -> None:
    """1 dB better on a curve of 6 dB per doubling saves 1 - 2^(-1/6) of the bits."""
    assert bd_rate(curve("a"), curve("b", shift=1.0), "psnr") == pytest.approx(
        100 * (2 ** (-1 / 6) - 1), rel=1e-6
    )


def test_bd_rate_without_common_range() -> None:
    """Curves that share no quality, or a metric that is not known, have no BD-rate.

    The table shows a dash.
    """
    assert bd_rate(curve("a"), curve("b", shift=100), "psnr") is None
    assert bd_rate(curve("a"), curve("b"), "ssim") is None
    assert (
        delta_table([curve("b", 0.8)], [curve("a")], None).splitlines()[-1]
        == "| b | a | -20.0% | - | - |"
    )


def test_bd_rate_within_given_rates() -> None:
    """With a range of rates only that part of the anchor counts.

    Here the upper half, where the test is worse.
    """
    values = np.arange(20, 45)
    rates = 2.0 ** ((values - 44) / 6)  # 0.0625 .. 1
    anchor = Curve(
        "a", tuple(CurvePoint(float(r), psnr=float(v)) for r, v in zip(rates, values, strict=True))
    )
    dearer = np.where(rates > 0.25, 1.2, 1.0) * rates
    test = Curve(
        "b", tuple(CurvePoint(float(r), psnr=float(v)) for r, v in zip(dearer, values, strict=True))
    )
    assert bd_rate(anchor, test, "psnr", (0.4, 1.0)) == pytest.approx(20, abs=0.05)
    assert bd_rate(anchor, test, "psnr", (0.0625, 0.2)) == pytest.approx(0, abs=0.05)
    whole = bd_rate(anchor, test, "psnr")
    assert whole is not None
    assert 5 < whole < 15


def test_curves_are_means_over_pictures() -> None:
    """A point is the mean over the pictures of a setting.

    MS-SSIM is averaged before it becomes decibels.
    """
    rows = [Result("x", 0, "a", 0.2, 30.0, 0.8, 0.90), Result("x", 0, "b", 0.4, 32.0, 0.9, 0.98)]
    (found,) = mean_curves(rows)
    assert found.points[0].bpp == pytest.approx(0.3)
    assert found.points[0].psnr == pytest.approx(31)
    assert found.points[0].ssim == pytest.approx(0.85)
    assert found.points[0].ms_ssim_db == pytest.approx(-10 * np.log10(0.06))


def test_measures_of_a_known_distortion() -> None:
    """bpp comes from the byte count, PSNR from the error.

    An unchanged picture has SSIM and MS-SSIM 1.
    """
    pixels = photographs()["rocket"][:200, :200]
    changed = np.where(pixels < 128, pixels + 5, pixels - 5).astype(np.uint8)
    result = compare_trial(Trial("x", 0, "p"), pixels, changed, 1000)
    assert result.bpp == 8 * 1000 / 200**2
    assert result.psnr == pytest.approx(20 * np.log10(255 / 5), abs=1e-9)
    same = compare_trial(Trial("x", 0, "p"), pixels, pixels.copy(), 1)
    assert (same.ssim, same.ms_ssim) == (pytest.approx(1), pytest.approx(1))
    small = compare_trial(Trial("x", 0, "p"), pixels[:100, :10], pixels[:100, :10], 1)
    assert (small.ssim, small.ms_ssim) == (None, None)


@pytest.mark.parametrize("codec", CURVES)
def test_pillow_codecs_rise_with_their_setting(codec: str) -> None:
    """Each codec's settings rise in rate, and PSNR with them."""
    if not CURVES[codec].available:
        pytest.skip(f"this Pillow does not write {codec}")
    results = list(measure(codec, "p", photographs()["chelsea"][:176, :176]))
    assert all(a.bpp <= b.bpp and a.psnr <= b.psnr for a, b in pairwise(results))
    assert results[-1].psnr > results[0].psnr + 5


def test_anchors_from_json(tmp_path: Path) -> None:
    """Published curves are read from JSON.

    A wrong field is a ValueError that names the file and the field.
    """
    path = tmp_path / "anchors.json"
    path.write_text(
        json.dumps({"curves": [{"name": "Z", "points": [{"bpp": 0.5, "psnr": 31}, {"bpp": 0.1}]}]})
    )
    assert load_anchors(path) == [Curve("Z", (CurvePoint(0.1), CurvePoint(0.5, psnr=31)))]
    path.write_text(json.dumps({"curves": [{"name": "Z", "points": [{"bpp": 0.5, "pnsr": 31}]}]}))
    with pytest.raises(
        ValueError, match=r"anchors.json: expected curves with name and points.*pnsr"
    ):
        load_anchors(path)


def test_the_best_tune_is_chosen_by_measure_and_the_worst_picture_is_named() -> None:
    """A codec that needs twice the bits of one tune and half of another's is told +100 %.

    The picture on which it loses most is named.
    """
    from pillow_cwic.training.evaluate import best_tune_rows

    def results(codec: str, picture: str, factor: float) -> list[Result]:
        return [
            Result(
                codec, n, picture, factor * 0.1 * 2**n, 25.0 + 3 * n, 0.7 + 0.05 * n, 0.9 + n / 50
            )
            for n in range(4)
        ]

    rows = [
        row
        for picture, own in (("calm", 2.0), ("busy", 4.0))
        for row in (
            *results("AVIF tune psnr", picture, 1.0),
            *results("AVIF tune iq", picture, 4.0),
            *results("mine", picture, own),
        )
    ]
    tunes = {"AVIF tune psnr", "AVIF tune iq"}
    found = best_tune_rows(rows, "mine", tunes, None)
    assert set(found) == {"psnr", "ssim", "ms_ssim_db"}
    for row in found.values():
        assert row == "psnr | +200.0% | +200.0% | +300.0% busy |"
