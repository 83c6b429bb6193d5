"""Registration waits for who needs it: nothing is imported for it, and nothing comes too late."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

from pillow_cwic.runtime.imports import after_import


def test_opening_through_pillow_imports_no_imageio(fresh_python, cwic_file: Path) -> None:
    """Neither does decoding; nor are torch, requests or platformdirs imported for them."""
    code = """if True:
        import sys
        import PIL.Image, pillow_cwic
        PIL.Image.open(sys.argv[1]).load()
        pillow_cwic.decode(sys.argv[1])
        names = {name.split(".")[0] for name in sys.modules}
        print(names & {"imageio", "torch", "requests", "platformdirs", "tqdm", "filelock"})
        print("numpy.ma" in sys.modules)"""
    assert fresh_python(code, cwic_file) == "set()\nFalse\n"


@pytest.mark.parametrize(
    "imports",
    ["import pillow_cwic, imageio.v3", "import imageio.v3, pillow_cwic"],
)
def test_imageio_knows_the_format_whichever_comes_first(
    fresh_python, cwic_file: Path, imports: str
) -> None:
    """imageio reads, by content and by extension, and its own modules keep their loader."""
    code = f"""if True:
        import sys
        {imports}
        import imageio
        print(imageio.v3.imread(sys.argv[1]).shape, imageio.v2.imread(sys.argv[1]).shape)
        config = imageio.config
        print(type(config.__spec__.loader).__name__, ".cwic" in config.known_extensions)
        pillow_cwic.register()
        print(len([e for e in config.extension_list if e.extension == ".cwic"]))"""
    expected = "(72, 88, 3) (72, 88, 3)\nSourceFileLoader True\n1\n"
    assert fresh_python(code, cwic_file) == expected


def test_an_action_follows_the_first_import_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, after the module's own code; an import that fails is no import."""
    module = tmp_path / "watched_module.py"
    module.write_text("raise RuntimeError('not yet')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    seen: list[int] = []
    after_import("watched_module", lambda: seen.append(sys.modules["watched_module"].value))
    with pytest.raises(RuntimeError, match="not yet"):
        import watched_module
    assert seen == []
    module.write_text("value = 7")
    import watched_module

    assert seen == [7] == [watched_module.value]
    after_import("watched_module", lambda: seen.append(8))
    assert seen == [7, 8]
    del sys.modules["watched_module"]


def test_to_find_a_module_is_not_to_import_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who only asks where a module is (`importlib.util.find_spec`) takes nobody's action away."""
    for name in ("found_module", "other_module"):
        (tmp_path / f"{name}.py").write_text("value = 7")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    seen: list[str] = []
    for name in ("found_module", "found_module", "other_module", "missing_module"):
        after_import(name, lambda name=name: seen.append(name))
    for _ in range(2):
        assert importlib.util.find_spec("found_module").origin == str(tmp_path / "found_module.py")
        assert importlib.util.find_spec("missing_module") is None
    assert seen == []
    import found_module
    import other_module

    assert seen == ["found_module", "found_module", "other_module"]
    assert type(found_module.__loader__).__name__ == "SourceFileLoader"
    assert importlib.reload(other_module).value == 7
    assert len(seen) == 3
    (tmp_path / "missing_module.py").write_text("")
    importlib.invalidate_caches()
    importlib.import_module("missing_module")
    assert seen[3:] == ["missing_module"]


@pytest.mark.parametrize(
    "code",
    [
        "import mimetypes, pillow_cwic",
        "import pillow_cwic, mimetypes",
        "import pillow_cwic, mimetypes; mimetypes.init()",
        "import mimetypes; mimetypes.init(); import pillow_cwic",
        "import pillow_cwic, mimetypes; mimetypes.guess_type('x'); mimetypes.init()",
    ],
)
def test_mimetypes_knows_the_format(fresh_python, code: str) -> None:
    """Both ways, whichever is imported first and however often its tables are read."""
    ask = "print(mimetypes.guess_type('a/b.cwic')[0], mimetypes.guess_extension('image/x-cwic'))"
    assert fresh_python(f"{code}; {ask}") == "image/x-cwic .cwic\n"
