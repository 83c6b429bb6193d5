"""Trials whose inputs atheris chooses by what code they reach: what reached more is changed on.

An input is one byte, the number of its kind, and then what is read. Blind changes are left out:
behind a checksum that does not fit there is nothing to be reached.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

import atheris

if TYPE_CHECKING:
    from .trials import Kind, Tally

LONGEST_BYTES = 1 << 20
STARTED_ANEW = 0.3
"""The share of trials that change a sound input: what was changed often is seldom read."""

NAMES = ("sections", "manifests", "weights")


def run(minutes: float, seed: int, report: Callable[[dict[str, Tally]], int]) -> NoReturn:
    """Trials for so many minutes of processor time; `report` is called at their end.

    Never returns: libFuzzer, on which atheris stands, ends the process. The exit code is the
    report's. What libFuzzer says of coverage goes to standard error.
    """
    with atheris.instrument_imports(include=["pillow_cwic"]):
        from . import trials

        every_kind = trials.kinds()
    kinds = {name: every_kind[name] for name in NAMES}
    tallies = {name: trials.Tally() for name in NAMES}

    def one_input(data: bytes) -> None:
        name = NAMES[data[0] % len(NAMES)] if data else NAMES[0]
        trials.read(kinds[name], data[1:], data[1:], tallies[name])
        if time.process_time() > 60 * minutes:
            code = report(tallies)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    with TemporaryDirectory() as folder:
        for number, name in enumerate(NAMES):
            for data in (*kinds[name][0], *trials.corpus(name)):
                _keep(Path(folder), bytes([number]) + data)
        options = [sys.argv[0], f"-max_len={LONGEST_BYTES}", f"-seed={seed}"]
        atheris.Setup([*options, folder], one_input, custom_mutator=_mutator(kinds))
        atheris.Fuzz()


def _mutator(kinds: dict[str, Kind]) -> Callable[[bytes, int, int], bytes]:
    """What atheris calls to change an input (or to begin with one) within a number of bytes."""
    from .blind import changed_bytes

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        chance = random.Random(seed)
        anew = len(data) < 2 or chance.random() < STARTED_ANEW
        number = chance.randrange(len(NAMES)) if anew else data[0] % len(NAMES)
        inputs, change, _ = kinds[NAMES[number]]
        body = chance.choice(inputs) if anew else data[1:]
        try:
            changed = change(body, chance)
        except Exception:  # it has lost the parts that the change knows
            changed = changed_bytes(body, chance)
        return (bytes([number]) + changed)[:most]

    return mutate


def _keep(folder: Path, data: bytes) -> None:
    """A first input for atheris."""
    (folder / hashlib.sha256(data).hexdigest()).write_bytes(data)
