"""The command line: `pillow-cwic` and `python -m pillow_cwic`.

What was asked for goes to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong
usage. Invariant: `--help` and `info` load no torch, and an output file is touched only once its
bytes are there.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from .. import __version__
from . import (
    autoload,
    compare_command,
    convert_command,
    decode_command,
    desktop,
    encode_command,
    info_command,
    weights_command,
)
from .arguments import CommandParser
from .terminal import PROGRAM, choose_warnings, complain, in_words, prepare_streams


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own) and return its exit code.

    Wrong usage is SystemExit(2).
    """
    prepare_streams()
    args = _parser().parse_args(argv)

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        choose_warnings()
        # What users can do something about is a line, everything else a traceback.
        try:
            code = int(args.func(args))
            sys.stdout.flush()  # a full disk shows here, not at exit
            return code
        except BrokenPipeError:  # whoever read our output has seen enough
            sys.stdout = None  # else Python complains once more at exit
            return 1
        except MemoryError as error:
            complain(str(error) or "not enough memory")
            return 1
        except (OSError, ValueError, TypeError) as error:
            complain(in_words(error))
            return 1
        except KeyboardInterrupt:
            complain("interrupted")
            return 1


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog=PROGRAM,
        description="Learned image compression: .cwic files from any picture, and back.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands: Any = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (encode_command, decode_command, info_command, convert_command, compare_command):
        command.add_parser(commands)
    compare_command.add_demo_parser(commands)
    weights_command.add_parser(commands)
    autoload.add_parser(commands)
    desktop.add_parser(commands)
    return parser


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    complain(f"warning: {message}")
