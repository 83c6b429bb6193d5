"""What a fresh process costs: seconds, peak memory; beside AVIF and, if given, another checkout.

    python benchmarks/start.py PICTURE [--runs 9] [--before CHECKOUT] [--model NAME]

Each case runs in processes of its own that take turns. --before names another checkout of this
project, whose figures then stand beside: the same interpreter must be able to run it. --model is of
this checkout alone; the other has its default model's file of the picture.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

import pillow_cwic

ROOT = Path(__file__).resolve().parents[1]

CASES = {
    "import PIL.Image, imageio": "import PIL.Image, imageio",
    "... and pillow_cwic": "import PIL.Image, imageio, pillow_cwic",
    "... and open x.cwic": "import PIL.Image, imageio, pillow_cwic; PIL.Image.open(r'{cwic}').size",
    "import, open and load x.cwic": (
        "import PIL.Image, pillow_cwic; PIL.Image.open(r'{cwic}').load()"
    ),
    "import, open and load x.avif": "import PIL.Image; PIL.Image.open(r'{avif}').load()",
    "import, save x.cwic": (
        "import PIL.Image, pillow_cwic;"
        "PIL.Image.open(r'{png}').save(r'{folder}/out.cwic', quality=0.5{model})"
    ),
    "pillow-cwic decode x.cwic y.png": (
        "import sys; from pillow_cwic.{cli} import main;"
        "sys.exit(main(['decode', '-q', r'{cwic}', r'{folder}/y-{side}.png']))"
    ),
    "ten spawned workers, a decode each": (
        "import multiprocessing, pathlib, pillow_cwic\n"
        "def work(number): return pillow_cwic.decode(pathlib.Path(r'{cwic}').read_bytes()).shape\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('spawn').Pool(10) as pool:\n"
        "        pool.map(work, range(10), chunksize=1)\n"
    ),
}  # fmt: skip
REPORT_PEAK = """
import atexit
def report():
    status = open('/proc/self/status').read()
    open(r'{peak}', 'w').write(status.split('VmHWM:')[1].split()[0])
if __name__ == '__main__':
    atexit.register(report)
"""  # of this process alone: what a child inherits from its parent does not count
COUNT_TORCH = (
    "import sys, numpy, pillow_cwic; data = pillow_cwic.encode(numpy.zeros((64, 64, 3), 'u1'));"
    "pillow_cwic.decode(data);"
    "print(sum(name.split('.')[0] == 'torch' for name in sys.modules))"
)


def run(code: str, checkout: Path, folder: Path) -> tuple[float, float]:
    """Seconds and peak memory in MB of a fresh interpreter that runs this code."""
    script = folder / "case.py"  # in a file: spawned workers import it
    peak = folder / "peak.txt"
    script.write_text(REPORT_PEAK.format(peak=peak) + code)
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as installed ones
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, str(script)], env=environment)
    if process.wait():
        raise SystemExit(f"a case failed: {code}")
    return time.perf_counter() - start, int(peak.read_text()) / 1024


def main() -> None:
    """Parse the command line and print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--model", help="by name; default: the default model")
    args = parser.parse_args()
    sides = {"now": ROOT} | ({"before": args.before.resolve()} if args.before else {})

    with TemporaryDirectory() as name:
        # The same photograph as PNG, AVIF and .cwic.
        folder = Path(name)
        picture = Image.open(args.picture).convert("RGB")
        files = {kind: folder / f"x.{kind}" for kind in ("png", "avif")}
        cwic = {"before": folder / "before.cwic", "now": folder / "now.cwic"}
        for path in files.values():
            picture.save(path)
        picture.save(cwic["now"], quality=0.5, model=args.model)
        if args.before:  # by its own default model
            save = CASES["import, save x.cwic"].format(png=files["png"], folder=folder, model="")
            run(save, sides["before"], folder)
            (folder / "out.cwic").rename(cwic["before"])
        figures: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in range(args.runs + 1):
            for case, code in CASES.items():
                for side, checkout in sides.items():
                    cli = "tools.cli" if (checkout / "pillow_cwic" / "tools").is_dir() else "cli"
                    names = {"folder": folder, "side": f"{side}{number}", "cli": cli}
                    names["cwic"] = cwic[side]
                    names["model"] = f", model={args.model!r}" if side == "now" else ""
                    filled = code.format(**files, **names)
                    result = run(filled, checkout, folder)
                    if number:  # the first round warms the disk and compiles modules
                        figures.setdefault((case, side), []).append(result)

    report(figures, list(sides))
    counted = subprocess.run(
        [sys.executable, "-c", COUNT_TORCH],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"\nModules named torch after encode and decode: {counted.stdout.strip()}")
    print(f"Medians of {args.runs} runs; pillow-cwic {pillow_cwic.__version__}.")


def report(figures: dict[tuple[str, str], list[tuple[float, float]]], sides: list[str]) -> None:
    """The table: seconds and peak memory of each side, and what now is of before."""
    heads = [f"{side}, {what}" for side in sides for what in ("s", "MB")]
    heads += ["now / before, s"] * (len(sides) > 1)
    print("| a fresh process that does |", " | ".join(heads), "|")
    print("|---" * (len(heads) + 1) + "|")
    for case in CASES:
        cells = []
        for side in sides:
            seconds, memory = zip(*figures[case, side], strict=True)
            cells += [f"{statistics.median(seconds):.3f}", f"{statistics.median(memory):.0f}"]
        if len(sides) > 1:
            pairs = zip(figures[case, "now"], figures[case, "before"], strict=True)
            cells.append(f"{statistics.median(now[0] / before[0] for now, before in pairs):.2f}")
        print(f"| {case} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
