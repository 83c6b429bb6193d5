"""The architecture as data: NumPy and PyTorch execute one list of layers alike."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import tiny_model
import torch
from closeness import assert_close
from coding import load
from safetensors.numpy import load_file

import pillow_cwic
from pillow_cwic.analysis import Analysis
from pillow_cwic.decoding import decode_container
from pillow_cwic.errors import WeightsError
from pillow_cwic.format import container
from pillow_cwic.format.grid import Box, code_grid
from pillow_cwic.networks.decoder import decoder_network
from pillow_cwic.networks.encoder import codes_network, features_network, heads_network
from pillow_cwic.networks.numpy_network import NumpyNetwork
from pillow_cwic.networks.numpy_pointwise import gelu
from pillow_cwic.networks.torch_layers import unshuffled
from pillow_cwic.networks.windows import windows
from pillow_cwic.runtime.blas import one_blas_thread
from pillow_cwic.synthesis import synthesize
from pillow_cwic.training import recipe as recipes
from pillow_cwic.weights import models
from pillow_cwic.weights.file import read_config

CONFIG = tiny_model.CONFIG
SHIPPED = models.WHEEL_DIR / models.find(None).file
DEEP = replace(
    CONFIG,
    encoder_blocks=(2, 3, 2),
    decoder_channels=(6, 10, 12),
    decoder_blocks=(4, 2, 3),
    outer_side=1,
    context_layers=1,
)
"""More blocks than the tiny model has, a narrower decoder: halos of several code positions."""


def importance_picture(size):
    """Light in the middle, dark around."""
    mask = np.full(size, 40, np.uint8)
    mask[size[0] // 4 : size[0] // 2, size[1] // 4 :] = 220
    return mask


@pytest.mark.parametrize("quality", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("with_map", [False, True])
def test_numpy_and_torch_give_the_same_file_and_picture(face, quality, with_map):
    """With the shipped model: equal bytes from equal pixels, pixels within 1 of 255."""
    pixels = np.asarray(face)[:150, :187]
    options = {"importance": importance_picture((150, 187))} if with_map else {}
    data = pillow_cwic.encode(pixels, quality=quality, device="cpu", **options)
    other = pillow_cwic.encode(pixels, quality=quality, device="torch", **options)
    assert abs(len(data) - len(other)) <= 8  # a feature on the edge between two codes
    pictures = [pillow_cwic.decode(data, device=device) for device in ("cpu", "torch")]
    assert_close(*pictures)


@pytest.mark.parametrize("config", [CONFIG, DEEP, tiny_model.ONE_BIT])
def test_numpy_and_torch_give_equal_features_codes_and_pixels(tmp_path, config):
    """With an untrained model, of maps of odd sizes: to float rounding."""
    path = tmp_path / "tiny.safetensors"
    tiny_model.export(path, config=config)
    pixels = np.random.default_rng(3).integers(0, 256, (97, 130, 3), np.uint8)
    offsets = np.linspace(-3, 3, 63, dtype=np.float32).reshape(7, 9)
    both = []
    for device in ("cpu", "torch"):
        model = models.load(path, device)
        analysis = Analysis(model, pixels, offsets)
        heads = analysis._heads(analysis.grid, 3)
        coded = analysis.coded(3)
        codes = np.random.default_rng(4).integers(-4, 5, coded.codes.shape, np.int16)
        picture = synthesize(model, codes, (3, offsets), analysis.grid, Box(5, 3, 130, 97))
        both.append((heads, coded, picture))
    (heads, coded, picture), (other_heads, other_coded, other_picture) = both
    for features, others in zip(heads, other_heads, strict=True):
        scale = np.abs(features).max()
        assert np.abs(features - others).max() < 1e-4 * scale
    assert (coded.codes != other_coded.codes).mean() < 1e-3
    assert (coded.level != other_coded.level).mean() < 0.02
    assert_close(picture, other_picture)


@pytest.mark.parametrize("device", ["cpu", "torch"])
@pytest.mark.parametrize("config", [CONFIG, DEEP])
def test_last_channels_of_zeros_may_be_left_out(tmp_path, config, device):
    """A decoder given only the first channels shows what it shows with zeros behind them."""
    path = tmp_path / "tiny.safetensors"
    tiny_model.export(path, config=config)
    decoder = models.load(path, device).decoder
    whole = Box(0, 0, 5, 4)
    codes = np.random.default_rng(4).integers(-4, 5, (4, 5, config.channels), np.int16)
    codes[:, :, 7:] = 0
    (picture,) = decoder({"codes": codes}, 3.0, whole, whole)
    (same,) = decoder({"codes": codes[:, :, :7]}, 3.0, whole, whole)
    assert np.abs(picture - same).max() < 1e-5 * np.abs(picture).max()


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_a_residue_becomes_the_difference_of_linear_features(tmp_path, device):
    """What `Model.residue` makes of a difference of pictures: that of both block transforms."""
    path = tmp_path / "tiny.safetensors"
    tiny_model.export(path)
    model = models.load(path, device)
    box = Box(0, 0, 3, 2)
    first, second = np.random.default_rng(5).random((2, 32, 48, 3), np.float32)
    x = np.zeros((2, 3, CONFIG.encoder_channels[2]), np.float32)
    (one,) = model.codes(6)({"x": x, "pixels": first}, 5.0, box, box)
    (other,) = model.codes(6)({"x": x, "pixels": second}, 5.0, box, box)
    (change,) = model.residue(6)({"pixels": first - second}, 5.0, box, box)
    assert change.shape == (2, 3, 6)
    assert np.allclose(change, one - other, atol=1e-4)


@pytest.mark.parametrize("device", ["cpu", "torch"])
def test_the_first_code_features_are_those_of_all(tmp_path, device):
    """`Model.codes` of fewer channels makes the same features, only fewer."""
    path = tmp_path / "tiny.safetensors"
    tiny_model.export(path)
    model = models.load(path, device)
    box = Box(0, 0, 3, 2)
    random = np.random.default_rng(6)
    inputs = {
        "x": random.random((2, 3, CONFIG.encoder_channels[2]), np.float32),
        "pixels": random.random((32, 48, 3), np.float32),
    }
    (every,) = model.codes(CONFIG.channels)(inputs, 5.0, box, box)
    (first,) = model.codes(5)(inputs, 5.0, box, box)
    assert every.shape == (2, 3, CONFIG.channels)
    assert first.shape == (2, 3, 5)
    assert np.allclose(first, every[:, :, :5], atol=1e-4)


@pytest.mark.parametrize("make", [features_network, heads_network, codes_network, decoder_network])
@pytest.mark.parametrize("config", [CONFIG, DEEP])
def test_a_window_gives_what_the_whole_map_does(make, config):
    """A core with its halo, or cut down on the way from the whole, has the whole's values.

    One code position less of halo would not do, where there is one.
    """
    network = make(config)
    random = np.random.default_rng(1)
    tensors = {
        name: random.normal(0, 0.3, shape).astype(np.float32)
        for name, shape in network.tensors.items()
    }
    run = NumpyNetwork(network, tensors, config.quality_count)
    whole = Box(0, 0, 2 * network.halo + 3, 2)
    c16 = config.encoder_channels[2]
    channels = {"pixels": 3, "trunk": c16, "x": c16}
    inputs = {}
    for name, scale in network.scales.items():
        shape = (2 * scale, whole.width * scale, channels.get(name, config.channels))
        inputs[name] = random.normal(0, 1, shape).astype(np.float32)
    core = Box(network.halo + 1, 0, network.halo + 2, 2)
    expected = run(inputs, 2.0, whole, whole)
    errors = []
    for halo in range(network.halo, max(network.halo - 2, -1), -1):
        area = core.grow(halo, whole)
        parts = {
            name: x[:, area.left * network.scales[name] : area.right * network.scales[name]]
            for name, x in inputs.items()
        }
        error = 0.0
        for output, wanted in zip(run(parts, 2.0, area, core), expected, strict=True):
            scale = wanted.shape[0] // 2
            columns = slice(core.left * scale, core.right * scale)
            worst = np.abs(output - wanted[:, columns]).max()
            error = max(error, float(worst / np.abs(wanted).max()))
        errors.append(error)
    assert errors[0] < 1e-5
    assert all(error > 4 * errors[0] for error in errors[1:])


def test_every_tensor_of_the_shipped_file_belongs_to_one_layer():
    """The lists name all tensors of encoder and decoder, each once, with their shapes."""
    config = read_config(SHIPPED)
    named = []
    for prefix, make in (
        ("encoder.", features_network),
        ("encoder.", heads_network),
        ("encoder.", codes_network),
        ("decoder.", decoder_network),
    ):
        named += [(prefix + name, shape) for name, shape in make(config).tensors.items()]
    stored = {
        name: tensor.shape
        for name, tensor in load_file(SHIPPED).items()
        if not name.startswith("entropy.")
    }
    assert len(named) == len(dict(named))
    assert dict(named) == stored


def test_weights_that_do_not_fit_the_list_are_refused(tmp_path):
    """A missing, a misshapen and an unexpected tensor are each named."""
    path = tmp_path / "tiny.safetensors"
    tiny_model.export(path)
    tensors = load_file(path)
    model = models.load(path, "cpu")
    kind = type(model)
    for change, message in (
        (("decoder.stem.bias", None), "has no tensor decoder.stem.bias, expected float16"),
        (("encoder.codes.bias", np.zeros(3, np.float16)), r"encoder.codes.bias is float16 \[3\]"),
        (("decoder.extra", np.zeros(1, np.float16)), "has a tensor decoder.extra, which its"),
    ):
        changed = {**tensors, change[0]: change[1]}
        if change[1] is None:
            del changed[change[0]]
        with pytest.raises(WeightsError, match=message):
            kind(model.config, changed, "cpu", "0" * 16)


def test_the_light_decoder_keeps_its_budget():
    """It multiplies at most 12 500 times for a pixel, with all channels there."""
    network = decoder_network(recipes.load("light").model)
    total = 0.0
    for layer, scale in zip(network.layers, network.source_scales(), strict=True):
        weights = sum(np.prod(shape) for shape in layer.tensors.values() if len(shape) == 4)
        total += float(weights) * (scale / 16) ** 2
    assert 6_000 < total < 12_500


def test_blocks_of_pixels_are_pixel_unshuffles():
    """The way from pixels to blocks that keeps channels last gives what PyTorch's own does."""
    x = torch.randn(2, 3, 32, 48)
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        assert torch.equal(unshuffled(given, 16), torch.pixel_unshuffle(x, 16))


