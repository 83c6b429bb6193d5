"""docs/format.md, sections 5, 7 and 8, on weights files: fields, tensors, table, bounds."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from coding import CPU
from independent_entropy import Model
from places import GOLDEN, ROOT

from pillow_cwic.entropy.ladder import Ladder
from pillow_cwic.model import Model as PackageModel
from pillow_cwic.weights import models

TINY = GOLDEN / "tiny" / "tiny.safetensors"
DOCUMENT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model() -> Model:
    """The golden weights file as the independent decoder reads it."""
    return Model(TINY.read_bytes())


@pytest.fixture(scope="module")
def shipped() -> PackageModel:
    """The default model as the package loads it."""
    return models.load(None, CPU)


def section(title: str) -> str:
    """The text under one of section 8's headings."""
    found = re.split(r"^### ", DOCUMENT.split("## 8. The weights file")[1], flags=re.MULTILINE)
    (text,) = (part for part in found if part.startswith(title))
    return text


def table(text: str) -> list[list[str]]:
    """The cells of a text's tables, without heads."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def test_the_documents_fields_are_the_configurations(shipped):
    """The fields are those of the package's configuration.

    The shipped model's values are its file's.
    """
    head, *rows = (
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section("Fields").splitlines()
        if line.startswith("|") and "---" not in line
    )
    found: dict[str, object] = {}
    for row in rows:
        cells = dict(zip(head, row, strict=True))
        text = cells[models.find(None).name]
        names, values = re.findall(r"`(\w+)`", cells["field"]), json.loads(f"[{text}]")
        shared = values if len(names) == len(values) else [values]
        found |= dict(zip(names, shared, strict=True))
    config = asdict(shipped.config)
    assert found == {
        name: list(value) if isinstance(value, tuple) else value for name, value in config.items()
    }


CODED = (1, 1, 2, 2, 2, 4, 4)
"""Of 16 channels, how many a position codes in each step."""


def shapes(
    text: str, names: str, model: Model, step: int = 0, network: str = "decoder"
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one row of a table, for one step.

    As many shapes as names, or one for all of them.
    """
    config = dict(model.config)
    scope = config | {
        "n": config["kept_planes"][-1],
        "m": config["kept_planes"][-1] * CODED[step] // 16,
        "L": len(config["kept_planes"]),
        "W": config["context_features"],
        "s": config["importance_channels"],
        "e": config["outer_side"],
    }
    scope |= dict(zip(("c4", "c8", "c16"), config[f"{network}_channels"], strict=True))
    full: list[str] = []
    for name in re.findall(r"`([\w.]+)`", names):
        full.append(full[0].rpartition(".")[0] + name if name.startswith(".") else name)
    found = [
        tuple(
            eval(size.replace("`", "").replace("/", "//"), {}, scope) for size in shape.split(",")
        )
        for shape in re.findall(r"\[([^\]]+)\]", text)
    ]
    return dict(zip(full, found * len(full) if len(found) == 1 else found, strict=True))


def spread(name: str, model: Model) -> list[str]:
    """The tensors that a name with `i` in it stands for."""
    if ".i." not in name:
        return [name]
    network, trunk = name.split(".")[:2]
    count = model.config[f"{network}_blocks"][("quarter", "eighth", "sixteenth").index(trunk)]
    return [name.replace(".i.", f".{i}.") for i in range(count)]


def test_the_documents_integer_tensors_are_the_files(model):
    """Every integer tensor in the golden file follows from the tables, and there are no more.

    Its name, type and shape.
    """
    expected = {}
    for names, kind, shape, _ in table(section("Integer tensors")):
        for step in range(7 if ".k." in names else 1):
            for name, sizes in shapes(shape, names, model, step).items():
                full = "entropy." + name.replace(".k.", f".{step}.")
                expected.setdefault(
                    full, (kind, sizes)
                )  # planes.0.hidden comes before planes.k.hidden
    for name, (_, sizes) in list(expected.items()):
        if name.endswith(".weight"):
            expected.setdefault(name.removesuffix("weight") + "bias", ("I32", sizes[1:]))
    types = {"U16": "<u2", "I16": "<i2", "I32": "<i4"}
    found = {
        name: (t.dtype, t.shape) for name, t in model.tensors.items() if name.startswith("entropy.")
    }
    assert found == {
        name: (np.dtype(types[kind]), sizes) for name, (kind, sizes) in expected.items()
    }


