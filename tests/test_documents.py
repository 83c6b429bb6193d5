"""The documents are true where a machine can tell: examples run, links lead, lines are short.

Every fenced block of README.md, CONTRIBUTING.md and docs/*.md is taken, by its language:

- python: run in a fresh interpreter, in a folder with the files that the examples name.
- sh: command by command, in order. `pillow-cwic` is run for real, in this process. Not run, but
  parsed by the program's own argument parser with exactly these options: training, export,
  evaluation and torchrun (hours), benchmarks and the scripts of training/ (minutes, or other
  weights), `demo` (.ci/run runs it), `weights fetch` (downloads every model). Of venv, pip, pytest,
  ruff, mypy, lint-imports, http.server and of scripts without a parser only what they name is
  looked up: extras, tools, files. `train smoke` is run with few steps by the tests of training.
- json: read as a manifest. toml: read as a training recipe. text: a drawing, nothing to run.

Run it alone: pytest tests/test_documents.py
"""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

import pillow_cwic
from pillow_cwic.networks.config import ModelConfig
from pillow_cwic.tools import cli
from pillow_cwic.training import __main__ as training
from pillow_cwic.training import recipe as recipes
from pillow_cwic.weights import manifest

ROOT = Path(__file__).parents[1]
EXPLAINED = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DOCUMENTS = [
    *EXPLAINED,
    ROOT / "CHANGELOG.md",
    ROOT / "training" / "LOG.md",
    ROOT / "pillow_cwic" / "data" / "README.md",
    *sorted((ROOT / "training" / "models").glob("*.md")),
]
LANGUAGES = {"python", "sh", "json", "toml", "text"}
WIDTH = 100
MODEL = ROOT / "tests" / "golden" / "tiny" / "tiny.safetensors"
TEAM = "http://anna:8000"  # the team's server in docs/weights.md


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    document: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def blocks_of(document: Path) -> Iterator[Block]:
    """The fenced blocks, without the indentation of lists."""
    lines = document.read_text(encoding="utf-8").splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.lstrip().startswith("```"):
            continue
        if start is None:
            start = number
            continue
        indent = len(lines[start]) - len(lines[start].lstrip())
        text = "".join(f"{inside[indent:]}\n" for inside in lines[start + 1 : number])
        yield Block(document, start + 1, lines[start].strip().removeprefix("```"), text)
        start = None
    assert start is None, f"{document}: the block that starts in line {start} has no end"


def prose_of(document: Path) -> list[str]:
    """The lines of a document, empty where a fenced block is."""
    lines = []
    fenced = False
    for line in document.read_text(encoding="utf-8").splitlines():
        fence = line.lstrip().startswith("```")
        lines.append("" if fence or fenced else line)
        fenced ^= fence
    return lines


BLOCKS = [block for document in EXPLAINED for block in blocks_of(document)]


def blocks_in(language: str) -> pytest.MarkDecorator:
    """A test parameter: the blocks of one language."""
    return pytest.mark.parametrize(
        "block", [block for block in BLOCKS if block.language == language], ids=str
    )


# The folder that the examples are run in


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with everything that the examples name.

    Models `ours` and `first` are known.
    """
    folder = tmp_path / "scene"
    for name in ("photos", "test-photos", "kodak", "team"):
        (folder / name).mkdir(parents=True)
    for name in ("benchmarks", "docs", "tests", "training", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)

    with Image.open(ROOT / "pillow_cwic" / "data" / "astronaut.webp") as image:
        photo = image.convert("RGB").crop((170, 60, 250, 132))
    for name in ("photo.png", "photo.jpg", "photos/one.png", "photos/two.png"):
        photo.save(folder / name)
    Image.linear_gradient("L").resize(photo.size).save(folder / "mask.png")

    models = [{**MANIFEST["models"][0], "name": name} for name in ("ours", "first")]
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "models": models}))
    (folder / "team" / "manifest.json").write_text(json.dumps(MANIFEST))
    for place in (folder, folder / "team"):
        (place / "ours.safetensors").write_bytes(MODEL.read_bytes())
    (folder / "larger.toml").write_text(shipped_recipe())

    monkeypatch.chdir(folder)
    monkeypatch.setenv("PILLOW_CWIC_MANIFEST", str(folder / "manifest.json"))
    monkeypatch.setenv("PILLOW_CWIC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def described_manifest() -> dict[str, list[dict[str, object]]]:
    """The team's manifest, as docs/weights.md prints it."""
    (block,) = (block for block in BLOCKS if block.language == "json")
    return json.loads(block.text)


MANIFEST = described_manifest()


def shipped_recipe() -> str:
    """The recipe of the default model."""
    manifest = json.loads((ROOT / "weights_manifest.json").read_text())
    (entry,) = (model for model in manifest["models"] if model["name"] == manifest["default"])
    return (ROOT / "training" / "recipes" / f"{entry['training']['recipe']}.toml").read_text(
        encoding="utf-8"
    )


