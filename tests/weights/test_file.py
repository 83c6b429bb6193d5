"""Every way for a weights file to be malformed.

A WeightsError at load that names what is wrong, never an error later. All start from one real file
and change one thing in it (docs/format.md, section 8).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_model
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pillow_cwic import model
from pillow_cwic.errors import WeightsError
from pillow_cwic.weights.file import FORMAT, read_model

Parts = tuple[dict[str, Tensor], dict[str, str]]
CPU = "cpu"
PARTS = ("hidden", "depth1", "mid1", "depth2", "mid2", "out0", "out1", "out2", "out3")
ENTROPY_LAYERS = [
    *(f"entropy.maps.{layer}" for layer in ("conv1", "conv2", "conv3", "out")),
    *(f"entropy.planes.{layer}" for layer in ("map_in", "map_mid")),
    *(f"entropy.planes.{step}.{part}" for step in range(4) for part in PARTS),
]


@pytest.fixture(scope="module")
def parts(tiny: Path) -> Parts:
    """The tensors and the metadata of the tiny model's weights file. Tests change copies."""
    with safe_open(tiny, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


def load_changed(
    parts: Parts, path: Path, change: Callable[[dict[str, Tensor]], object]
) -> model.Model:
    """Loads the file with its dictionary of tensors changed."""
    tensors = dict(parts[0])
    change(tensors)
    save_file(tensors, path, parts[1])
    return read_model(path, CPU, id="0" * 16)


def drop(name: str) -> Callable[[dict[str, Tensor]], object]:
    """Leaves a tensor out."""
    return lambda tensors: tensors.pop(name)


def put(name: str, values: Tensor) -> Callable[[dict[str, Tensor]], object]:
    """Adds or replaces a tensor."""
    return lambda tensors: tensors.update({name: values})


def cut(name: str, axis: int) -> Callable[[dict[str, Tensor]], object]:
    """Takes the last slice along an axis away."""
    return lambda tensors: tensors.update(
        {name: tensors[name].narrow(axis, 0, tensors[name].shape[axis] - 1).clone()}
    )


def cast(name: str, dtype: torch.dtype) -> Callable[[dict[str, Tensor]], object]:
    """Stores a tensor as another type."""
    return lambda tensors: tensors.update({name: tensors[name].to(dtype)})


def set_one(name: str, place: tuple[int, ...], value: int) -> Callable[[dict[str, Tensor]], object]:
    """Changes one number of a tensor."""

    def change(tensors: dict[str, Tensor]) -> None:
        wide = tensors[name].to(torch.int64)
        wide[place] = value
        tensors[name] = wide.to(tensors[name].dtype)

    return change


MISSHAPEN = {
    "probability_short": (
        cut("entropy.probability", 0),
        "entropy.probability is uint16 [256], expected uint16 [257]",
    ),
    "probability_0": (
        set_one("entropy.probability", (7,), 31),
        "entropy.probability holds 31, expected 32 to 65504",
    ),
    "probability_1": (
        set_one("entropy.probability", (7,), 65505),
        "entropy.probability holds 65505, expected 32 to 65504",
    ),
    "probability_missing": (
        drop("entropy.probability"),
        "weights file has no tensor entropy.probability, expected uint16 [257]",
    ),
    "distribution_short": (
        cut("entropy.logistic", 1),
        "entropy.logistic is int32 [64, 512], expected int32 [64, 513]",
    ),
    "coarsest_qualities": (
        cut("entropy.maps.coarsest", 0),
        "entropy.maps.coarsest is int16 [7, 3], expected int16 [8, 3]",
    ),
    "coarsest_nodes": (
        cut("entropy.maps.coarsest", 1),
        "entropy.maps.coarsest is int16 [8, 2], expected int16 [8, 3]",
    ),
    "coarsest_above": (
        set_one("entropy.maps.coarsest", (7, 2), 129),
        "entropy.maps.coarsest holds 129, expected -128 to 128",
    ),
    "coarsest_below": (
        set_one("entropy.maps.coarsest", (0, 0), -129),
        "entropy.maps.coarsest holds -129, expected -128 to 128",
    ),
    "map_bias_qualities": (
        cut("entropy.maps.conv1.bias", 0),
        "entropy.maps.conv1.bias is int32 [7, 7, 8], expected int32 [8, 7, 8]",
    ),
    "map_bias_stages": (
        cut("entropy.maps.conv1.bias", 1),
        "entropy.maps.conv1.bias is int32 [8, 6, 8], expected int32 [8, 7, 8]",
    ),
    "map_bias_without_axes": (
        put("entropy.maps.conv1.bias", torch.zeros(8, dtype=torch.int32)),
        "entropy.maps.conv1.bias is int32 [8], expected int32 [8, 7, 8]",
    ),
    "plane_bias_qualities": (
        cut("entropy.planes.3.hidden.bias", 0),
        "entropy.planes.3.hidden.bias is int32 [7, 24], expected int32 [8, 24]",
    ),
    "plain_bias_with_an_axis": (
        put("entropy.planes.3.mid1.bias", torch.zeros(1, 24, dtype=torch.int32)),
        "entropy.planes.3.mid1.bias is int32 [1, 24], expected int32 [24]",
    ),
    "map_width": (
        cut("entropy.maps.out.weight", 1),
        "entropy.maps.out.weight is int16 [8, 2], expected int16 [8, 3]",
    ),
    "plane_width": (
        cut("entropy.planes.3.out3.weight", 1),
        "entropy.planes.3.out3.weight is int16 [24, 3], expected int16 [24, 4]",
    ),
    "plane_inputs": (
        cut("entropy.planes.1.hidden.weight", 0),
        "entropy.planes.1.hidden.weight is int16 [47, 24], expected int16 [48, 24]",
    ),
    "last_step_missing": (
        drop("entropy.planes.6.hidden.weight"),
        "weights file has no tensor entropy.planes.6.hidden.weight, expected int16 [48, 24]",
    ),
    "weight_wider": (
        cast("entropy.maps.conv2.weight", torch.int32),
        "entropy.maps.conv2.weight is int32 [72, 8], expected int16 [72, 8]",
    ),
    "weight_float": (
        cast("entropy.maps.conv2.weight", torch.float16),
        "entropy.maps.conv2.weight is float16 [72, 8], expected int16 [72, 8]",
    ),
    "network_missing": (
        drop("decoder.out.bias"),
        "weights file has no tensor decoder.out.bias, expected float16 [48]",
    ),
    "network_misshapen": (
        cut("decoder.stem.weight", 1),
        "decoder.stem.weight is float16 [16, 15, 3, 3], expected float16 [16, 16, 3, 3]",
    ),
    "network_type": (
        cast("encoder.codes.bias", torch.float32),
        "encoder.codes.bias is float32 [16], expected float16 [16]",
    ),
    "encoder_extra": (
        put("encoder.eighth.1.conv.bias", torch.zeros(8, dtype=torch.float16)),
        "weights file has a tensor encoder.eighth.1.conv.bias, "
        "which its configuration has no place for",
    ),
    "decoder_extra": (
        put("decoder.more", torch.zeros(8, dtype=torch.float16)),
        "weights file has a tensor decoder.more, which its configuration has no place for",
    ),
}


def test_the_file_itself_loads(tiny, parts, tmp_path):
    """What the other tests change is well-formed, also after it went through their hands."""
    assert read_model(tiny, CPU, id="0" * 16).config == tiny_model.CONFIG
    assert load_changed(parts, tmp_path / "same.safetensors", dict).config == tiny_model.CONFIG


@pytest.mark.parametrize("case", MISSHAPEN)
def test_a_misshapen_tensor_is_refused_by_name(case, parts, tmp_path):
    """The message holds the tensor, what was found and what was expected."""
    change, message = MISSHAPEN[case]
    with pytest.raises(WeightsError) as error:
        load_changed(parts, tmp_path / "bad.safetensors", change)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "layer", [name for name in ENTROPY_LAYERS if name.count(".") == 2 or ".3." in name]
)
@pytest.mark.parametrize("part", ["weight", "bias"])
def test_no_axis_of_any_layer_goes_unchecked(layer, part, parts, tmp_path):
    """One slice less along any axis of the weight or the bias of any layer is refused."""
    name = f"{layer}.{part}"
    for axis in range(parts[0][name].dim()):
        with pytest.raises(WeightsError, match=rf"^{name} is int\d\d \[.*, expected int\d\d \["):
            load_changed(parts, tmp_path / "bad.safetensors", cut(name, axis))