def test_the_documents_network_tensors_are_the_files(model):
    """The same for the networks, all float16."""
    text, expected = section("Networks"), {}
    for part in text.split("| name, without ")[1:]:
        prefix = part[1:].split("`")[0]
        for names, shape in table(part):
            for name, sizes in shapes(shape, names, model, network=prefix[:-1]).items():
                for full in spread(prefix + name, model):
                    expected |= {f"{full}.weight": sizes, f"{full}.bias": sizes[:1]}
        (gain,) = shapes(
            text.split("also has a tensor `gain.coefficients`")[1], "`gain`", model
        ).values()
        expected[f"{prefix}gain.coefficients"] = gain
    networks = {name: t for name, t in model.tensors.items() if not name.startswith("entropy.")}
    assert {name: t.shape for name, t in networks.items()} == expected
    assert {t.dtype for t in networks.values()} == {np.dtype("<f2")}


def test_the_documents_distribution_is_the_files(model):
    """The table is the formula's, each entry rounded to the nearest integer."""
    stored = model.tensors["entropy.logistic"]
    s, d = np.ogrid[:64, : stored.shape[1]]
    assert np.array_equal(stored, np.rint(2**30 / (1 + np.exp(d / (16 * np.exp(-3 + 8 * s / 63))))))


def limits(name: str, model: Model) -> list[int]:
    """The largest magnitude of each input of a layer, by its row (sections 5 and 8)."""
    size, half = model.tensors[f"{name}.weight"].shape[0], 8 * len(model.config["kept_planes"]) // 2
    if name == "entropy.maps.conv1":
        return [half, 32, 32] * 25
    if name == "entropy.planes.map_in":
        return [half, 32] * 25
    if name.endswith(".hidden"):
        fixed, side = len(model.config["kept_planes"]) + 4, model.config["map_features"]
        return [32] * fixed + [127] * side + [120] * (size - fixed - side)
    return [127] * size


def test_the_documents_bound_is_the_packages(model):
    """The largest sum of each layer, by section 8, is the one that the package proves small."""
    package = models.load(TINY, CPU).entropy.bounds
    found = {}
    for name in (
        name.removesuffix(".weight") for name in model.tensors if name.endswith(".weight")
    ):
        if name.startswith("entropy."):
            weight, bias = (
                model.tensors[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias")
            )
            reach = np.array(limits(name, model)) @ abs(weight) + abs(bias).reshape(
                -1, weight.shape[1]
            ).max(0)
            half = 256 if name.rpartition(".")[2].startswith("out") else 128
            found[name.removeprefix("entropy.")] = float(reach.max() + half)
    assert found == package


def test_no_stream_holds_a_larger_code_than_the_document_says():
    """The highest foot of the longest ladder and the longest escape make the largest code."""

    class Ones:
        """A damaged stream at its worst."""

        def code(self, probability: np.ndarray, bits: None) -> np.ndarray:
            """Nothing but ones."""
            return np.ones(len(probability), bool)

    (largest,) = re.findall(r"no\s+code\s+goes\s+beyond\s+(\d+)\s+in\s+magnitude", DOCUMENT)
    flat = np.full((64, 16 * 64 + 1), 1 << 29)
    assert Ladder(flat, 63).walk(Ones(), np.array([1920]), np.array([0]), None).tolist() == [
        int(largest)
    ]


def test_the_documents_reach_of_a_pixel_is_the_decoders(shipped):
    """The number of code positions in brackets is the halo of the default model's windows."""
    text = DOCUMENT.split("### Layers")[1].split("### ")[0]
    (formula, reach) = re.findall(r"^(r \+ b16 .*?) +\[(\d+)\]$", text, re.MULTILINE)[0]
    assert int(reach) == shipped.decoder.network.halo
    assert formula == "r + b16 + ceil((4 * (b4 + r) + 8 * b8) / 16)"
