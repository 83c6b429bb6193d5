"""The codec: any size and mode, regions, windows, rates, importance, threads; damage is noticed, never shown."""

import io
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest
import torch
from PIL import Image

import pillow_cwic
from pillow_cwic import CwicError, FormatError, codec, container, tiling, weights, windows, workers
from pillow_cwic.successive.ladder import Ladder


@pytest.fixture(scope="module")
def pixels(photo) -> np.ndarray:
    """The photo, mirrored to 300 x 220 pixels: several windows once these are made small."""
    a = np.asarray(photo)
    a = np.pad(a, ((0, 220 - a.shape[0]), (0, 300 - a.shape[1]), (0, 0)), mode="symmetric")
    return np.ascontiguousarray(a)


@pytest.fixture(scope="module")
def data(pixels) -> bytes:
    """`pixels` at quality 0.4."""
    return pillow_cwic.encode(pixels, quality=0.4)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels over all samples."""
    return float(10 * np.log10(65025 / ((a.astype(float) - b) ** 2).mean()))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (15, 16), (16, 16), (17, 33), (130, 65)])
@pytest.mark.parametrize("channels", [None, 1, 2, 3, 4])
def test_every_size_and_mode_comes_back(size, channels):
    """Any size from 1x1 and every mode decode to the same shape; alpha is exact; flat colour stays near."""
    shape = size if channels is None else (*size, channels)
    a = np.full(shape, 100, np.uint8)
    if channels in (2, 4):
        a[..., -1] = np.arange(size[0] * size[1]).reshape(size) % 256
    b = pillow_cwic.decode(pillow_cwic.encode(a, quality=0.8))
    assert b.shape == (size if channels in (None, 1) else shape)
    assert b.dtype == np.uint8
    if channels in (2, 4):
        assert np.array_equal(a[..., -1], b[..., -1])
        a, b = a[..., :-1], b[..., :-1]
    assert np.abs(a.reshape(b.shape).astype(int) - b).mean() < 8


def test_quality_is_a_dial_from_smallest_to_best(pixels):
    """More quality means more bytes and a better picture."""
    files = [pillow_cwic.encode(pixels, quality=q) for q in (0, 0.25, 0.5, 0.75, 1)]
    sizes = [len(f) for f in files]
    scores = [psnr(pixels, pillow_cwic.decode(f)) for f in files]
    assert sizes == sorted(set(sizes))
    assert scores == sorted(set(scores))
    assert scores[-1] > 27
    assert scores[0] > 18


@pytest.mark.parametrize("region", [(0, 0, 300, 220), (0, 0, 1, 1), (299, 219, 300, 220), (37, 50, 205, 101)])
def test_a_region_is_a_crop(data, region):
    """Decoding a region gives the whole picture's pixels there within 1 of 255."""
    left, upper, right, lower = region
    whole = pillow_cwic.decode(data).astype(int)[upper:lower, left:right]
    part = pillow_cwic.decode(data, region=region)
    assert part.shape == whole.shape
    assert np.abs(whole - part).max() <= 1


@pytest.mark.parametrize("region", [(0, 0, 301, 220), (-1, 0, 5, 5), (5, 5, 5, 9), (1, 2, 3), "abcd"])
def test_a_region_outside_the_picture_is_refused(data, region):
    """The ValueError shows the region and the picture's size, or what a region is."""
    with pytest.raises(ValueError, match=r"^region"):
        pillow_cwic.decode(data, region=region)


def test_no_seam_between_windows(pixels, data, monkeypatch):
    """Cutting a picture into small windows changes neither codes nor, by more than 1 of 255, pixels."""
    whole = pillow_cwic.decode(data).astype(int)
    monkeypatch.setattr(tiling, "WINDOW", 5)
    assert len(tiling.windows(tiling.code_grid(300, 220))) > 8
    assert np.abs(pillow_cwic.decode(data).astype(int) - whole).max() <= 1
    codes, level, _ = windows.Analysis(weights.load(None, torch.device("cpu")), pixels).codes(25)
    monkeypatch.undo()
    uncut_codes, uncut_level, _ = windows.Analysis(weights.load(None, torch.device("cpu")), pixels).codes(25)
    assert torch.equal(codes, uncut_codes)
    assert torch.equal(level, uncut_level)


