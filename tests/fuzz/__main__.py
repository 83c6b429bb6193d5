"""Changed files, manifests and weights, as many as fit into the time; a table of what came of them.

    python -m tests.fuzz [--minutes 1] [--trials N] [--seed S] [--save FOLDER]

With atheris installed, `--atheris` lets it choose the inputs by what code they reach. Exit code 1
where something was silent, foreign or hung; `--save` keeps the inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import resource
import sys
import time
from pathlib import Path

MEMORY_BYTES = 6 << 30  # of addresses: more, for pictures of a megapixel at most, is a fault


def main() -> int:
    """Parse the command line, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--trials", type=int, help="of each kind, instead of a time")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--save", type=Path, metavar="FOLDER")
    parser.add_argument("--atheris", action="store_true")
    args = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))

    from . import trials

    kinds = trials.kinds()
    if args.atheris:
        return guided(kinds["sections"], args.minutes)
    chance = random.Random(seed)
    tallies = {name: trials.Tally() for name in kinds}
    end = time.monotonic() + 60 * args.minutes
    for name, kind in kinds.items():
        trials.replay(name, kind, tallies[name])
    rounds = 0
    while rounds < args.trials if args.trials else time.monotonic() < end:
        for name, kind in kinds.items():
            trials.run(kind, chance, tallies[name])
        rounds += 1

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
        if args.save:
            args.save.mkdir(parents=True, exist_ok=True)
            (args.save / name).write_bytes(data)
    return 1 if faults else 0


def guided(kind: tuple, minutes: float) -> int:
    """The same trials of files, chosen by atheris; a fault ends it."""
    import atheris

    from . import mutations, trials

    def one_input(data: bytes) -> None:
        trials.read_forged(data, data)

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        sound = chance.choice(kind[0])
        return mutations.changed_sections(sound, chance)[:most]

    options = [sys.argv[0], f"-max_total_time={round(60 * minutes)}", "-max_len=100000"]
    atheris.Setup(options, one_input, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
