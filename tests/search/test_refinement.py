"""Refinement: what `effort` buys, that it never costs, and that nothing else of a file changes."""

from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from coding import encode_in_tiles, kept, load, pack
from PIL import Image, ImageDraw
from tiny_model import ONE_BIT, export

import pillow_cwic
from pillow_cwic.analysis import Analysis, Coded
from pillow_cwic.entropy.ladder import UNIT
from pillow_cwic.entropy.range_coder import RangeWriter
from pillow_cwic.format import container, exact_tile
from pillow_cwic.format.grid import tiles
from pillow_cwic.metrics import pictures
from pillow_cwic.search import refinement
from pillow_cwic.tools import demo
from pillow_cwic.tools.cli import main


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A photograph's middle, 192 x 160 pixels.

    Gaussian windows of all five scales fit its longer side only.
    """
    with Image.open(demo.SHIPPED) as image:
        return np.asarray(image.convert("RGB").crop((150, 60, 342, 220)))


def analysed(pixels: np.ndarray, quality_index: int) -> tuple[Analysis, Coded]:
    """The analysis of a picture, and what it finds."""
    analysis = Analysis(load(), pixels)
    return analysis, analysis.coded(quality_index)


def distortion(pixels: np.ndarray, shown: np.ndarray, quality_index: int) -> float:
    """How far a decoded picture is from the pixels: what training minimises, as PyTorch has it."""
    torch = pytest.importorskip("torch", reason="measures with training's own distortion")
    from pillow_cwic.training.distortion import distortion

    both = [torch.from_numpy(x.transpose(2, 0, 1)[None] / 255).float() for x in (pixels, shown)]
    shares = load().config.similarity_weights(float(quality_index))
    *_, distance = distortion(*both, *map(torch.tensor, shares))
    return float(distance)


def cost(pixels: np.ndarray, data: bytes) -> float:
    """Bits + lambda * pixels * distortion: what training minimises."""
    index = container.read_header(data).quality_index
    weight = load().config.distortion_weight(index) * pixels.shape[0] * pixels.shape[1]
    return 8 * len(data) + weight * distortion(pixels, pillow_cwic.decode(data), index)


@pytest.mark.parametrize("quality", [0.2, 0.5, 0.8])
def test_effort_makes_files_better(pixels, quality):
    """With six passes, bits + lambda * distortion fall by 1 %, and SSIM does not fall.

    The size changes little.
    """
    plain, refined = (
        pillow_cwic.encode(pixels, quality=quality, effort=effort) for effort in (0, 6)
    )
    assert cost(pixels, refined) < 0.99 * cost(pixels, plain)
    assert abs(len(refined) - len(plain)) < 0.15 * len(plain)
    shown = [pillow_cwic.decode(data) for data in (plain, refined)]
    assert pictures.ssim(pixels, shown[1]) > pictures.ssim(pixels, shown[0])
    assert container.read_header(refined).model_id == container.read_header(plain).model_id


def test_nothing_is_spent_on_exact_blocks(pixels):
    """Pixels that come from elsewhere are no distortion, and nothing pulls at their codes."""
    analysis, coded = analysed(pixels[:64, :64], 32)
    box = tiles(64, 64, 1024)[0]
    none = np.zeros(coded.level.shape, bool)
    both = []
    for exact in (none, ~none):
        search = refinement.Search(analysis, coded, box, exact=exact)
        (strip,) = search.strips
        both.append(strip.slope(search.codes))
    (cost, gradient), (rest, pull) = both
    assert cost > 100
    assert abs(rest) < 0.001 * cost
    assert np.abs(pull).max() < 0.001 * np.abs(gradient).max()


def test_effort_and_exact_blocks_go_together(pixels):
    """Beside text, a photograph gets better as it does alone; the text stays as it is."""
    page = np.full((160, 288, 3), 255, np.uint8)
    page[:, 96:] = pixels
    image = Image.fromarray(page)
    for line in range(10):
        ImageDraw.Draw(image).text((2, 16 * line), f"The quick fox {line}", fill="black")
    page = np.asarray(image)
    plain, refined = (pillow_cwic.encode(page, quality=0.5, effort=effort) for effort in (0, 4))
    parts = [
        exact_tile.unpack_tile(container.read(data).tiles[0], (10, 18)) for data in (plain, refined)
    ]
    assert 0.2 < parts[0].exact.mean() < 0.5
    assert np.array_equal(parts[0].exact, parts[1].exact)
    assert parts[0].picture == parts[1].picture
    assert cost(page, refined) < cost(page, plain)


def test_refinement_minimises_the_distortion_of_the_model(pixels, monkeypatch):
    """Shares of the similarities come from the model, linear in the quality index.

    More of SSIM, less of PSNR.
    """
    model, shown = load(), []
    for share in (0.0, 1.0):
        config = replace(model.config, ms_ssim_weight=(0.0, 0.0), ssim_weight=(0.0, share))
        assert config.similarity_weights(21.0) == (0, pytest.approx(share / 3))
        monkeypatch.setattr(model, "config", config)
        shown.append(pillow_cwic.decode(pillow_cwic.encode(pixels, quality=0.8, effort=8)))
    assert pictures.ssim(pixels, shown[1]) > pictures.ssim(pixels, shown[0])
    assert pictures.psnr(pixels, shown[1]) < pictures.psnr(pixels, shown[0])


def test_more_passes_are_better(pixels):
    """Two passes are better than none, ten better than two."""
    costs = [
        cost(pixels, pillow_cwic.encode(pixels, quality=0.5, effort=effort))
        for effort in (0, 2, 10)
    ]
    assert costs == sorted(costs, reverse=True)


def test_effort_helps_most_where_the_encoder_is_lost():
    """A page of small text by the networks alone, which no photograph prepares for.

    Ten passes gain 2 dB and more at about the same size.
    """
    image = Image.new("RGB", (192, 96), "white")
    for line in range(8):
        ImageDraw.Draw(image).text(
            (4, 12 * line), f"The quick brown fox jumps {line}", fill="black"
        )
    page = np.asarray(image)
    plain, refined = (
        pillow_cwic.encode(page, quality=0.5, effort=effort, exact=False) for effort in (0, 10)
    )
    assert len(refined) < 1.06 * len(plain)
    assert (
        pictures.psnr(page, pillow_cwic.decode(refined))
        > pictures.psnr(page, pillow_cwic.decode(plain)) + 2
    )


def test_the_worst_search_gives_the_codes_it_began_with(pixels, monkeypatch):
    """A search that only spoils the codes ends with those of lowest cost: the first."""
    monkeypatch.setattr(refinement, "TEMPERATURE", 1e9)  # changes are made whatever they cost
    assert pillow_cwic.encode(pixels, quality=0.5, effort=3) == pillow_cwic.encode(
        pixels, quality=0.5
    )


def test_the_same_call_gives_the_same_file(pixels):
    """Refinement draws its changes from a generator of its own, and leaves the user's alone."""
    np.random.seed(1)
    first = pillow_cwic.encode(pixels, quality=0.4, effort=2)
    drawn = np.random.random()
    np.random.seed(1)
    assert drawn == np.random.random()
    assert pillow_cwic.encode(pixels, quality=0.4, effort=2) == first