def test_features_that_are_not_kept_give_the_same_codes(pixels, monkeypatch):
    """A picture too large for its features to stay in memory gets the codes that it would get with them."""
    loaded = weights.load(None, torch.device("cpu"))
    monkeypatch.setattr(tiling, "WINDOW", 5)
    kept = windows.Analysis(loaded, pixels).codes(25)
    monkeypatch.setattr(windows, "KEPT_PIXELS", 0)
    for a, b in zip(kept[:2], windows.Analysis(loaded, pixels).codes(25)[:2], strict=True):
        assert torch.equal(a, b)


def test_no_seam_between_tiles(pixels, monkeypatch):
    """Tiles of 64 pixels decode to the picture of one tile, and a region needs only the tiles near it.

    Codes are only rounded here: a choice between two looks at the codes around, which end where a tile does.
    """
    monkeypatch.setattr(Ladder, "choose", lambda self, mean, scale, codes, rest: codes)
    whole = pillow_cwic.decode(pillow_cwic.encode(pixels, quality=0.4)).astype(int)
    monkeypatch.setattr(codec, "TILE_SIZE", 64)
    tiled = pillow_cwic.encode(pixels, quality=0.4)
    assert len(container.read(tiled).tiles) == 20
    assert np.abs(pillow_cwic.decode(tiled).astype(int) - whole).max() <= 1
    assert np.abs(pillow_cwic.decode(tiled, region=(100, 70, 180, 150)) - whole[70:150, 100:180]).max() <= 1
    lost = container.Container(container.read_header(tiled), (*container.read(tiled).tiles[:19], None))
    assert np.abs(codec.decode_container(lost, region=(0, 0, 90, 90)) - whole[:90, :90]).max() <= 1


def test_a_lost_tile_leaves_the_others(pixels, monkeypatch):
    """decode_container() shows what is left of a salvaged file: pixels away from the lost tile are unchanged."""
    monkeypatch.setattr(codec, "TILE_SIZE", 64)
    tiled = bytearray(pillow_cwic.encode(pixels, quality=0.4))
    whole = pillow_cwic.decode(bytes(tiled)).astype(int)
    last = container.read_header(bytes(tiled)).sections[-1]
    tiled[last.offset + 8] ^= 1
    salvaged = container.salvage(bytes(tiled))
    assert salvaged.tiles[-1] is None
    shown = codec.decode_container(salvaged)
    assert np.abs(shown[:90, :150] - whole[:90, :150]).max() <= 1


@pytest.mark.parametrize("limit", [1300, 1500, 2000])
def test_max_bytes_is_kept_and_used(pixels, limit):
    """The file fits, and the next quality index would not."""
    fits = pillow_cwic.encode(pixels, max_bytes=limit, comment="counts too")
    index = container.read_header(fits).quality_index
    assert len(fits) <= limit
    assert len(pillow_cwic.encode(pixels, quality=(index + 1) / 63, comment="counts too")) > limit


def test_max_bytes_below_the_smallest_file_says_how_small_it_gets(pixels):
    """The ValueError names the option, the value and the smallest possible size."""
    smallest = len(pillow_cwic.encode(pixels, quality=0))
    with pytest.raises(ValueError, match=rf"max_bytes = 60: the smallest file of this picture has {smallest} bytes"):
        pillow_cwic.encode(pixels, max_bytes=60)  # signature and sections alone take 52


@pytest.mark.parametrize("bpp", [0.2, 0.25, 0.35])
def test_bpp_takes_the_nearest_quality(pixels, bpp):
    """No other quality index comes nearer to the rate asked for."""
    target = bpp * pixels.shape[0] * pixels.shape[1] / 8
    found = pillow_cwic.encode(pixels, bpp=bpp)
    index = container.read_header(found).quality_index
    others = [len(pillow_cwic.encode(pixels, quality=(index + step) / 63)) for step in (-1, 1)]
    assert all(abs(len(found) - target) <= abs(size - target) for size in others)


def test_rate_targets_run_the_quality_independent_part_once(pixels, monkeypatch):
    """However many qualities are tried, the first half of the encoder runs once per window."""
    encoder = weights.load(None, torch.device("cpu")).encoder
    calls = []
    monkeypatch.setattr(encoder, "features", lambda x: calls.append(1) or type(encoder).features(encoder, x))
    pillow_cwic.encode(pixels, max_bytes=1500)
    assert len(calls) == 1


