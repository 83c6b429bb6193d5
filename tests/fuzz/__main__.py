"""Changed files, manifests and weights, as many as fit into the time; a table of what came of them.

    python -m tests.fuzz [--minutes 1] [--trials N] [--seed S] [--blind] [--save FOLDER]

Where atheris is installed it chooses the inputs by what code they reach, for so many minutes of
processor time; --blind and --trials go without it. Exit code 1 where something was silent, foreign
or hung; `--save` keeps the inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import random
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .trials import Tally

MEMORY_BYTES = 6 << 30  # of addresses: more, for pictures of a megapixel at most, is a fault


def main() -> int:
    """Parse the command line, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--trials", type=int, help="of each kind, instead of a time")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--blind", action="store_true", help="without atheris")
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    seed = random.SystemRandom().getrandbits(31) if args.seed is None else args.seed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    if args.blind or args.trials or not importlib.util.find_spec("atheris"):
        return report(blind_trials(args.minutes, args.trials, seed), seed, args.save)
    from . import guided

    return guided.run(args.minutes, seed, lambda tallies: report(tallies, seed, args.save))


def blind_trials(minutes: float, count: int | None, seed: int) -> dict[str, Tally]:
    """Trials of every kind in turn, for so many minutes or `count` of each."""
    from . import trials

    kinds = trials.kinds()
    chance = random.Random(seed)
    tallies = {name: trials.Tally() for name in kinds}
    end = time.monotonic() + 60 * minutes
    for name, kind in kinds.items():
        trials.replay(name, kind, tallies[name])
    rounds = 0
    while rounds < count if count else time.monotonic() < end:
        for name, kind in kinds.items():
            trials.run(kind, chance, tallies[name])
        rounds += 1
    return tallies


def report(tallies: dict[str, Tally], seed: int, folder: Path | None) -> int:
    """Print the table and the faults, whose inputs go into the folder -> the exit code."""
    print(f"seed {seed}, {time.process_time():.0f} s of processor time\n")
    print("| kind | trials | read | refused | silent | foreign | hangs |")
    print("|---|---|---|---|---|---|---|")
    faults = [fault for tally in tallies.values() for fault in tally.faults]
    for name, tally in tallies.items():
        found = [message.split(":")[0] for message, _ in tally.faults]
        counts = [found.count(kind) for kind in ("silent", "foreign", "hang")]
        row = [name, tally.trials, tally.read, tally.refused, *counts]
        print("| " + " | ".join(map(str, row)) + " |")
    for message, data in faults:
        name = hashlib.sha256(data).hexdigest()[:16]
        print(f"{name}: {message}", file=sys.stderr)
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
