"""Training data: what is found, what is skipped and why, and what a crop is."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from training_pictures import PIECE, write_pieces

from pillow_cwic.training.crop_stream import CropStream, StreamPool
from pillow_cwic.training.crops import PixelPool, area_matrix, load_whole, open_data
from pillow_cwic.training.pictures import Picture, decode, find, survey
from pillow_cwic.training.recipe import DataRecipe

RECIPE = DataRecipe(crop=32, batch=16, min_pictures=2, validation_pictures=1)
CPU = torch.device("cpu")


def coordinates(height: int, width: int, mark: int) -> np.ndarray:
    """A picture whose every pixel says where it is: red = row, green = column, blue = `mark`."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, mark)], 2).astype(np.uint8)


def test_folders_and_tars_give_the_same_pictures(tmp_path: Path) -> None:
    """Pictures in a folder and in a tar are found by extension and decode to the same pixels.

    In sub-folders, too.
    """
    folder = tmp_path / "photos"
    files = write_pieces(folder / "deep")
    (folder / "notes.txt").write_text("not a picture")
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(folder, "photos")
    in_folder, in_tar = find([folder]), find([tmp_path / "photos.tar"])
    assert len(in_folder) == len(in_tar) == len(files)
    by_name = {Path(p.name).name: p for p in in_tar}
    for picture in in_folder:
        np.testing.assert_array_equal(decode(picture), decode(by_name[Path(picture.name).name]))