@pytest.mark.parametrize("name", ["entropy.maps.conv1.bias", "entropy.planes.0.hidden.bias"])
def test_one_row_of_a_bias_can_break_the_bound(name, parts, tmp_path):
    """Sums that may reach 2^24 at one quality index only are refused.

    The message names the layer.
    """
    place = tuple(size - 1 for size in parts[0][name].shape)
    layer = name.removesuffix(".bias")
    with pytest.raises(
        WeightsError, match=rf"^{layer}: sums may reach \d+, beyond exact arithmetic \(16777216\)"
    ):
        load_changed(parts, tmp_path / "bad.safetensors", set_one(name, place, -(2**24)))


def test_the_bound_is_sharp(parts, tmp_path):
    """A bias that leaves every sum at 2^24 - 1 or below loads; one more is refused."""
    layer, limit = "entropy.planes.0.out0", 127
    reach = int((parts[0][f"{layer}.weight"].long().abs() * limit).sum(0)[0]) + 256
    most = 2**24 - 1 - reach
    load_changed(parts, tmp_path / "good.safetensors", set_one(f"{layer}.bias", (0,), most))
    with pytest.raises(WeightsError, match=rf"^{layer}: sums may reach 16777216, beyond"):
        load_changed(parts, tmp_path / "bad.safetensors", set_one(f"{layer}.bias", (0,), most + 1))