def test_gelu_is_pytorchs():
    """Within 1e-6, far beyond what pixels show."""
    x = np.linspace(-9, 9, 4001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.from_numpy(x)).numpy()
    assert np.abs(gelu(x) - expected).max() < 1e-6


def test_windows_give_every_core_work_and_cover_the_area_once():
    """At least as many cores as asked for where sides allow it; each position in one of them."""
    for area, least, count in (
        (Box(0, 0, 48, 32), 1, 1),
        (Box(0, 0, 48, 32), 2, 2),
        (Box(0, 0, 20, 20), 4, 1),
        (Box(3, 5, 203, 105), 4, 8),
    ):
        cores = windows(area, least=least)
        assert len(cores) == count
        seen = np.zeros((300, 300), int)
        for core in cores:
            seen[core.slices] += 1
        assert seen[area.slices].min() == seen.max() == 1
        assert seen.sum() == area.width * area.height


def test_windows_of_a_thin_area_are_long():
    """A row has fewer halos to pay for, in windows that are no larger with them than a square."""
    halo = 21
    most = (64 + 2 * halo) ** 2
    for area in (Box(0, 7, 8192, 8), Box(7, 0, 8, 8192), Box(0, 0, 30, 900)):
        cores = windows(area, halo=halo)
        sizes = [(core.width + 2 * halo) * (core.height + 2 * halo) for core in cores]
        assert max(sizes) <= most
        assert sum(core.width * core.height for core in cores) == area.width * area.height
    assert len(windows(Box(0, 7, 8192, 8), halo=halo)) == 38  # 128 squares


