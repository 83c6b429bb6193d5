"""What the command line says on stderr: complaints, and a clock for what takes long."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = "pillow-cwic"


def complain(text: str) -> None:
    """One line that says what went wrong."""
    print(f"{PROGRAM}: {'; '.join(text.splitlines())}", file=sys.stderr)


@contextmanager
def clock(what: str, quiet: bool) -> Iterator[None]:
    """A running clock on the terminal for what takes longer than a second.

    The codec does not say how far it is.
    """
    done = threading.Event()

    def run() -> None:
        if not done.wait(1):
            from tqdm import tqdm

            with tqdm(desc=what, bar_format="{desc}: {elapsed}", leave=False, disable=None) as bar:
                bar.start_t -= 1  # the second that we waited
                while not done.wait(0.5):
                    bar.refresh()

    # Nobody watches a file or a pipe.
    thread = threading.Thread(target=run, daemon=True)
    if not quiet and sys.stderr.isatty():
        thread.start()
    try:
        yield
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Name the file in errors that do not."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        if str(path) in str(error):
            raise
        raise OSError(f"{path}: {error}") from error