CONFIGURED = {
    "unknown_field": ({"colour": 1}, "unknown model configuration field(s): colour"),
    "text_for_a_number": (
        {"quality_count": "64"},
        "quality_count must be a whole number from 1 to 4096, found '64'",
    ),
    "half_a_channel": (
        {"map_channels": 6.5},
        "map_channels must be a whole number from 1 to 4096, found 6.5",
    ),
    "no_width": (
        {"context_features": 0},
        "context_features must be a whole number from 1 to 4096, found 0",
    ),
    "blocks_below_none": (
        {"decoder_blocks": [1, -1, 1]},
        "decoder_blocks must be three whole numbers from 0 to 256",
    ),
    "planes_off_the_parts": (
        {"kept_planes": [0, 20]},
        "the last of kept_planes must be a multiple of 16, found 20",
    ),
    "three_levels": (
        {"kept_planes": [0, 2, 16]},
        "kept_planes must be a strictly increasing list of 2, 4, 8 or 16",
    ),
    "half_a_plane": (
        {"kept_planes": [0, 15.5]},
        "kept_planes must be whole numbers up to 4096, found (0, 15.5)",
    ),
    "one_share": (
        {"ssim_weight": [0.5]},
        "ms_ssim_weight and ssim_weight must be equally many numbers, 2 to 64",
    ),
    "a_word_as_share": (
        {"ssim_weight": [0, "0.5"]},
        "ms_ssim_weight and ssim_weight must be numbers, found",
    ),
    "shares_above_1": (
        {"ssim_weight": [0, 0.6], "ms_ssim_weight": [0, 0.5]},
        "ms_ssim_weight and ssim_weight must be at least 0, and at most 1 together, "
        "found ((0, 0.5), (0, 0.6))",
    ),
    "quality_65": ({"quality_count": 65}, "quality_count must be 1..64, found 65"),
}


