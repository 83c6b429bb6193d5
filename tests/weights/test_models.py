"""Finding models: names, ids and paths; manifests of every origin.

Which file is taken from where.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import BODY, SHA256, Page, Server, names, unprivileged

from pillow_cwic.errors import WeightsError
from pillow_cwic.weights import cache, catalogue, models, verified
from pillow_cwic.weights.folders import cache_folder, manifest_folder

pytest_plugins = ["loopback"]
pytestmark = pytest.mark.usefixtures("cache_dir")

ID = SHA256[:16]
MODEL = {"name": "mine", "file": "mine.safetensors", "sha256": SHA256, "bytes": len(BODY)}
DEFAULT = catalogue.read(str(catalogue.builtin_path())).models[0]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    models.forget()
    yield
    models.forget()


def write(path: Path, *models: dict[str, object], **fields: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema": 1, "models": list(models), **fields}))
    return path


def page(*models: dict[str, object]) -> Page:
    return Page(json.dumps({"schema": 1, "models": list(models)}).encode())


def test_the_default_model_is_in_the_package() -> None:
    """Without any setting, network or cache, the default is the shipped file."""
    entry = models.find(None)
    assert entry == models.find(entry.name) == models.find(entry.id) == DEFAULT
    assert models.locate(entry) == models.WHEEL_DIR / DEFAULT.file
    assert not cache_folder().exists()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_a_model(tmp_path: Path, kind: type) -> None:
    """A weights file given by path needs no manifest.

    Its id is its content's, and its place is where it is.
    """
    path = tmp_path / "some.safetensors"
    path.write_bytes(BODY)
    entry = models.find(kind(path))
    assert (entry.id, entry.sha256, entry.bytes) == (ID, SHA256, len(BODY))
    assert models.locate(entry) == path


def test_a_path_is_known_by_its_id_afterwards(tmp_path: Path) -> None:
    """Who encodes with a weights file can decode in the same process.

    The id leads back to the path.
    """
    path = tmp_path / "some.safetensors"
    path.write_bytes(BODY)
    models.find(path)
    assert models.locate(models.find(ID)) == path


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A path that leads nowhere is reported as a path, not as an unknown name."""
    with pytest.raises(
        WeightsError, match=r"cannot read the weights file .*/none\.safetensors: No such file"
    ):
        models.find(str(tmp_path / "none.safetensors"))


def test_an_id_is_never_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id comes from a picture.

    A file that happens to have its name in the working directory is not opened.
    """
    (tmp_path / ID).write_bytes(BODY)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=f"the model with id {ID} is not known here"):
        models.find(ID)


def test_an_unknown_id_says_where_it_looked_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the id, each manifest with its models, the broken ones, the folders.

    And both remedies.
    """
    own = write(tmp_path / "own.json", {**MODEL, "sha256": SHA256[::-1]})
    broken = write(manifest_folder() / "broken.json", schema=9)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(own))
    with pytest.raises(WeightsError) as error:
        models.find(ID)
    text = str(error.value)
    assert f"the model with id {ID} is not known here" in text
    assert f"{catalogue.builtin_path()}: '{DEFAULT.name}' ({DEFAULT.id})" in text
    assert f"{own}: 'mine' ({SHA256[::-1][:16]})" in text
    assert f"the manifest {broken} has schema 9: expected 1" in text
    assert str(cache_folder()) in text
    assert str(models.WHEEL_DIR) in text
    assert "pillow-cwic weights add MANIFEST" in text
    assert "PILLOW_CWIC_MANIFEST" in text


def test_an_unknown_name_lists_what_is_known() -> None:
    """A wrong name is answered with the names there are."""
    with pytest.raises(
        WeightsError, match=rf"the model 'onbit' is not known here[\s\S]*'{DEFAULT.name}'"
    ):
        models.find("onbit")


