"""`pillow-cwic desktop install | uninstall`: file managers know .cwic files and show thumbnails.

Two files below the user's data folder, as freedesktop.org has it: one for shared-mime-info, one for
thumbnailers. Invariant: `uninstall` takes back all that `install` made.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from ..format.container import SIGNATURE
from ..pillow_plugin import MIME_TYPE
from ..runtime.files import write_atomically
from .terminal import complain, name_in_errors, say

MIME_FILE = Path("mime", "packages", "pillow-cwic.xml")
THUMBNAILER_FILE = Path("thumbnailers", "pillow-cwic.thumbnailer")

DEFAULT_PIXELS = 256


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command with its verbs."""
    parser = commands.add_parser(
        "desktop",
        help="let file managers know .cwic files and show thumbnails",
        description="For desktops that follow freedesktop.org, such as GNOME, KDE (Frameworks 6) "
        "and Xfce.",
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for name, func, text in (
        ("install", _install, "write the type and the thumbnailer for this user"),
        ("uninstall", _uninstall, "remove both"),
    ):
        verb = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        verb.set_defaults(func=func)
    thumbnail = verbs.add_parser(
        "thumbnail", help="make a thumbnail, as file managers ask for it", description="A PNG file."
    )
    thumbnail.add_argument("-s", "--size", type=int, default=DEFAULT_PIXELS, metavar="PIXELS")
    thumbnail.add_argument("input", metavar="IN")
    thumbnail.add_argument("output", metavar="OUT")
    thumbnail.set_defaults(func=_thumbnail)


def mime_info() -> str:
    """The type for shared-mime-info: by name, and by what a file begins with."""
    magic = "".join(f"\\x{byte:02x}" for byte in SIGNATURE)
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<mime-info xmlns="http://www.freedesktop.org/standards/shared-mime-info">
  <mime-type type="{MIME_TYPE}">
    <comment>CWIC image</comment>
    <generic-icon name="image-x-generic"/>
    <magic priority="60"><match type="string" offset="0" value="{magic}"/></magic>
    <glob pattern="*.cwic"/>
  </mime-type>
</mime-info>
"""


def thumbnailer() -> str:
    """The entry that says how thumbnails are made: by this Python."""
    python = sys.executable
    for letter in '\\"`$':
        python = python.replace(letter, f"\\{letter}")
    program = f'"{python}"'.replace("\\", "\\\\").replace("%", "%%")
    return f"""[Thumbnailer Entry]
TryExec={sys.executable}
Exec={program} -m pillow_cwic desktop thumbnail -s %s %i %o
MimeType={MIME_TYPE};
"""


def _install(args: argparse.Namespace) -> int:
    folder = _data_folder()
    for name, text in ((MIME_FILE, mime_info()), (THUMBNAILER_FILE, thumbnailer())):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / name, text.encode())
        say(f"wrote {folder / name}")
    if not Path(sys.executable).is_relative_to("/usr"):
        complain(
            f"warning: GNOME makes thumbnails where only /usr is seen, and not {sys.executable}: "
            "there, only a Python below /usr shows them"
        )
    return _update(folder)


def _uninstall(args: argparse.Namespace) -> int:
    folder = _data_folder()
    found = [folder / name for name in (MIME_FILE, THUMBNAILER_FILE) if (folder / name).exists()]
    for path in found:
        path.unlink()
        say(f"removed {path}")
    if not found:
        say("it was not installed")
        return 0
    return _update(folder)


def _data_folder() -> Path:
    if os.name != "posix" or sys.platform == "darwin":
        raise OSError("only for desktops that follow freedesktop.org, as Linux has them")
    named = os.environ.get("XDG_DATA_HOME", "")
    if Path(named).is_absolute():
        return Path(named)
    try:
        return Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise OSError(f"{error}: set XDG_DATA_HOME to a folder for the user's data") from error


def _update(folder: Path) -> int:
    """Have shared-mime-info read the types anew."""
    program = shutil.which("update-mime-database")
    if program is None:
        complain("warning: update-mime-database is missing (shared-mime-info): the type waits")
        return 0
    done = subprocess.run(
        [program, str(folder / "mime")], capture_output=True, text=True, check=False
    )
    if done.returncode:
        complain(f"update-mime-database: {done.stderr.strip()}")
    return int(done.returncode != 0)


def _thumbnail(args: argparse.Namespace) -> int:
    if args.size < 1:
        raise ValueError(f"--size is a number of pixels from 1 up, found {args.size}")
    with name_in_errors(args.input), Image.open(args.input, formats=["CWIC"]) as image:
        image.thumbnail((args.size, args.size))
        file = BytesIO()
        ImageOps.exif_transpose(image).save(file, "PNG")  # file managers turn none
    write_atomically(Path(args.output), file.getvalue())
    return 0
