"""What the command line says: results on stdout, everything else on stderr.

Invariant: a result never depends on messages. Streams may be closed, full, broken or narrow; what
they cannot show is shown escaped, and a message that nobody takes is no failure.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

PROGRAM = "pillow-cwic"


def prepare_streams() -> None:
    """Give standard streams that are missing a place, and let none stumble over a letter."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            # The lowest descriptors are free then: no file of ours must get one of them.
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115, PTH123
            setattr(sys, name, stream)
        if mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """One line on stderr, if it takes one."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: closed
        print(printable(text), file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """One line that says what went wrong."""
    line = "; ".join(line.strip() for line in text.splitlines())
    say(f"{PROGRAM}: {line.replace(':; ', ': ')}")


def show(text: str) -> None:
    """A result on stdout; OSError where it does not take it."""
    with stdout_errors():
        print(text, flush=True)


@contextmanager
def stdout_errors() -> Iterator[None]:
    """Say in errors that it was stdout which failed."""
    try:
        yield
    except BrokenPipeError:  # who reads it has seen enough
        raise
    except OSError as error:
        raise OSError(error.errno, f"standard output: {error.strerror}") from error


def printable(text: str) -> str:
    """The text with control characters escaped: a file's name cannot steer the terminal."""
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter) in ("Cc", "Cf", "Cs") else letter
        for letter in text
    )


class MessageStream:
    """stderr as a file for progress bars: what it does not take is dropped."""

    def write(self, text: str) -> None:
        """Show it."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Show it now."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()

    def isatty(self) -> bool:
        """Whether somebody watches."""
        try:
            return sys.stderr.isatty()
        except (AttributeError, ValueError):
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


def bar(total: float, what: str, unit: str, quiet: bool) -> Any:
    """A progress bar with the time left, for what takes longer than two seconds.

    Shown on a terminal, nowhere else.
    """
    from tqdm import tqdm

    stream = MessageStream()
    hidden = quiet or not stream.isatty()
    return tqdm(
        total=total, desc=what, unit=unit, file=stream, disable=hidden, delay=2, leave=False
    )


def report_beside(progress: Any, outcome: Outcome) -> None:
    """Say what became of a file while such a bar is shown."""
    if outcome.notes or outcome.problem is not None:
        with progress.external_write_mode(file=getattr(progress, "fp", sys.stderr)):
            outcome.report()


def choose_warnings() -> None:
    """Which warnings are for users: those about pictures, and Pillow's about their size."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", UserWarning)
    warnings.simplefilter("always", RuntimeWarning)


@dataclass
class Outcome:
    """What became of one file."""

    name: str  # as it was typed
    problem: str | None = None
    target: str | None = None  # what it was to become
    notes: list[str] = field(default_factory=list)  # warnings
    result: Any = None  # of what was done with it

    def report(self) -> None:
        """Say it, with the file's name."""
        for note in self.notes:
            complain(f"warning: {self._named(note)}")
        if self.problem is not None:
            complain(self._named(self.problem))

    def _named(self, text: str) -> str:
        if self.target not in (None, "-") and str(self.target) in text:
            return text
        return _with_name(text, self.name)


def attempt(name: str, work: Callable[[], Any], target: str | None = None) -> Outcome:
    """Do something with one file; what goes wrong with it is told, not raised."""
    outcome = Outcome(name, target=target)
    with warnings.catch_warnings(record=True) as caught:
        try:
            outcome.result = work()
        except BrokenPipeError:
            raise
        except MemoryError as error:
            outcome.problem = str(error) or "not enough memory"
        except (OSError, ValueError, TypeError) as error:
            outcome.problem = in_words(error) or type(error).__name__
    outcome.notes += dict.fromkeys(str(warning.message) for warning in caught)
    return outcome


def _with_name(text: str, name: str) -> str:
    shown = "standard input" if name == "-" else name
    return text if shown in text else f"{shown}: {text}"


def in_words(error: Exception) -> str:
    """An error for people: the system's own without its number."""
    if not isinstance(error, OSError) or not error.strerror or error.filename2:
        return str(error)
    name = error.filename
    return (
        f"{os.fsdecode(name)}: {error.strerror}"
        if isinstance(name, str | bytes)
        else error.strerror
    )


@contextmanager
def name_in_errors(name: str) -> Iterator[None]:
    """Name the file in errors that do not."""
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        raise OSError(_with_name(in_words(error), name)) from error


@contextmanager
def clock(what: str, quiet: bool) -> Iterator[Callable[[float], None]]:
    """A progress bar on the terminal, with the time left, for what takes longer than a second.

    Gives what is to be told the share that is done, 0 to 1; until it is told, only time runs.
    """
    stream = MessageStream()
    shares = [0.0]
    done = threading.Event()

    def show() -> None:
        if done.wait(1):
            return
        from tqdm import tqdm

        with tqdm(
            total=1, desc=what, file=stream, leave=False, bar_format="{desc}: {elapsed}"
        ) as bar:
            bar.start_t -= 1  # the second that we waited
            while not done.wait(0.5):
                bar.n = shares[-1]
                if bar.n:
                    bar.bar_format = "{desc}: {percentage:3.0f}% |{bar}| {elapsed} < {remaining}"
                bar.refresh()

    # Nobody watches a file or a pipe.
    thread = threading.Thread(target=show, daemon=True)
    if not quiet and stream.isatty():
        thread.start()
    try:
        yield shares.append
    finally:
        done.set()
        if thread.ident is not None:
            thread.join()
