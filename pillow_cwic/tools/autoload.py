"""`pillow-cwic autoload enable | disable | status`: .cwic in programs that never import us.

A `.pth` file makes every Python of this environment watch for the first import of Pillow or
imageio; the package is imported then, and not before. Invariant: a Python that imports neither
loads nothing but the watcher (`runtime.imports`), and no program fails because of it.
"""

from __future__ import annotations

import argparse
import py_compile
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

from ..runtime import imports
from ..runtime.files import takes_files, write_atomically
from .terminal import say

HOOK = "_pillow_cwic_autoload"
PTH = "pillow_cwic_autoload.pth"

_TAIL = '''

def _load() -> None:
    """Register .cwic; a package that is gone, or broken, is nobody's trouble but its own."""
    try:
        import pillow_cwic  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "pillow_cwic" and sys.stderr is not None:
            sys.stderr.write(f"pillow-cwic autoload: {error}\\n")
    except Exception as error:
        if sys.stderr is not None:
            sys.stderr.write(f"pillow-cwic autoload: {error}\\n")


after_import("PIL.Image", _load)
after_import("imageio.config", _load)
'''

_CHECK = "import sys, PIL.Image; print('CWIC' in PIL.Image.SAVE)"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command with its verbs."""
    parser = commands.add_parser(
        "autoload",
        help="open .cwic in programs that never import pillow_cwic",
        description="Register .cwic in every Python of this environment, as soon as it imports "
        "Pillow or imageio. A Python that imports neither loads nothing.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, func, text in (
        ("enable", _enable, "write the two files that do it"),
        ("disable", _disable, "remove them"),
        ("status", _status, "say whether, and where; exit code 1 if not"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        verb.set_defaults(func=func)


def folders() -> list[Path]:
    """Where Python looks for `.pth` files, this environment's own packages first."""
    found = [sysconfig.get_path("purelib"), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        found.append(site.getusersitepackages())
    return list(dict.fromkeys(Path(folder) for folder in found))


def hook_source() -> str:
    """The watcher's module: it stands alone, so that it starts no package."""
    return Path(imports.__file__).read_text(encoding="utf-8") + _TAIL


def _enabled() -> list[Path]:
    return [folder for folder in folders() if (folder / PTH).exists()]


def _enable(args: argparse.Namespace) -> int:
    folder = _writable_folder()
    module = folder / f"{HOOK}.py"
    write_atomically(module, hook_source().encode())
    py_compile.compile(str(module), quiet=2)  # else some environments would, at every start
    write_atomically(folder / PTH, f"import {HOOK}\n".encode())
    if not _works():
        _remove(folder)
        raise OSError(
            f"a fresh {sys.executable} does not find pillow_cwic: install it in this environment "
            "first; nothing was changed"
        )
    say(f"enabled in {folder}")
    return 0


def _writable_folder() -> Path:
    for folder in folders():
        if takes_files(folder) or (not folder.exists() and folder == folders()[-1]):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    raise PermissionError(
        f"none of Python's folders can be written: {', '.join(map(str, folders()))}; "
        "use a virtual environment of your own"
    )


def _disable(args: argparse.Namespace) -> int:
    found = _enabled()
    for folder in found:
        _remove(folder)
        say(f"disabled in {folder}")
    if not found:
        say("it was not enabled")
    return 0


def _remove(folder: Path) -> None:
    # The one that names the other first: between the two nothing complains.
    (folder / PTH).unlink(missing_ok=True)
    (folder / f"{HOOK}.py").unlink(missing_ok=True)
    for compiled in (folder / "__pycache__").glob(f"{HOOK}.*.pyc"):
        compiled.unlink()


def _status(args: argparse.Namespace) -> int:
    found = _enabled()
    if not found:
        print("not enabled")
        return 1
    for folder in found:
        module = folder / f"{HOOK}.py"
        current = module.exists() and module.read_text(encoding="utf-8") == hook_source()
        print(f"enabled in {folder}" + ("" if current else ", by another version: enable it again"))
    if not _works():
        print(f"but a fresh {sys.executable} does not find pillow_cwic")
        return 1
    return 0


def _works() -> bool:
    """Whether a fresh Python of this environment, in no folder of ours, has the format."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK], cwd=Path(sys.prefix), capture_output=True, check=False
    )
    return done.stdout.strip() == b"True"
