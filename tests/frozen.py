"""The package in frozen programs, tried for real: PyInstaller, shiv and a zipapp.

    python tests/frozen.py [--keep FOLDER]

Makes a wheel of this checkout and a virtual environment with it (packages come from the index),
builds a program of each kind, and runs it without anything of this checkout: an encode, a decode,
Pillow, imageio, the command line, worker processes. Takes minutes, so that pytest does not run it.
"""

import argparse
import os
import subprocess
import sys
import venv
import zipapp
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]

PROGRAM = """
import multiprocessing
import sys
from pathlib import Path


def run():
    import imageio.v3 as iio
    import numpy
    import pillow_cwic
    from PIL import Image
    from pillow_cwic.tools.cli import main

    folder = Path(sys.argv[1])
    pixels = numpy.arange(64 * 80 * 3, dtype=numpy.uint8).reshape(64, 80, 3)
    Image.fromarray(pixels).save(folder / "x.cwic", quality=0.5)
    Image.open(folder / "x.cwic").load()
    assert iio.imread(folder / "x.cwic").shape == pillow_cwic.decode(folder / "x.cwic").shape
    iio.imwrite(folder / "y.cwic", pixels)
    assert "torch" not in sys.modules
    for words in (
        f"info {folder}/x.cwic",
        "weights verify",
        f"demo --out {folder}/demo",
        f"convert {folder}/x.cwic --to png --out {folder}/out --jobs 1",
    ):
        assert main(words.split()) == 0, words
    print("ran from", pillow_cwic.__file__)


if __name__ == "__main__":
    multiprocessing.freeze_support()
    run()
"""


def call(*command: object, **options: object) -> None:
    """Run a command, shown first; CalledProcessError where it fails."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), check=True, **options)  # type: ignore[call-overload]


def try_program(name: str, folder: Path, *command: object) -> None:
    """Run a built program in an environment with nothing of ours."""
    work = folder / f"work-{name}"
    work.mkdir()
    search = os.environ["PATH"]
    call(*command, work, cwd=work, env={"PATH": search, "HOME": str(folder / "home")})
    print(f"{name}: well", flush=True)


def build(folder: Path) -> None:
    """Wheel, environment, and a program of each kind; then run them."""
    # What users install.
    python = folder / "venv" / "bin" / "python"
    venv.create(folder / "venv", with_pip=True)
    call(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    pinned = ["-c", ROOT / "constraints.txt"]
    call(python, "-m", "pip", "install", "-q", *pinned, wheel, "pyinstaller", "shiv")
    os.chdir(folder)  # not where the checkout would be found
    script = folder / "program.py"
    script.write_text(PROGRAM)

    # One folder, and one file.
    for kind in ("--onedir", "--onefile"):
        out = folder / f"pyinstaller{kind}"
        places = ["--distpath", out, "--workpath", out / "build", "--specpath", out]
        call(python, "-m", "PyInstaller", "--log-level", "ERROR", kind, *places, script)
        built = out / "program" / "program" if kind == "--onedir" else out / "program"
        try_program(f"pyinstaller{kind}", folder, built)

    # shiv unpacks everything; its entry point is the program's function.
    source = folder / "source"
    source.mkdir()
    (source / "program.py").write_text(PROGRAM)
    archive = folder / "shiv.pyz"
    where = ["--site-packages", folder / "unpacked"]
    call(python, "-m", "pip", "install", "-q", *pinned, "--target", folder / "unpacked", wheel)
    (folder / "unpacked" / "program.py").write_text(PROGRAM)
    call(python, "-m", "shiv", *where, "-e", "program:run", "-o", archive, "--no-deps", wheel)
    try_program("shiv", folder, sys.executable, archive)

    # A zipapp holds this package alone: compiled libraries can't be imported from an archive.
    call("unzip", "-q", wheel, "pillow_cwic/*", "-d", source)
    (source / "program.py").rename(source / "__main__.py")
    zipapp.create_archive(source, folder / "zipapp.pyz")
    call(python, "-m", "pip", "uninstall", "-q", "-y", "pillow-cwic")
    try_program("zipapp", folder, python, folder / "zipapp.pyz")


def main() -> None:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, help="build here and leave it")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True)
        build(args.keep.resolve())
        return
    with TemporaryDirectory() as name:
        build(Path(name))
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