@pytest.mark.parametrize("case", CONFIGURED)
def test_a_bad_configuration_is_refused_by_field(case, parts, tmp_path):
    """The message names the file, the field, and what was found."""
    fields, message = CONFIGURED[case]
    found = {FORMAT: json.dumps(json.loads(parts[1][FORMAT]) | fields)}
    path = tmp_path / "bad.safetensors"
    save_file(parts[0], path, found)
    with pytest.raises(WeightsError) as error:
        read_model(path, CPU, id="0" * 16)
    assert str(error.value).startswith(f"bad.safetensors: bad model configuration: {message}")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, " is not a model of this version: metadata [], expected 'pillow-cwic model 1'"),
        (
            {"format": "pt"},
            " is not a model of this version: metadata ['format'], expected 'pillow-cwic model 1'",
        ),
        ({FORMAT: "{"}, ": bad model configuration: Expecting property name"),
        (
            {FORMAT: "[]"},
            ": bad model configuration: expected an object with a model's fields, found []",
        ),
        (
            {FORMAT: "null"},
            ": bad model configuration: expected an object with a model's fields, found None",
        ),
    ],
    ids=["none", "another_format", "broken_json", "a_list", "null"],
)
def test_wrong_metadata_is_refused(metadata, message, parts, tmp_path):
    """A safetensors file that is no model of this version, or ill configured, says so."""
    path = tmp_path / "bad.safetensors"
    save_file(parts[0], path, metadata)
    with pytest.raises(WeightsError) as error:
        read_model(path, CPU, id="0" * 16)
    assert str(error.value).startswith(f"bad.safetensors{message}")


def test_a_configuration_of_another_size_names_the_first_tensor_that_differs(parts, tmp_path):
    """Metadata of a wider model than the tensors make is refused by a tensor's name and shapes."""
    path = tmp_path / "bad.safetensors"
    save_file(
        parts[0],
        path,
        {FORMAT: json.dumps(json.loads(parts[1][FORMAT]) | {"map_channels": 9})},
    )
    with pytest.raises(WeightsError) as error:
        read_model(path, CPU, id="0" * 16)
    assert str(error.value) == (
        "entropy.maps.conv1.weight is int16 [75, 8], expected int16 [75, 9]"
    )


@pytest.mark.parametrize("kept", [0, 7, 8, 5_000, -1], ids=lambda kept: f"bytes_{kept}")
def test_a_truncated_file_is_refused(kept, tiny, tmp_path):
    """A file cut off within its length, its header or its last tensor is named as unreadable."""
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny.read_bytes()[:kept])
    with pytest.raises(
        WeightsError, match=r"^cut\.safetensors is not a readable safetensors file: "
    ):
        read_model(path, CPU, id="0" * 16)


def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path):
    """Other bytes, and a folder, are named as unreadable."""
    path = tmp_path / "text.safetensors"
    path.write_text("these are no weights, but there are many of them\n" * 100)
    for wrong in (path, tmp_path):
        with pytest.raises(
            WeightsError, match=f"^{wrong.name} is not a readable safetensors file: "
        ):
            read_model(wrong, CPU, id="0" * 16)


@pytest.mark.parametrize("field", sorted(json.loads(tiny_model.CONFIG.to_json())))
def test_a_configuration_without_a_field_is_refused(field, parts, tmp_path):
    """Every field must be there: what a model is follows from its file alone."""
    values = json.loads(parts[1][FORMAT])
    del values[field]
    path = tmp_path / "changed.safetensors"
    save_file(parts[0], path, {FORMAT: json.dumps(values)})
    message = rf"^changed\.safetensors: .*missing model configuration field\(s\): {field}$"
    with pytest.raises(WeightsError, match=message):
        read_model(path, CPU, id="0" * 16)