def test_importance_moves_bits_to_where_it_is_bright(pixels):
    """At about the same size, the bright half gets better and the dark half worse; None and 128 change nothing."""
    mask = np.full(pixels.shape[:2], 100, np.uint8)
    mask[:, :160] = 156
    plain, moved = (pillow_cwic.encode(pixels, quality=0.4, importance=m) for m in (None, mask))
    a, b = pillow_cwic.decode(plain), pillow_cwic.decode(moved)
    assert psnr(pixels[:, :128], b[:, :128]) > psnr(pixels[:, :128], a[:, :128]) + 0.3
    assert psnr(pixels[:, 192:], b[:, 192:]) < psnr(pixels[:, 192:], a[:, 192:]) - 0.3
    assert pillow_cwic.encode(pixels, quality=0.4, importance=np.full_like(mask, 128)) == plain
    small = Image.fromarray(mask).resize((30, 22))
    assert pillow_cwic.read_header(pillow_cwic.encode(pixels, quality=0.4, importance=small)).regions


def test_the_importance_map_is_read_from_the_file(pixels, data):
    """importance_map() gives the encoder's own levels, from bytes, a path or a file."""
    _, level, _ = windows.Analysis(weights.load(None, torch.device("cpu")), pixels).codes(round(0.4 * 63))
    found = pillow_cwic.importance_map(data)
    assert found.shape == (14, 19)
    assert found.dtype == np.uint8
    assert np.array_equal(found, level.numpy())
    assert np.array_equal(pillow_cwic.importance_map(io.BytesIO(data)), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quality": 75}, r"quality is 0\.\.1, found 75; did you mean 0\.75\?"),
        ({"quality": -0.1}, r"quality is 0\.\.1, found -0\.1"),
        ({"quality": float("nan")}, r"quality is 0\.\.1, found nan"),
        ({"quality": "high"}, r"quality is a number in 0\.\.1, found 'high'"),
        ({"quality": True}, r"quality is a number in 0\.\.1, found True"),
        ({"bpp": 0}, "bpp is a number of bits per pixel above 0, such as 0.25; found 0"),
        ({"max_bytes": -5}, "max_bytes is a number of bytes above 0, such as 20_000; found -5"),
        ({"quality": 0.5, "bpp": 1.0}, "give one of quality, bpp and max_bytes, found quality and bpp"),
        (
            {"importance": np.zeros((3, 3, 3), np.uint8)},
            r'importance is an "L" image or a uint8 array HxW, found uint8',
        ),
        ({"importance": np.zeros((3, 3))}, "importance is .* found float64"),
        ({"dpi": "high"}, r"dpi is a pair of numbers such as \(300, 300\), found 'high'"),
        ({"dpi": (float("nan"), 72)}, "dpi must be two finite numbers"),
        ({"device": "quantum"}, "device 'quantum' is not known; use cpu, cuda, cuda:N or auto"),
        ({"device": "cuda:97"}, r"device 'cuda:97' asked for, but torch finds \d+ CUDA device"),
    ],
)
def test_wrong_options_are_named(options, message):
    """A ValueError says the option, the range and what was found."""
    with pytest.raises(ValueError, match=message):
        pillow_cwic.encode(np.zeros((8, 8, 3), np.uint8), **options)


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (
            np.zeros((4, 4), np.float32),
            TypeError,
            "pixels are uint8, found float32; scale it to 0..255 and round first",
        ),
        (np.zeros((4, 4, 5), np.uint8), ValueError, r"found shape \(4, 4, 5\)"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"at least one pixel, found shape \(0, 4, 3\)"),
        (np.zeros(4, np.uint8), ValueError, r"found shape \(4,\)"),
    ],
)
def test_wrong_pixels_are_named(array, error, message):
    """The message says which arrays are pictures and what was found."""
    with pytest.raises(error, match=message):
        pillow_cwic.encode(array)


def test_every_damaged_byte_is_an_error(cwic_bytes):
    """200 flipped bytes and 60 truncations of a real file: each is a CwicError, none shows wrong pixels."""
    chance = random.Random(5)
    for _ in range(200):
        bad, at = bytearray(cwic_bytes), chance.randrange(len(cwic_bytes))
        bad[at] ^= chance.randrange(1, 256)
        with pytest.raises(CwicError):
            pillow_cwic.decode(bytes(bad))
    for _ in range(60):
        with pytest.raises(CwicError):
            pillow_cwic.decode(cwic_bytes[: chance.randrange(len(cwic_bytes))])


def test_a_forged_tile_is_an_error_or_a_picture(cwic_bytes):
    """Random words under a right checksum: a FormatError naming the tile, or some picture, but nothing else."""
    parsed, chance = container.read(cwic_bytes), random.Random(1)
    refused = 0
    for length in (0, 4, 40, 4000):
        forged = container.write(parsed.header, [chance.randbytes(length)])
        try:
            assert pillow_cwic.decode(forged).shape == (72, 88, 3)
        except FormatError as error:
            refused += "tile 0 of 1: range-coded stream is" in str(error)
    assert refused >= 1


