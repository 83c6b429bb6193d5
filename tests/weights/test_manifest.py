"""The manifest's schema: what is accepted, and what is said of what is not.

Each bad field is named with what was found and expected.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pillow_cwic.errors import WeightsError
from pillow_cwic.runtime.package import package_data
from pillow_cwic.weights import cache, catalogue, manifest, manifest_fields
from pillow_cwic.weights.manifest import QualityPoint

SHA256 = "0123456789abcdef" * 4
GOOD = {"name": "mine", "file": "mine.safetensors", "sha256": SHA256, "bytes": 12}
HERE = "/models/manifest.json"


def parse(*models: dict[str, Any], location: str = HERE, **fields: Any) -> manifest.Manifest:
    return manifest.parse(
        json.dumps({"schema": 1, "models": list(models), **fields}).encode(), location
    )


def test_the_shipped_manifest_describes_the_shipped_file() -> None:
    """The built-in manifest is valid, has a default.

    Its hash and size are those of the file in the package.
    """
    shipped = manifest.read(catalogue.builtin_path())
    assert shipped.default is not None
    entry = shipped.by_name(shipped.default)
    assert entry is not None
    path = package_data() / entry.file
    assert cache.hash_file(path) == entry.sha256
    assert path.stat().st_size == entry.bytes
    assert entry.licence == "MIT"


def test_every_field_is_read() -> None:
    """An entry has the manifest's values, and unknown fields are ignored.

    The id is the first 16 digits of the hash.
    """
    quality = [{"index": 0, "bpp": 0.1, "psnr": 25}, {"index": 63, "bpp": 1, "psnr": 33.5}]
    extras = {
        "urls": ["https://a.example/m"],
        "config": {"n": 1},
        "licence": "MIT",
        "training": "by hand",
        "later": 1,
    }
    entry = parse({**GOOD, **extras, "quality": quality}, default="mine").models[0]
    assert (entry.name, entry.file, entry.sha256, entry.bytes) == (
        "mine",
        "mine.safetensors",
        SHA256,
        12,
    )
    assert (entry.urls, entry.config, entry.licence, entry.training) == (
        ("https://a.example/m",), {"n": 1}, "MIT", "by hand",
    )  # fmt: skip
    assert entry.quality == (QualityPoint(0, 0.1, 25.0), QualityPoint(63, 1.0, 33.5))
    assert entry.id == "0123456789abcdef"
    assert entry.origin == HERE


BAD_FIELDS = [
    ("name", "", "1 to 64 letters"),
    ("name", "a" * 65, "1 to 64 letters"),
    ("name", "../evil", "1 to 64 letters"),
    ("name", "0123456789abcdef", "not 16 hex digits"),
    ("name", 7, "1 to 64 letters"),
    ("file", "../mine.safetensors", "plain file name"),
    ("file", "/etc/mine.safetensors", "plain file name"),
    ("file", ".mine.safetensors", "plain file name"),
    ("file", "mine.pt", "ending in .safetensors"),
    ("sha256", SHA256[:-1], "64 lower-case hex digits"),
    ("sha256", SHA256.upper(), "64 lower-case hex digits"),
    ("sha256", None, "64 lower-case hex digits"),
    ("bytes", 0, "positive integer"),
    ("bytes", True, "positive integer"),
    ("bytes", 1.5, "positive integer"),
    ("urls", "https://a.example/m", "list of http(s) URLs"),
    ("urls", ["ftp://a.example/m"], "list of http(s) URLs"),
    ("urls", ["file:///etc/passwd"], "list of http(s) URLs"),
    ("urls", ["/etc/passwd"], "list of http(s) URLs"),
    ("urls", ["a/../../b"], "list of http(s) URLs"),
    ("urls", [""], "list of http(s) URLs"),
    ("config", [], "an object"),
    ("quality", {}, '"index": 0..63'),
    ("quality", [1], '"index": 0..63'),
    ("quality", [{"index": 64, "bpp": 1, "psnr": 30}], '"index": 0..63'),
    ("quality", [{"index": 1, "bpp": -1, "psnr": 30}], '"index": 0..63'),
    ("quality", [{"index": 1, "bpp": 1}], '"index": 0..63'),
    ("quality", [{"index": i, "bpp": 1, "psnr": 30} for i in (2, 1)], "rising indices"),
    ("licence", 3, "text"),
    ("training", 3, "text or an object"),
]


@pytest.mark.parametrize(("name", "value", "expected"), BAD_FIELDS)
def test_a_bad_field_is_named(name: str, value: object, expected: str) -> None:
    """A bad value is reported with manifest, field, what was found and what was expected."""
    with pytest.raises(WeightsError) as error:
        parse({**GOOD, name: value})
    text = str(error.value)
    assert HERE in text
    assert f"field {name!r}: found {manifest_fields.short(value)}, expected" in text
    assert expected in text


@pytest.mark.parametrize("name", ["name", "file", "sha256", "bytes"])
def test_a_missing_field_is_named(name: str) -> None:
    """The four fields without which a model can't be had are required, each by name."""
    with pytest.raises(WeightsError, match=f"field {name!r}: missing, expected"):
        parse({key: value for key, value in GOOD.items() if key != name})


