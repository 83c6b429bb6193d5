"""Colours that nobody sees cost nothing, and do not show."""

from __future__ import annotations

import tracemalloc
from io import BytesIO

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

import pillow_cwic
from pillow_cwic.exact import continuation
from pillow_cwic.exact.continuation import continue_smoothly


@pytest.fixture(scope="module")
def hidden() -> np.ndarray:
    """A disc that is seen, bool [72,88]: what is outside is hidden."""
    rows, columns = np.ogrid[:72, :88]
    return (rows - 36) ** 2 + (columns - 44) ** 2 > 30**2


def over(photo: Image.Image, hidden: np.ndarray, below: object) -> np.ndarray:
    """The photograph with other colours where it is hidden, RGBA."""
    rgb = np.where(hidden[..., None], below, np.asarray(photo)).astype(np.uint8)
    return np.dstack([rgb, np.where(hidden, 0, 255).astype(np.uint8)])


def test_hidden_colours_cost_nothing(photo: Image.Image, hidden: np.ndarray) -> None:
    """Whatever is below alpha = 0, the file is the same; by every entry."""
    noise = np.random.default_rng(1).integers(0, 256, (72, 88, 3))
    files = [pillow_cwic.encode(over(photo, hidden, below)) for below in (0, (0, 255, 0), noise)]
    assert files[0] == files[1] == files[2]
    picture = over(photo, hidden, noise)
    assert iio.imwrite("<bytes>", picture, extension=".cwic") == files[0]
    saved = BytesIO()
    Image.fromarray(picture).save(saved, "CWIC")
    assert saved.getvalue() == files[0]
    kept = pillow_cwic.encode(picture, exact_alpha=True)
    assert len(kept) > 1.5 * len(files[0])


def test_hidden_colours_do_not_bleed(photo: Image.Image, hidden: np.ndarray) -> None:
    """What is seen at the edge is as close as if the photograph went on behind it."""
    near = ~hidden & (np.roll(hidden, 2, 0) | np.roll(hidden, -2, 0) | np.roll(hidden, 2, 1))

    def error(picture: np.ndarray, **options: object) -> float:
        decoded = pillow_cwic.decode(pillow_cwic.encode(picture, quality=0.3, **options))
        return float(np.abs(decoded[..., :3].astype(int) - np.asarray(photo))[near].mean())

    green = over(photo, hidden, (0, 255, 0))
    best = error(over(photo, hidden, np.asarray(photo)), exact_alpha=True)
    assert error(green) < 1.3 * best
    assert error(green, exact_alpha=True) > 1.5 * best


def test_exact_alpha_keeps_hidden_colours(photo: Image.Image, hidden: np.ndarray) -> None:
    """They come back as other colours do, and alpha exactly in both cases."""
    green = over(photo, hidden, (0, 255, 0))
    inside = np.s_[:8, :8]
    for exact, close in ((True, True), (False, False)):
        decoded = pillow_cwic.decode(pillow_cwic.encode(green, exact_alpha=exact))
        assert np.array_equal(decoded[..., 3], green[..., 3])
        far = np.abs(decoded[inside][..., :3].astype(int) - (0, 255, 0)).mean()
        assert (far < 30) == close
    with pytest.raises(TypeError, match="exact_alpha is True or False, found 1"):
        pillow_cwic.encode(green, exact_alpha=1)


def test_alpha_above_nothing_counts_as_seen(photo: Image.Image, hidden: np.ndarray) -> None:
    """Colours below alpha = 1 are visible; a picture of which nothing is seen has none."""
    faint = np.dstack([np.asarray(photo), np.where(hidden, 1, 255).astype(np.uint8)])
    assert pillow_cwic.encode(faint) == pillow_cwic.encode(faint, exact_alpha=True)
    nothing = [np.dstack([pixels, np.zeros((72, 88), np.uint8)]) for pixels in (photo, faint * 0)]
    nothing = [picture[..., [0, 1, 2, -1]] for picture in nothing]
    assert pillow_cwic.encode(nothing[0]) == pillow_cwic.encode(nothing[1])
    grey = np.dstack([np.asarray(photo.convert("L")), np.where(hidden, 0, 255).astype(np.uint8)])
    again = grey * (grey[..., 1:] > 0)
    assert pillow_cwic.encode(grey) == pillow_cwic.encode(again)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (13, 2), (37, 64)])
def test_what_is_seen_stays(shape: tuple[int, int]) -> None:
    """Visible pixels are untouched, hidden ones lie between them, and a flat picture stays flat."""
    random = np.random.default_rng(3)
    pixels = random.integers(40, 200, (*shape, 3)).astype(np.uint8)
    hidden = random.random(shape) < 0.7
    hidden[0, 0] = False
    filled = continue_smoothly(pixels, hidden)
    assert np.array_equal(filled[~hidden], pixels[~hidden])
    assert filled.min() >= pixels[~hidden].min()
    assert filled.max() <= pixels[~hidden].max()
    flat = np.where(hidden[..., None], 255, np.uint8(90)).astype(np.uint8).repeat(3, 2)[..., :3]
    assert (continue_smoothly(flat, hidden) == 90).all()


@pytest.mark.parametrize("shape", [(70, 33), (200, 17), (97, 1), (1, 97), (16, 160)])
@pytest.mark.parametrize("share", [0.02, 0.6, 0.98])
def test_strips_do_not_show(
    shape: tuple[int, int], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strip by strip of 16 rows gives what the whole gives, hidden here and there or in blocks."""
    chance = np.random.default_rng(5)
    pixels = chance.integers(0, 256, (*shape, 3)).astype(np.uint8)
    blocks = np.kron(chance.random((13, 11)) < share, np.ones((16, 16), bool))
    for masked in (chance.random(shape) < share, blocks[: shape[0], : shape[1]]):
        whole = continue_smoothly(pixels, masked)
        with monkeypatch.context() as patch:
            patch.setattr(continuation, "STRIP_PIXELS", 1)
            assert np.array_equal(continue_smoothly(pixels, masked), whole)


def test_a_continuation_takes_no_memory_by_the_pixel() -> None:
    """Beside the result it holds strips of a megapixel and a 256th of the picture."""
    pixels = np.zeros((3000, 4000, 3), np.uint8)
    masked = np.zeros((3000, 4000), bool)
    masked[:1500, :1000] = True
    tracemalloc.start()
    continue_smoothly(pixels, masked)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < pixels.nbytes + 130e6