def test_gradients_foretell_the_cost(pixels):
    """Codes moved a little along their gradient cost as much more as it says, within 2 %.

    Of a strip in its window, lambda and shares of the similarities included.
    """
    analysis, coded = analysed(pixels, 30)
    search = refinement.Search(
        analysis, coded, analysis.grid, exact=np.zeros(coded.level.shape, bool)
    )
    (strip,) = search.strips
    codes = search.codes.astype(np.float32)
    cost, gradient = strip.slope(codes)
    assert cost == pytest.approx(strip.cost(codes), rel=1e-5)
    step = 0.02 * gradient / np.abs(gradient).max()
    change = (strip.cost(codes + step) - strip.cost(codes - step)) / 2
    assert change == pytest.approx(float((gradient * step).sum()), rel=0.02)


def test_expected_bits_are_those_of_the_stream(pixels):
    """The prices of a tile's codes add up to what the coder takes for them, within 1 %."""
    analysis, coded = analysed(pixels, 40)
    entropy = analysis.model.entropy
    prices = entropy.codes.ladder.prices
    mean, scale = entropy.codes.distributions(coded.codes, coded.level, 40)
    distance = np.abs(coded.codes.astype(np.int64) * UNIT - mean).clip(max=prices.shape[1] - 1)
    bits = (prices[scale, distance] * kept(coded, analysis.model)).sum()
    writer = RangeWriter()
    entropy.codes.walk(writer, coded.level, 40, coded.codes)
    assert bits == pytest.approx(8 * len(writer.to_bytes()), rel=0.01)


def test_only_codes_that_exist_change(pixels):
    """Where the importance map keeps no channel, codes stay 0: the decoder would never see them."""
    analysis, coded = analysed(pixels, 40)
    refined = refinement.refine(analysis, [analysis.grid], coded, 2).codes
    assert not refined[~kept(coded, analysis.model)].any()
    assert (refined != coded.codes).any()


def test_strips_of_a_tile_make_it_as_much_better(pixels):
    """Gradients that are computed in strips lead to files as good as those of a whole tile."""
    analysis, coded = analysed(pixels, 50)
    plain = cost(pixels, pack(analysis, coded))
    for strip in (3, 48):
        refined = refinement.refine(analysis, [analysis.grid], coded, 6, strip=strip)
        assert cost(pixels, pack(analysis, refined)) < 0.985 * plain