def test_all_bad_fields_are_listed_at_once() -> None:
    """Whoever writes a manifest sees every mistake in one go, each with its model's name."""
    with pytest.raises(WeightsError) as error:
        parse({**GOOD, "bytes": -1, "sha256": "?"}, {**GOOD, "name": "other", "file": "x"})
    lines = str(error.value).splitlines()[1:]
    assert [re.match(r"  model '(\w+)', field '(\w+)'", line).groups() for line in lines] == [
        ("mine", "sha256"), ("mine", "bytes"), ("other", "file"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89CWIC", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "expected a JSON object with 'schema' and 'models'"),
        (b"{}", "has schema None: expected 1"),
        (b'{"schema": 2, "models": []}', "a higher number needs a newer pillow-cwic"),
        (b'{"schema": 1}', "field 'models': found None, expected a list of objects"),
        (
            b'{"schema": 1, "models": [1]}',
            r"field 'models': found \[1\], expected a list of objects",
        ),
        (
            b'{"schema": 1, "models": [], "default": "x"}',
            "field 'default': found 'x', expected the name of one",
        ),
        (b" " * (manifest.MAX_MANIFEST_BYTES + 1), "is larger than 4194304 bytes"),
    ],
)
def test_a_document_that_is_no_manifest_is_refused(data: bytes, message: str) -> None:
    """Other documents, other versions and absurd sizes are a WeightsError that says which it is."""
    with pytest.raises(WeightsError, match=message):
        manifest.parse(data, HERE)


def test_a_name_is_listed_once() -> None:
    """Two models of one name in one manifest are refused: nobody could say which is meant."""
    with pytest.raises(WeightsError, match="model 'mine' is listed twice"):
        parse(GOOD, {**GOOD, "sha256": SHA256[::-1]})


def test_relative_urls_start_at_the_manifest() -> None:
    """From an http manifest, relative URLs and the file beside it are URLs.

    From a local one they are paths.
    """
    model = {**GOOD, "urls": ["v1/mine.safetensors", "https://b.example/m"]}
    remote = parse(model, location="https://a.example/models/manifest.json").models[0]
    assert remote.remote_urls() == [
        "https://a.example/models/v1/mine.safetensors",
        "https://b.example/m",
        "https://a.example/models/mine.safetensors",
    ]
    assert remote.local_files() == []
    local = parse(model).models[0]
    assert local.remote_urls() == ["https://b.example/m"]
    assert local.local_files() == [
        Path("/models/v1/mine.safetensors"),
        Path("/models/mine.safetensors"),
    ]


def test_a_base_replaces_the_location() -> None:
    """A "base" says where relative URLs start in a copied manifest.

    One from the web can't point into the disk.
    """
    assert (
        parse(GOOD, base="https://a.example/m.json").models[0].origin == "https://a.example/m.json"
    )
    assert parse(GOOD, base="/elsewhere/m.json").models[0].local_files() == [
        Path("/elsewhere/mine.safetensors")
    ]
    with pytest.raises(WeightsError, match=r"has base '/etc/m\.json': expected an http"):
        parse(GOOD, base="/etc/m.json", location="https://a.example/m.json")