@pytest.fixture
def team_server(scene: Path) -> Iterator[str]:
    """The address of a server with the team's folder, as `python -m http.server` gives it."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(scene / "team"))
    ) as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


# Blocks


def test_every_block_names_its_language():
    """No fenced block is without a language, and each language is one that is checked here."""
    assert [
        f"{block}: {block.language!r}" for block in BLOCKS if block.language not in LANGUAGES
    ] == []


@blocks_in("python")
def test_python_examples_run(block: Block, scene: Path):
    """A python block runs to its end in a fresh interpreter, without any other block before it.

    Where a library that it is about is missing, there is nothing to run.
    """
    for name in re.findall(r"^(?:import|from) (\w+)", block.text, re.MULTILINE):
        pytest.importorskip(name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", block.text]
    done = subprocess.run(
        command, cwd=scene, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"


@blocks_in("sh")
def test_commands_work(
    block: Block, scene: Path, team_server: str, monkeypatch: pytest.MonkeyPatch
):
    """Each command of a sh block does what it says, or is one that its program accepts.

    The module's docstring says which are run.
    """
    for command in commands_of(block.text.replace(TEAM, team_server)):
        with monkeypatch.context() as patch:
            while re.fullmatch(r"[A-Z_]+=.*", command[0]):
                patch.setenv(*command.pop(0).split("=", 1))
            run(command, patch)


@blocks_in("json")
def test_json_is_a_manifest(block: Block):
    """What docs/weights.md shows as a manifest is one, of the file that the tests use as `ours`."""
    (entry,) = manifest.parse(block.text.encode(), str(ROOT / "manifest.json")).models
    assert (entry.file, entry.bytes) == ("ours.safetensors", MODEL.stat().st_size)
    assert entry.id == pillow_cwic.model_info(MODEL).id


@blocks_in("toml")
def test_toml_is_a_recipe(block: Block):
    """What docs/training.md shows as a recipe is one, complete and without unknown keys."""
    assert recipes.parse(block.text, str(block)).stages


# Commands


def commands_of(text: str) -> Iterator[list[str]]:
    """The commands of a shell script as words, one after the other; comments are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command.append(word)
            elif command:
                yield command
                command = []


def run(command: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run or parse one command; AssertionError where it would not work."""
    program, arguments = command[0].removeprefix(".venv/bin/"), command[1:]
    if program == "pillow-cwic":
        if arguments[0] == "demo" or arguments[:2] == ["weights", "fetch"]:
            assert_parses(partial(cli.main, arguments), patch)
        else:
            assert cli.main(arguments) == 0, shlex.join(command)
    elif program in ("python", "torchrun"):
        run_python(arguments, patch)
    elif program == "python3":
        assert arguments == ["-m", "venv", ".venv"]
    elif program == ".":
        assert arguments == [".venv/bin/activate"]
    elif program == "pip":
        assert_extras_exist(arguments)
    else:
        assert program in TOOLS, f"no rule for {shlex.join(command)}"
        assert_files_exist(arguments)


def run_python(arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """`python -m MODULE ...`, `torchrun ... -m MODULE ...` or `python SCRIPT ...`."""
    if "-m" not in arguments:
        script = arguments[0]
        if "argparse" in Path(script).read_text(
            encoding="utf-8"
        ):  # what has no parser would really run
            patch.setattr(sys, "argv", arguments)
            patch.syspath_prepend(Path(script).parent)  # as Python does for a script
            assert_parses(partial(runpy.run_path, script, run_name="__main__"), patch)
        else:
            assert_files_exist(arguments)
        return
    place = arguments.index("-m")
    module, options = arguments[place + 1], arguments[place + 2 :]
    if module == "pillow_cwic.training":
        found = assert_parses(partial(training.main, options), patch)
        if found.verb == "train":
            assert recipes.load(found.recipe).stages
        assert_files_exist(
            map(str, [*getattr(found, "anchors", []), *getattr(found, "beside", [])])
        )
    elif module == "http.server":
        assert Path(options[options.index("--directory") + 1]).is_dir()
    else:
        assert module in TOOLS, f"no rule for python -m {module}"
        assert_files_exist(options)


class Parsed(BaseException):
    """Raised in place of what would come after parsing; no program catches it."""


def assert_parses(program: Callable[[], object], patch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the program's own parser makes of its arguments; the program goes no further."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, *arguments: object) -> None:
        raise Parsed(parse(self, *arguments))

    with patch.context() as parsing:
        parsing.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        with pytest.raises(Parsed) as caught:
            program()
    return caught.value.args[0]


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
TOOLS = {re.match(r"[\w-]+", requirement)[0] for requirement in EXTRAS["test"]} | {"lint-imports"}


def assert_extras_exist(arguments: list[str]) -> None:
    """pip's requirements name extras that the package has, and its constraints a file."""
    for word in arguments:
        for names in re.findall(r"\[([\w,-]+)\]", word):
            assert set(names.split(",")) <= EXTRAS.keys(), word
    assert_files_exist(word for word in arguments if word.endswith(".txt"))


def assert_files_exist(words: Iterator[str] | list[str]) -> None:
    """Whatever looks like a path of the repository is one."""
    missing = [
        word
        for word in words
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)+|\w+\.txt", word) and not Path(word).exists()
    ]
    assert missing == []