def test_tiles_are_refined_each_with_its_surroundings(pixels):
    """In small tiles files are nearly as much better as in one, and most tiles change."""
    plain, refined = (encode_in_tiles(pixels, quality=0.8, effort=effort) for effort in (0, 6))
    assert cost(pixels, refined) < 0.992 * cost(pixels, plain)
    both = container.read(plain).tiles, container.read(refined).tiles
    assert len(both[0]) == len(tiles(192, 160, 64))
    assert (
        sum(a != b for a, b in zip(*both, strict=True)) >= 5
    )  # of 9: in a flat one there may be nothing to gain


def test_regions_keep_their_weight(pixels):
    """With an importance picture, effort improves both halves, and moves no bits."""
    mask = np.full(pixels.shape[:2], 90, np.uint8)
    mask[:, :96] = 166
    plain, refined = (
        pillow_cwic.encode(pixels, quality=0.4, importance=mask, effort=effort) for effort in (0, 6)
    )
    assert abs(len(refined) - len(plain)) < 0.1 * len(plain)
    index = container.read_header(plain).quality_index
    for half in (slice(0, 96), slice(96, None)):
        before, after = (
            distortion(pixels[:, half], pillow_cwic.decode(data)[:, half], index)
            for data in (plain, refined)
        )
        assert after < before


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40), (17, 33, 4), (50, 9, 2)])
def test_any_picture_can_be_refined(shape):
    """Also tiny ones, whose similarities have to reach beyond the picture; grey.

    Alpha stays exact.
    """
    a = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    b = pillow_cwic.decode(pillow_cwic.encode(a, quality=0.9, effort=2))
    assert b.shape == a.shape
    if len(shape) == 3 and shape[2] in (2, 4):
        assert np.array_equal(a[..., -1], b[..., -1])


@pytest.mark.parametrize("limit", [450, 800, 2500])
def test_max_bytes_holds_with_effort(pixels, limit):
    """The refined file fits, and a better one would not.

    It is a refined one also where effort makes files larger.
    """
    data = pillow_cwic.encode(pixels, max_bytes=limit, effort=4)
    assert len(data) <= limit
    index = container.read_header(data).quality_index
    assert data == pillow_cwic.encode(pixels, quality=index / 63, effort=4)
    assert len(pillow_cwic.encode(pixels, quality=(index + 2) / 63, effort=4)) > limit


@pytest.mark.parametrize("bpp", [0.12, 0.5])
def test_bpp_is_met_with_effort(pixels, bpp):
    """A rate target counts the refined file.

    At low rates effort adds more to it than a step of quality does.
    """
    data, size = (
        pillow_cwic.encode(pixels, bpp=bpp, effort=4),
        bpp * pixels.shape[0] * pixels.shape[1] / 8,
    )
    index = container.read_header(data).quality_index
    assert data == pillow_cwic.encode(pixels, quality=index / 63, effort=4)
    for other in (index - 2, index + 2):
        away = abs(len(pillow_cwic.encode(pixels, quality=other / 63, effort=4)) - size)
        assert abs(len(data) - size) < away
    assert abs(len(data) - size) < 0.05 * size


@pytest.mark.parametrize("effort", [-1, 101, 1.5, True, "high", None])
def test_wrong_efforts_are_named(effort):
    """A ValueError says what effort is and what was found."""
    with pytest.raises(
        ValueError,
        match=rf"effort is a whole number of passes, 0 \(none\) to 100; found {effort!r}",
    ):
        pillow_cwic.encode(np.zeros((8, 8, 3), np.uint8), effort=effort)


def test_one_bit_codes_are_not_refined_silently(tmp_path):
    """A model whose codes are signs refuses effort instead of ignoring it."""
    export(tmp_path / "signs.safetensors", config=ONE_BIT)
    with pytest.raises(ValueError, match=r"effort = 3: model .* has one-bit codes"):
        pillow_cwic.encode(
            np.zeros((8, 8, 3), np.uint8), effort=3, model=tmp_path / "signs.safetensors"
        )


def test_pillow_imageio_and_the_command_line_pass_it_on(photo, tmp_path):
    """`save`, `imwrite` and the command line's `encode` give the file of `encode(effort=)`."""
    import imageio.v3 as iio

    wanted = pillow_cwic.encode(np.asarray(photo), quality=0.5, effort=2)
    file = BytesIO()
    photo.save(file, "CWIC", quality=0.5, effort=2)
    assert file.getvalue() == wanted
    assert (
        iio.imwrite("<bytes>", np.asarray(photo), extension=".cwic", quality=0.5, effort=2)
        == wanted
    )
    photo.save(tmp_path / "in.png")
    command = ["encode", str(tmp_path / "in.png"), str(tmp_path / "x.cwic")]
    assert main([*command, "-q", "--quality", "0.5", "--effort", "2"]) == 0
    assert (tmp_path / "x.cwic").read_bytes() == wanted
    with pytest.raises(SystemExit):
        main([*command, "--effort", "101"])