def test_a_file_beside_its_manifest_is_used_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PILLOW_CWIC_MANIFEST may be a path.

    The model beside it is found by name and id, and nothing is copied.
    """
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(write(tmp_path / "share" / "m.json", MODEL)))
    (tmp_path / "share" / "mine.safetensors").write_bytes(BODY)
    assert models.find("mine") == models.find(ID)
    assert models.locate(models.find(ID)) == tmp_path / "share" / "mine.safetensors"
    assert not cache_folder().exists()


def test_a_later_manifest_takes_a_name_but_no_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's manifest wins a name over the user's and the built-in one.

    Ids and the default stay.
    """
    write(manifest_folder() / "a.json", {**MODEL, "name": DEFAULT.name, "sha256": "a" * 64})
    assert models.find(DEFAULT.name).id == "a" * 16
    last = write(tmp_path / "last.json", {**MODEL, "name": DEFAULT.name}, default=DEFAULT.name)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(last))
    assert models.find(DEFAULT.name).id == ID
    assert models.find("a" * 16).id == "a" * 16
    assert models.find(DEFAULT.id) == DEFAULT
    assert models.find(None) == DEFAULT


def test_a_broken_manifest_hides_no_model() -> None:
    """Ids are found although another manifest is broken.

    A name too, with a warning, as the broken one might own it.
    """
    write(manifest_folder() / "broken.json", {"name": "x"})
    assert models.find(DEFAULT.id) == DEFAULT
    with pytest.warns(
        UserWarning, match=r"a manifest was left out: the manifest .*broken\.json is not valid"
    ):
        assert models.find(DEFAULT.name) == DEFAULT


def test_a_manifest_from_the_web_is_fetched_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest URL and the model beside it are fetched on first use.

    Then, in a new process, nobody is asked.
    """
    server.pages.update({"/m/list.json": page(MODEL), "/m/mine.safetensors": Page(BODY)})
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/m/list.json"))
    assert models.locate(models.find(ID)) == cache.model_path(SHA256)
    assert server.paths() == ["/m/list.json", "/m/mine.safetensors"]
    models.forget()
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    assert models.find("mine") == models.find(ID)
    assert models.locate(models.find(ID)).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_name_means_the_same_before_and_after_the_first_fetch(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest URL that gives a shipped model's name to another model is asked first.

    Before the name is used at all.
    """
    server.pages["/list.json"] = page({**MODEL, "name": DEFAULT.name})
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/list.json"))
    assert [models.find(DEFAULT.name).id, models.find(DEFAULT.name).id] == [ID, ID]


def test_an_id_newer_than_the_copy_is_asked_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached manifest without the id is fetched anew.

    But an id nobody knows doesn't ask at every picture.
    """
    server.pages["/list.json"] = page()
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/list.json"))
    with pytest.raises(WeightsError):
        models.find(ID)
    with pytest.raises(WeightsError):
        models.find(ID)
    assert len(server.requests) == 1
    server.pages["/list.json"] = page(MODEL)
    models.forget()  # a new process, or a minute later
    assert models.find(ID).name == "mine"
    assert len(server.requests) == 2


def test_a_known_id_asks_no_manifest_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures of the shipped model open without a request, whatever PILLOW_CWIC_MANIFEST says."""
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/never.json"))
    assert models.find(DEFAULT.id) == models.find(None) == DEFAULT
    assert server.requests == []