def test_a_wrong_option_would_be_found(scene: Path, monkeypatch: pytest.MonkeyPatch):
    """The rules above can fail: for unknown options, extras, tools, files and recipes."""
    for text in (
        "pillow-cwic encode photo.png photo.cwic --max-byte",
        "pillow-cwic demo --fast",
        "python -m pillow_cwic.training train smoke --data photos --out runs/x --epochs 3",
        "python benchmarks/start.py --run",
    ):
        with pytest.raises(SystemExit):
            run(next(commands_of(text)), monkeypatch)
    for text in (
        "pillow-cwic info nowhere.cwic",
        ".venv/bin/pip install '.[gpu]'",
        ".venv/bin/black .",
        "python -m pytest tests/test_nothing.py",
        "python -m pillow_cwic.training evaluate mine --images kodak --beside training/no.json",
    ):
        with pytest.raises(AssertionError):
            run(next(commands_of(text)), monkeypatch)
    with pytest.raises((OSError, ValueError)):
        run(
            next(commands_of("python -m pillow_cwic.training train nothing --data d --out o")),
            monkeypatch,
        )


# Links, lines, names


def anchors_of(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    titles = (
        line.lstrip("#").strip().lower() for line in prose_of(document) if re.match("#+ ", line)
    )
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path):
    """Every relative link names a file or folder of the repository, and every anchor a heading."""
    text = re.sub(r"`[^`]*`", "", "\n".join(prose_of(document)))  # code is no link
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        if not path.exists() or (anchor and anchor not in anchors_of(path)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(document: Path):
    """No line has more than 100 columns, but for tables and URLs.

    Model cards are written by `export`: not asked.
    """
    if document.parent.name == "models":
        pytest.skip("model cards are generated")
    lines = document.read_text(encoding="utf-8").splitlines()
    long = [
        f"{number}: {line}"
        for number, line in enumerate(lines, 1)
        if not line.startswith("|") and len(re.sub(r"https?://\S+", "", line)) > WIDTH
    ]
    assert long == []


def test_the_readmes_map_is_the_packages():
    """The README's tree names each folder of the package, and none that is not there."""
    tree = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("## What is where")[1]
        .split("```")[1]
    )
    named = set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    package = ROOT / "pillow_cwic"
    present = {
        path.name for path in package.iterdir() if path.is_dir() and not path.name.startswith("_")
    }
    assert named == present


def test_the_architectures_modules_and_tests_exist():
    """Every module that docs/architecture.md puts in code, and each test it names, is there."""
    text = "\n".join(prose_of(ROOT / "docs" / "architecture.md"))
    package = ROOT / "pillow_cwic"
    folders = {path.name for path in package.iterdir() if path.is_dir()}
    dotted = [
        name for name in re.findall(r"`(\w+\.\w+)`", text) if name.partition(".")[0] in folders
    ]
    missing = [name for name in dotted if not (package / f"{name.replace('.', '/')}.py").exists()]
    assert dotted
    assert missing == []

    tests = set(re.findall(r"`(test_\w+)`", text))
    present = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    assert tests - present == set()


def test_the_situations_tests_exist():
    """Every test that docs/situations.md names is there."""
    text = (ROOT / "docs" / "situations.md").read_text(encoding="utf-8")
    defined: set[str] = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        defined |= set(re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")))
    assert set(re.findall(r"`(test_\w+)`", text)) - defined == set()


def test_the_formats_example_values_are_the_default_models():
    """docs/format.md gives each field's value in the default model, as the manifest does."""
    shipped = json.loads((ROOT / "weights_manifest.json").read_text())
    (entry,) = (model for model in shipped["models"] if model["name"] == shipped["default"])
    text = (
        (ROOT / "docs" / "format.md")
        .read_text(encoding="utf-8")
        .split("### Fields")[1]
        .split("###")[0]
    )
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line] for line in lines]
    assert rows[0][:2] == ["field", shipped["default"]]

    found: dict[str, object] = {}
    for names, value, *_ in rows[1:]:
        fields = re.findall(r"`(\w+)`", names)
        values = json.loads(f"[{value}]")
        found |= dict(zip(fields, values if len(fields) == len(values) else [values], strict=True))
    config = ModelConfig.from_dict(entry["config"])
    assert found == json.loads(config.to_json())
