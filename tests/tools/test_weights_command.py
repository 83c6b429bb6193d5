"""`pillow-cwic weights`: what each verb prints and does, and its exit code."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import BODY, SHA256, Page, Server, names

from pillow_cwic.tools import weights_command
from pillow_cwic.weights import cache, catalogue, models
from pillow_cwic.weights.folders import cache_folder, manifest_folder

pytest_plugins = ["loopback"]

ID = SHA256[:16]
MODEL = {
    "name": "mine",
    "file": "mine.safetensors",
    "sha256": SHA256,
    "bytes": len(BODY),
    "licence": "MIT",
}
LIST = json.dumps({"schema": 1, "models": [MODEL]}).encode()
SHIPPED = catalogue.read(str(catalogue.builtin_path())).models
DEFAULT = SHIPPED[0]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(cache_dir: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Runs a verb; gives the exit code, stdout and stderr."""
    parser = argparse.ArgumentParser("pillow-cwic")
    weights_command.add_parser(parser.add_subparsers())

    def call(*arguments: str) -> tuple[int, str, str]:
        models.forget()  # each call is a process of its own
        args = parser.parse_args(["weights", *arguments])
        code = args.func(args)
        return code, *capsys.readouterr()

    yield call
    models.forget()


@pytest.fixture
def shared(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose folder /team holds a manifest and its model, named by PILLOW_CWIC_MANIFEST."""
    server.pages.update({"/team/list.json": Page(LIST), "/team/mine.safetensors": Page(BODY)})
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", server.url("/team/list.json"))
    return server


def test_list_is_a_table_of_all_models(run: Run, shared: Server) -> None:
    """One line per model with name, id, size, place and manifest; the default is marked."""
    code, output, errors = run("list")
    assert (code, errors) == (0, "")
    header, first, *others, last = output.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "WHERE", "MANIFEST"]
    shipped = str(models.WHEEL_DIR / DEFAULT.file)
    assert first.split() == [
        DEFAULT.name,
        "(default)",
        DEFAULT.id,
        f"{DEFAULT.bytes / 1e6:.1f}",
        "MB",
        shipped,
        str(catalogue.builtin_path()),
    ]
    assert [line.split()[0] for line in others] == [entry.name for entry in SHIPPED[1:]]
    assert last.split() == [
        "mine",
        ID,
        "3.0",
        "MB",
        "to",
        "be",
        "fetched",
        shared.url("/team/list.json"),
    ]


def test_list_as_json_has_every_fact(run: Run, shared: Server) -> None:
    """--json gives scripts names, hashes, sizes, licences, paths and URLs."""
    code, output, _ = run("list", "--json")
    shipped, *_, mine = json.loads(output)
    assert code == 0
    assert shipped["default"] is True
    assert shipped["path"] == str(models.WHEEL_DIR / DEFAULT.file)
    assert mine == {
        "name": "mine", "id": ID, "bytes": len(BODY), "sha256": SHA256, "licence": "MIT",
        "default": False,
        "path": None, "urls": [shared.url("/team/mine.safetensors")],
        "manifest": shared.url("/team/list.json"),
        "name_taken_by": None,
    }  # fmt: skip


def test_list_says_who_took_a_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that a later manifest gives to another model is marked on the earlier line."""
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"schema": 1, "models": [{**MODEL, "name": DEFAULT.name}]}))
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(own))
    _, output, _ = run("list")
    first, *_, last = output.splitlines()[1:]
    assert first.endswith(f"(use the id: the name means another model, from {own})")
    assert "nowhere: no URL" in last
    assert last.endswith(str(own))


def test_list_shows_files_that_no_manifest_knows(run: Run, cache_dir: Path) -> None:
    """A model in the cache is listed even if no manifest names it."""
    cache_dir.mkdir()
    (cache_dir / f"{SHA256}.safetensors").write_bytes(BODY)
    assert run("list")[1].splitlines()[-1].split()[:2] == ["-", ID]


def test_a_broken_manifest_is_exit_code_1(run: Run) -> None:
    """What could be listed is listed; what is wrong goes to stderr and into the exit code."""
    manifest_folder().mkdir(parents=True)
    (manifest_folder() / "broken.json").write_text("?")
    code, output, errors = run("list")
    assert code == 1
    assert DEFAULT.id in output
    assert "broken.json is not JSON" in errors