def test_a_forged_plane_is_a_named_error():
    """Alpha that is no PNG, a cut PNG, or one of another size or mode: a FormatError that names ALPH."""
    a = np.full((20, 30, 4), 90, np.uint8)
    a[..., 3] = np.arange(600).reshape(20, 30) % 251
    parsed = container.read(pillow_cwic.encode(a))
    other = io.BytesIO()
    Image.new("L", (31, 20)).save(other, "PNG")
    for alpha, message in (
        (b"no PNG", "section ALPH: not a readable PNG"),
        (parsed.alpha[:-60], "section ALPH: not a readable PNG"),
        (other.getvalue(), "section ALPH: a PNG of 31 x 20 pixels in mode L, expected 30 x 20 in mode L"),
    ):
        with pytest.raises(FormatError, match=message):
            pillow_cwic.decode(container.write(parsed.header, parsed.tiles, alpha))


def test_absurd_dimensions_cost_nothing():
    """A 60-byte file that claims 2^24 x 2^24 pixels is refused within 1 s and 100 MB, before any model is loaded."""
    data = bytearray(pillow_cwic.encode(np.zeros((8, 8, 3), np.uint8)))
    head = container.Header(8, 8, 3, False, 31, "0" * 16)
    forged = bytearray(container.write(head, [b""]))
    forged[20:28] = b"\x01\x00\x00\x00" * 2
    import zlib

    forged[36:40] = zlib.crc32(bytes(forged[8:12] + forged[16:36])).to_bytes(4, "big")
    assert len(data) > 52
    tracemalloc.start()
    start = time.perf_counter()
    with pytest.raises(FormatError, match="16777216 x 16777216 pixels"):
        pillow_cwic.decode(bytes(forged))
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_more_pixels_than_pillow_allows_are_refused(data, monkeypatch):
    """Twice PIL.Image.MAX_IMAGE_PIXELS is the limit, and a region of a large picture may still be decoded."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(pillow_cwic.UnsupportedError, match=r"more than twice PIL\.Image\.MAX_IMAGE_PIXELS"):
        pillow_cwic.decode(data)
    assert pillow_cwic.decode(data, region=(0, 0, 50, 50)).shape == (50, 50, 3)


def test_an_unknown_model_is_named():
    """A file of a model that is not here is a WeightsError with its id."""
    data = container.write(container.Header(8, 8, 3, False, 31, "feedfacefeedface"), [b""])
    with pytest.raises(pillow_cwic.WeightsError, match="feedfacefeedface"):
        pillow_cwic.decode(data)


def test_the_users_thread_count_is_left_alone(data):
    """Encoding and decoding change neither this thread's torch thread count nor that of threads to come."""

    def elsewhere() -> int:
        found = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return found[0]

    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            workers._executor = None  # as in a process that has not coded anything yet
            pillow_cwic.encode(pillow_cwic.decode(data))
            assert torch.get_num_threads() == count
            assert elsewhere() == count
            assert workers.map_one_thread(lambda _: torch.get_num_threads(), range(4)) == [1] * 4
    finally:
        torch.set_num_threads(before)


def test_decoding_does_not_import_torchs_compiler(data, fresh_python):
    """A first decode in a fresh process imports no torch._dynamo: it takes longer than all the rest together."""
    code = """
import sys, pillow_cwic
pillow_cwic.decode(bytes.fromhex(sys.argv[1]), device="cpu")
assert "torch" in sys.modules
assert "torch._dynamo" not in sys.modules
"""
    fresh_python(code, data.hex())


def test_a_forked_child_can_decode(data):
    """After fork() in a process that has run the networks, a child decodes to the same pixels instead of hanging."""
    code = f"""
import os, sys, signal
import numpy as np, pillow_cwic
data = bytes.fromhex({data.hex()!r})
whole = pillow_cwic.decode(data)
child = os.fork()
if child == 0:
    os._exit(0 if np.abs(pillow_cwic.decode(data).astype(int) - whole).max() <= 1 else 3)
signal.alarm(60)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork()")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_many_threads_encode_and_decode_at_once(pixels, data):
    """Eight threads get what one thread gets."""
    expected = pillow_cwic.decode(data).astype(int)
    results: list[object] = []

    def work() -> None:
        results.append(pillow_cwic.encode(pixels, quality=0.4) == data)
        results.append(np.abs(pillow_cwic.decode(data) - expected).max() <= 1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16
    assert all(results)