def test_a_damaged_copy_of_a_manifest_heals(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that is no manifest any more is reported, and replaced when an id is asked for."""
    server.pages["/list.json"] = page(MODEL)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/list.json"))
    assert models.find(ID).name == "mine"
    (copy,) = (cache_folder() / "manifests").iterdir()
    copy.write_bytes(b"{")
    models.forget()
    assert "is not JSON" in catalogue.read_all().problems[0]
    assert models.find(ID).name == "mine"
    models.forget()
    assert catalogue.read_all().problems == []


def test_an_unreachable_manifest_is_reported(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown id whose manifest can't be fetched says so, with the address and the reason."""
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/gone.json"))
    with pytest.raises(
        WeightsError, match=rf"cannot fetch {server.url('/gone.json')}: HTTP 404 Not Found"
    ):
        models.find(ID)


def test_a_manifest_from_the_web_needs_no_writable_cache(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no copy can be kept, the manifest is fetched once per process and works."""
    server.pages["/list.json"] = page(MODEL)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/list.json"))
    with unprivileged() as folder:
        monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(folder))
        assert models.find(ID).name == models.find("mine").name == "mine"
    assert len(server.requests) == 1


def test_a_copied_cache_needs_no_manifest(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache copied from another machine is enough to open pictures.

    A cached file's name is its hash.
    """
    cache_dir.mkdir()
    (cache_dir / f"{SHA256}.safetensors").write_bytes(BODY)
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    assert models.locate(models.find(ID)).read_bytes() == BODY


def test_a_read_only_cache_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A valid file in a directory without write permission is used, nothing is written there."""
    with unprivileged({f"{SHA256}.safetensors": BODY}) as folder:
        monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(folder))
        assert models.locate(models.find(ID)).read_bytes() == BODY
        assert names(folder) == {f"{SHA256}.safetensors"}


def test_a_damaged_cached_file_is_fetched_again(
    server: Server, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cached file with one flipped bit is noticed before it is used.

    It is deleted, and replaced from the network.
    """
    server.pages.update({"/list.json": page(MODEL), "/mine.safetensors": Page(BODY)})
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/list.json"))
    cache_dir.mkdir()
    (cache_dir / f"{SHA256}.safetensors").write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    with pytest.raises(WeightsError, match="is not on this machine and PILLOW_CWIC_OFFLINE is set"):
        models.locate(models.find(ID))
    assert names(cache_dir) == set()
    monkeypatch.delenv("PILLOW_CWIC_OFFLINE")
    assert models.locate(models.find(ID)).read_bytes() == BODY
    assert names(cache_dir) == {f"{SHA256}.safetensors", "manifests"}


def test_a_damaged_shipped_file_says_reinstall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package whose model file is damaged says so by path, and uses no network quietly."""
    (tmp_path / DEFAULT.file).write_bytes(b"cut short")
    monkeypatch.setattr(verified, "WHEEL_DIR", tmp_path)
    with pytest.raises(
        WeightsError, match=rf"{DEFAULT.file} is damaged: .*{DEFAULT.sha256}; reinstall pillow-cwic"
    ):
        models.locate(DEFAULT)


def test_the_package_comes_before_the_cache(cache_dir: Path) -> None:
    """A shipped model is read where it is, whatever the user's folders hold: a pipe, for one."""
    cache_dir.mkdir()
    os.mkfifo(cache_dir / f"{DEFAULT.sha256}.safetensors")
    assert models.locate(DEFAULT) == models.WHEEL_DIR / DEFAULT.file


def test_a_retrained_file_beside_an_old_manifest_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that no longer has the manifest's hash is reported by path, with the hash expected."""
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(write(tmp_path / "m.json", MODEL)))
    (tmp_path / "mine.safetensors").write_bytes(BODY[::-1])
    with pytest.raises(
        WeightsError, match=rf"{tmp_path}/mine\.safetensors: its SHA-256 is not the {SHA256}"
    ):
        models.locate(models.find("mine"))


def test_looking_up_imports_neither_torch_nor_requests() -> None:
    """Finding and verifying the shipped model needs no torch, no requests and no filelock."""
    code = (
        "import sys; from pillow_cwic.weights import models; models.locate(models.find(None));"
        "print(sorted({'torch', 'requests', 'filelock', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_id_is_the_start_of_the_hash() -> None:
    """The id of a file's model is the first 8 bytes of the SHA-256 of its weights file, in hex."""
    digest = hashlib.sha256((models.WHEEL_DIR / DEFAULT.file).read_bytes()).digest()
    assert digest[:8].hex() == DEFAULT.id