def test_compressed_tars_and_missing_folders_are_refused(tmp_path: Path) -> None:
    """A compressed tar and a path that does not exist are errors that say what is expected."""
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    with pytest.raises(OSError, match=r"x.tar.gz is not an uncompressed tar file.*unpack it"):
        find([tmp_path / "x.tar.gz"])
    with pytest.raises(OSError, match=r"no training data at .*nowhere"):
        find([tmp_path / "nowhere"])


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_pictures_are_listed_and_skipped(
    tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken, small, deep and bomb-sized files are skipped with a reason each.

    The good ones remain.
    """
    good = write_pieces(tmp_path / "p")[:3]
    for path in sorted((tmp_path / "p").iterdir()):
        if path not in good:
            path.unlink()
    (tmp_path / "p" / "broken.png").write_bytes(good[0].read_bytes()[:20])
    (tmp_path / "p" / "text.jpg").write_text("this is no picture")
    Image.new("RGB", (31, 400)).save(tmp_path / "p" / "small.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "p" / "deep.png")
    if jobs == 1:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300 * 300)
        Image.new("RGB", (310, 300)).save(tmp_path / "p" / "bomb.png")
    usable, skipped = survey(find([tmp_path / "p"]), 32, jobs)
    assert [p.path for p in usable] == sorted(good)
    assert {(p.width, p.height) for p in usable} == {(PIECE, PIECE)}
    reasons = {item.name: item.reason for item in skipped}
    assert reasons.pop("small.png") == "31x400 is smaller than 32 pixels"
    assert reasons.pop("deep.png") == "mode I;16 has more than 8 bits per band"
    assert reasons.pop("text.jpg") == "not a picture that Pillow can read"
    if jobs == 1:
        assert "decompression bomb" in reasons.pop("bomb.png")
    assert list(reasons) == ["broken.png"]


def test_a_truncated_picture_is_skipped_when_decoded(tmp_path: Path) -> None:
    """A file whose header is fine but whose pixels end early gives a reason instead of pixels."""
    path = write_pieces(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-5000])
    assert isinstance(decode(Picture("x", path)), str)


def test_too_few_pictures_are_an_error(tmp_path: Path) -> None:
    """Fewer usable pictures than the recipe wants is an error with both numbers and reasons."""
    write_pieces(tmp_path)
    (tmp_path / "bad.png").write_text("no")
    with pytest.raises(
        ValueError,
        match=r"(?s)found 18 usable pictures.*at least 500 \(min_pictures\).*"
        r"skipped bad.png: not a picture",
    ):
        open_data([str(tmp_path)], replace(RECIPE, min_pictures=500), 1)


def test_validation_pictures_are_held_out(tmp_path: Path) -> None:
    """Validation and training pictures do not overlap and are all pictures together.

    Whole ones end on the grid.
    """
    write_pieces(tmp_path)
    data = open_data([str(tmp_path)], replace(RECIPE, validation_pictures=2), 1)
    train, held = {p.path for p in data.train}, {p.path for p in data.validation}
    assert (len(train), len(held), train & held) == (16, 2, set())
    Image.new("RGB", (75, 2000)).save(tmp_path / "long.png")
    ((_, whole),) = load_whole([Picture("long.png", tmp_path / "long.png")], 1)
    assert whole.shape == (3, 1024, 64)


def test_crops_are_windows_of_one_picture() -> None:
    """Every crop is a window of one picture, perhaps flipped or transposed.

    All eight orientations occur.
    """
    sizes = ((40, 90), (120, 33), (32, 32))
    pool = PixelPool([coordinates(*size, mark=k) for k, size in enumerate(sizes)], RECIPE, CPU)
    torch.manual_seed(0)
    crops = torch.cat([pool.draw() for _ in range(16)])  # [256,3,32,32]
    assert crops.shape == (256, 3, 32, 32)
    seen = set()
    for crop in (crops * 255).round().int():
        mark = int(crop[2, 0, 0])
        height, width = sizes[mark]
        rows, columns = crop[0], crop[1]
        assert (crop[2] == mark).all()
        transposed = bool(rows[0, 0] != rows[0, 1])
        rows, columns = (rows.t(), columns.t()) if transposed else (rows, columns)
        steps = int(rows[1, 0] - rows[0, 0]), int(columns[0, 1] - columns[0, 0])
        assert (rows.diff(dim=0) == steps[0]).all()
        assert (columns.diff(dim=1) == steps[1]).all()
        assert int(rows.max()) < height
        assert int(columns.max()) < width
        seen.add((transposed, *steps))
    assert seen == {(t, y, x) for t in (False, True) for y in (1, -1) for x in (1, -1)}


def test_large_pictures_are_drawn_more_often() -> None:
    """A picture is drawn with probability proportional to area ** 0.7.

    At 4 times the area 4^0.7 times as often.
    """
    pool = PixelPool(
        [coordinates(64, 64, 0), coordinates(128, 128, 1)], replace(RECIPE, batch=4000), CPU
    )
    torch.manual_seed(0)
    large = float((pool.draw()[:, 2, 0, 0] > 0).float().mean())
    assert large == pytest.approx(4**0.7 / (1 + 4**0.7), abs=0.03)


def test_area_reduction_is_exact() -> None:
    """Reducing by 1 changes nothing, by 2 averages pairs, by 1.5 weights by overlap.

    Rows always sum to 1.
    """
    factors = torch.tensor([1.0, 2.0, 1.5])
    matrix = area_matrix(factors, 4, 8)
    assert matrix.sum(2) == pytest.approx(1)
    assert matrix[0, 2].tolist() == [0, 0, 1, 0, 0, 0, 0, 0]
    assert matrix[1, 1].tolist() == [0, 0, 0.5, 0.5, 0, 0, 0, 0]
    assert matrix[2, 1].tolist() == pytest.approx([0, 1 / 3, 2 / 3, 0, 0, 0, 0, 0])


def test_reduced_crops_keep_within_their_picture() -> None:
    """Crops of reduced pictures advance by 1 to max_downscale source pixels per pixel.

    They never leave the picture.
    """
    recipe = replace(RECIPE, batch=200, downscaled_share=1.0)
    pool = PixelPool([coordinates(100, 80, 0), coordinates(40, 40, 1)], recipe, CPU)
    torch.manual_seed(0)
    factors = []
    for crop in pool.draw() * 255:
        rows = crop[0] if abs(float(crop[0, 1, 0] - crop[0, 0, 0])) > 0.5 else crop[0].t()
        steps = rows[:, 0].diff().abs()
        assert 0.5 < float(steps.min()) <= float(steps.max()) < 2.5
        factors.append(float(steps.mean()))
        limit = 100 if crop[2, 0, 0] < 0.5 else 40
        assert float(rows.max()) <= limit - 1 + 1e-3
    assert min(factors) >= 0.99
    assert 1.5 < max(factors) <= 2.01


def test_streamed_crops_depend_on_seed_and_position_alone(tmp_path: Path) -> None:
    """A stream gives the same batches from one process and from two.

    A resumed stream goes on where it was.
    """
    write_pieces(tmp_path)
    data = open_data([str(tmp_path)], RECIPE, 1)
    stream = CropStream(data.train, replace(RECIPE, downscaled_share=0.5), seed=7)

    def batches(jobs: int, first: int, count: int) -> list[torch.Tensor]:
        pool = StreamPool(stream, CPU, jobs, first)
        out = []
        with contextlib.closing(pool):
            for _ in range(count):
                pool.advance()
                out.append(pool.buffer.clone())
        return out

    alone, together, resumed = batches(0, 0, 3), batches(2, 0, 3), batches(0, 2, 1)
    assert alone[0].shape == (16, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    assert torch.equal(alone[2], resumed[0])
    assert not torch.equal(alone[0], alone[1])


def test_an_unreadable_picture_is_the_streams_error_in_worker_processes_too(tmp_path: Path) -> None:
    """What a worker process cannot decode is the same error as without one, and ends the pool."""
    paths = write_pieces(tmp_path)
    data = open_data([str(tmp_path)], RECIPE, 1)
    for path in paths:
        path.write_text("gone")
    stream = CropStream(data.train, RECIPE, seed=1)
    message = "20 training pictures in a row could not be decoded"
    pool = StreamPool(stream, CPU, 1, 0)
    with contextlib.closing(pool), pytest.raises(OSError, match=message):
        pool.advance()
    assert not multiprocessing.active_children()


def test_a_stream_of_unreadable_pictures_ends(tmp_path: Path) -> None:
    """A stream that finds no readable picture stops with an error instead of searching for ever."""
    paths = write_pieces(tmp_path)
    data = open_data([str(tmp_path)], RECIPE, 1)
    for path in paths:
        path.write_text("gone")
    with pytest.raises(
        OSError, match="20 training pictures in a row could not be decoded; the last: not a picture"
    ):
        CropStream(data.train, RECIPE, seed=1)[0]