def test_fetch_makes_a_machine_ready(
    run: Run, shared: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments every known model is made ready; afterwards nothing needs the network."""
    code, output, errors = run("fetch", "--quiet")
    assert (code, errors) == (0, "")
    assert [line.split()[:3] for line in output.splitlines()[1:]] == [
        *([entry.name, entry.id, "ready"] for entry in SHIPPED),
        ["mine", ID, "ready"],
    ]
    assert cache.model_path(SHA256).read_bytes() == BODY
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    before = len(shared.requests)
    assert run("fetch", "mine")[0] == 0
    assert len(shared.requests) == before


def test_fetch_of_an_unknown_model_fetches_the_others(run: Run, shared: Server) -> None:
    """One wrong name is exit code 1 and does not stop the rest."""
    code, output, errors = run("fetch", "nobody", ID)
    assert code == 1
    assert "the model 'nobody' is not known here" in errors
    assert output.splitlines()[1].split()[:3] == ["mine", ID, "ready"]


def test_fetch_sees_a_model_added_to_the_manifest(run: Run, shared: Server) -> None:
    """A manifest URL is looked at anew by `fetch`, although a copy is in the cache."""
    shared.pages["/team/list.json"] = Page(b'{"schema": 1, "models": []}')
    assert run("fetch")[0] == 0
    shared.pages["/team/list.json"] = Page(LIST)
    assert "mine" in run("fetch")[1]


def test_verify_finds_a_flipped_bit(run: Run, cache_dir: Path) -> None:
    """Every file is hashed: intact ones are ok, a damaged one is named, and the exit code 1."""
    cache_dir.mkdir()
    path = cache_dir / f"{SHA256}.safetensors"
    path.write_bytes(BODY)
    code, output, _ = run("verify")
    assert code == 0
    assert [line.split()[2] for line in output.splitlines()[1:]] == ["ok"] * (len(SHIPPED) + 1)
    path.write_bytes(BODY[:-1] + bytes([BODY[-1] ^ 1]))
    code, output, errors = run("verify", "--json")
    assert code == 1
    found = [(row["id"], row["status"]) for row in json.loads(output)]
    assert found == [*((entry.id, "ok") for entry in SHIPPED), (ID, "damaged")]
    assert f"{path} is damaged" in errors


def test_where_names_folders_and_settings(
    run: Run, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders in use and the variables that rule them, for people and for scripts."""
    monkeypatch.setenv("PILLOW_CWIC_WEIGHTS_URL", "https://mirror.example/models")
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    assert json.loads(run("where", "--json")[1]) == {
        "cache": str(cache_dir),
        "shipped": str(models.WHEEL_DIR),
        "manifests": [str(catalogue.builtin_path())],
        "added_manifests": str(manifest_folder()),
        "mirror": "https://mirror.example/models",
        "offline": True,
    }
    assert f"cache            {cache_dir}" in run("where")[1].splitlines()


def test_tables_hold_no_secrets(run: Run, shared: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords and signatures of addresses are left out; `--json`, for scripts, has them whole."""
    address = shared.url("/team/list.json?signature=hunter2")
    shared.pages["/team/list.json?signature=hunter2"] = shared.pages["/team/list.json"]
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", address.replace("//", "//me:hunter2@"))
    monkeypatch.setenv("PILLOW_CWIC_WEIGHTS_URL", "https://me:hunter2@mirror.example/models")
    for verb in ("list", "where"):
        code, output, errors = run(verb)
        assert code == 0
        assert "hunter2" not in output + errors
        assert shared.url("/team/list.json") in output
        assert "hunter2" in run(verb, "--json")[1]


def test_an_added_manifest_stays(run: Run, server: Server) -> None:
    """After `add URL` the model is known by name and id without any variable.

    It is fetched relative to that URL.
    """
    server.pages.update({"/team/list.json": Page(LIST), "/team/mine.safetensors": Page(BODY)})
    code, output, _ = run("add", server.url("/team/list.json"))
    assert code == 0
    assert output.splitlines()[1].split()[:3] == ["mine", ID, "added"]
    models.forget()
    assert models.locate(models.find(ID)).read_bytes() == BODY
    assert server.paths() == ["/team/list.json", "/team/mine.safetensors"]


def test_an_added_manifest_is_asked_about_newer_models(run: Run, server: Server) -> None:
    """A picture of a model that the team published after `add` opens without a second `add`."""
    server.pages["/team/list.json"] = Page(b'{"schema": 1, "models": []}')
    run("add", server.url("/team/list.json"))
    server.pages["/team/list.json"] = Page(LIST)
    models.forget()
    assert models.find(ID).origin == server.url("/team/list.json")
    models.forget()
    assert catalogue.read_all().by_id(ID) is not None  # without network: the copy is up to date
    assert len(list(manifest_folder().iterdir())) == 1


def test_a_manifest_server_that_is_down_is_a_note(run: Run, server: Server) -> None:
    """With a copy at hand, `list` works without the server, says so on stderr, and succeeds."""
    server.pages["/team/list.json"] = Page(LIST)
    run("add", server.url("/team/list.json"))
    server.pages["/team/list.json"] = Page(status=503)
    code, output, errors = run("list")
    assert code == 0
    assert ID in output
    url = server.url("/team/list.json")
    assert errors.startswith(
        f"pillow-cwic: note: cannot fetch {url}: HTTP 503 Service Unavailable; check"
    )


def test_an_added_local_manifest_remembers_its_folder(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `add PATH`, relative to the working directory, the model beside it is used in place."""
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "list.json").write_bytes(LIST)
    (tmp_path / "team" / "mine.safetensors").write_bytes(BODY)
    monkeypatch.chdir(tmp_path)
    assert run("add", "team/list.json")[0] == run("add", "team/list.json")[0] == 0
    assert len(list(manifest_folder().iterdir())) == 1
    monkeypatch.chdir("/")
    assert models.locate(models.find("mine")) == tmp_path / "team" / "mine.safetensors"


def test_a_wrong_manifest_is_not_added(run: Run, tmp_path: Path) -> None:
    """A manifest with a bad field is refused with that field, exit code 1, and nothing is kept."""
    (tmp_path / "bad.json").write_text(json.dumps({"schema": 1, "models": [{**MODEL, "bytes": 0}]}))
    code, output, errors = run("add", str(tmp_path / "bad.json"))
    assert (code, output) == (1, "")
    assert "model 'mine', field 'bytes': found 0, expected the file's size" in errors
    assert not manifest_folder().exists()


def test_remove_deletes_a_cached_model(run: Run, shared: Server, cache_dir: Path) -> None:
    """A model leaves the cache by name or id; then there is nothing to remove.

    A shipped file is not touched.
    """
    run("fetch", "mine")
    code, output, _ = run("remove", "mine")
    assert code == 0
    assert f"{cache_dir}/{SHA256}.safetensors" in output
    assert names(cache_dir) == {"manifests"}
    code, _, errors = run("remove", "mine", DEFAULT.name)
    assert code == 1
    assert errors.count("nothing to remove") == 2
    assert (models.WHEEL_DIR / DEFAULT.file).exists()


@pytest.mark.parametrize("by", ["location", "file name"])
def test_remove_takes_back_an_added_manifest(run: Run, tmp_path: Path, by: str) -> None:
    """A manifest goes by what was given to `add` or by its copy's file name; the original stays."""
    original = tmp_path / "list.json"
    original.write_bytes(LIST)
    run("add", str(original))
    (copy,) = manifest_folder().iterdir()
    assert run("remove", str(original) if by == "location" else copy.name)[0] == 0
    assert list(manifest_folder().iterdir()) == []
    assert original.read_bytes() == LIST


def test_wrong_usage_is_exit_code_2(run: Run) -> None:
    """No verb, an unknown verb or a missing argument is argparse's exit code 2."""
    for arguments in ([], ["polish"], ["add"], ["remove"]):
        with pytest.raises(SystemExit) as stop:
            run(*arguments)
        assert stop.value.code == 2


def test_a_copied_cache_is_an_air_gapped_machine(
    run: Run, shared: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of a machine with network, copied to one without, gives names and ids there.

    Manifests included.
    """
    run("fetch", "mine")
    shutil.copytree(cache_folder(), tmp_path / "stick")
    monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(tmp_path / "stick"))
    monkeypatch.setenv("PILLOW_CWIC_OFFLINE", "1")
    before = len(shared.requests)
    code, output, _ = run("verify", "mine")
    assert code == 0
    assert str(tmp_path / "stick" / f"{SHA256}.safetensors") in output
    assert len(shared.requests) == before