@pytest.mark.parametrize("size", [(64, 24), (16, 32), (219, 1)])
def test_a_windows_memory_is_foreseen(size):
    """What a window of the shipped decoder takes, its input included, to a fifth."""
    model = load()
    decoder = model.decoder
    halo = decoder.network.halo
    core = Box(halo, halo, halo + size[0], halo + size[1])
    area = core.grow(halo, Box(0, 0, 1000, 1000))
    shape = (area.height, area.width, model.config.channels)
    tracemalloc.start()
    codes = np.random.default_rng(1).random(shape, np.float32)
    with one_blas_thread():
        decoder({"codes": codes}, 30.0, area, core)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak == pytest.approx(decoder.network.work_bytes(core), rel=0.2)


def test_no_seam_between_small_windows(face):
    """Windows of 5 code positions give the codes of one, and pixels within 1 of 255."""
    pixels = np.asarray(face)
    model = models.load(None, "cpu")
    grid = code_grid(256, 192)
    coded = Analysis(model, pixels).coded(25)
    small = Analysis(model, pixels, largest_window=5).coded(25)
    unkept = Analysis(model, pixels, largest_window=5, kept_pixels=0).coded(25)
    for other in (small, unkept):
        assert (other.codes != coded.codes).mean() < 1e-3
        assert np.array_equal(other.level, coded.level)
    whole = synthesize(model, coded.codes, (25, None), grid, Box(0, 0, 256, 192))
    cut = synthesize(model, coded.codes, (25, None), grid, Box(0, 0, 256, 192), largest_window=5)
    assert_close(cut, whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_decodes_the_same_picture(cwic_bytes):
    """Networks on a GPU give the processor's pixels within 1 of 255, from the same codes."""
    parsed = container.read(cwic_bytes)
    assert_close(decode_container(parsed, device="cuda"), decode_container(parsed, device="cpu"))
