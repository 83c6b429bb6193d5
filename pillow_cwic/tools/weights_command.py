"""`pillow-cwic weights list | fetch | verify | where | add | remove`: the models of this machine.

Every verb prints a table or, with --json, one JSON document on stdout; errors go to stderr. The
exit code is 0, or 1 when something asked for could not be done or is damaged; wrong usage is
argparse's 2.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import CwicError
from ..weights import cache, catalogue, download, models
from ..weights.manifest import Entry, Manifest
from .terminal import complain

Row = dict[str, Any]
Report = tuple[Any, list[str]]  # what --json prints, and what went wrong


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the `weights` command.

    The chosen verb's `func` takes the parsed arguments and returns the exit code.
    """
    parser = subparsers.add_parser(
        "weights", help="list, fetch and check models", description=__doc__
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _verb(verbs, "list", _list, _show_models, "every model the manifests know, and where it is")
    fetch = _verb(
        verbs,
        "fetch",
        _fetch,
        _show_files,
        "download models now, for instance before going offline",
    )
    fetch.add_argument(
        "models", nargs="*", metavar="MODEL", help="names or ids (default: all that are known)"
    )
    fetch.add_argument("-q", "--quiet", action="store_true", help="no progress bar")
    verify = _verb(verbs, "verify", _verify, _show_files, "check files against their SHA-256")
    verify.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="names or ids (default: every file on this machine)",
    )
    _verb(verbs, "where", _where, _show_settings, "the folders and settings in use")
    add = _verb(verbs, "add", _add, _show_files, "use one more manifest from now on")
    add.add_argument("manifests", nargs="+", metavar="MANIFEST", help="a path or an http(s) URL")
    remove = _verb(
        verbs, "remove", _remove, _show_files, "delete cached models, or manifests that were added"
    )
    remove.add_argument(
        "targets",
        nargs="+",
        metavar="MODEL|MANIFEST",
        help="a name or an id; or what was given to add",
    )


def _verb(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    work: Callable[[argparse.Namespace], Report],
    show: Callable[[Any], None],
    text: str,
) -> argparse.ArgumentParser:
    def run(args: argparse.Namespace) -> int:
        try:
            report, problems = work(args)
        except CwicError as error:
            report, problems = None, [str(error)]
        if args.json and report is not None:
            print(json.dumps(report, indent=2))
        elif report is not None:
            show(report)
        for problem in problems:
            complain(problem)
        return 1 if problems else 0

    parser = verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(func=run)
    return parser


def _list(_: argparse.Namespace) -> Report:
    _refresh()
    found = catalogue.read_all()
    rows = [_row(entry, m, found) for m in found.manifests for entry in m.models]
    known = {row["sha256"] for row in rows}
    rows += [_stray(path) for path in cache.stored_models() if path.stem not in known]
    return rows, found.problems


def _row(entry: Entry, source: Manifest, found: catalogue.Catalogue) -> Row:
    winner = found.by_name(entry.name)
    path = next(
        (
            path
            for path in [cache.model_path(entry.sha256), *models.places(entry)]
            if cache.exists(path)
        ),
        None,
    )
    return {
        "name": entry.name,
        "id": entry.id,
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        "licence": entry.licence,
        "default": source is found.manifests[0] and source.default == entry.name,
        "path": str(path) if path else None,
        "urls": download.sources(entry),
        "manifest": source.location,
        "name_taken_by": winner.origin if winner and winner.id != entry.id else None,
    }


def _stray(path: Path) -> Row:
    row: Row = dict.fromkeys(("name", "licence", "manifest", "name_taken_by"))
    size = path.stat().st_size
    return {
        **row,
        "id": path.stem[:16],
        "bytes": size,
        "sha256": path.stem,
        "default": False,
        "path": str(path),
        "urls": [],
    }


def _fetch(args: argparse.Namespace) -> Report:
    _refresh()
    rows: list[Row] = []
    problems: list[str] = []
    for entry in _chosen(args.models, problems):
        try:
            path = models.locate(entry, quiet=args.quiet)
            rows.append({"model": entry.name, "id": entry.id, "status": "ready", "path": str(path)})
        except CwicError as error:
            problems.append(str(error))
    return rows, problems


def _verify(args: argparse.Namespace) -> Report:
    problems: list[str] = []
    files = {  # what should hash to what; several manifests may name one file
        (path, entry.sha256): None
        for entry in _chosen(args.models, problems)
        for path in [cache.model_path(entry.sha256), *models.places(entry)]
        if cache.exists(path)
    }
    if not args.models:
        files.update(dict.fromkeys((path, path.stem) for path in cache.stored_models()))
    rows = []
    for path, sha256 in files:
        intact = cache.is_intact(path, sha256)
        rows.append(
            {
                "model": path.name,
                "id": sha256[:16],
                "status": "ok" if intact else "damaged",
                "path": str(path),
            }
        )
        if not intact:
            problems.append(
                f"{path} is damaged: a cached file is fetched again when it is needed, others "
                "must be replaced"
            )
    return rows, problems


def _where(_: argparse.Namespace) -> Report:
    settings = {
        "cache": str(cache.directory()),
        "shipped": str(models.WHEEL_DIR),
        "manifests": catalogue.locations(),
        "added_manifests": str(catalogue.user_dir()),
        "mirror": os.environ.get(download.MIRROR_VARIABLE),
        "offline": download.is_offline(),
    }
    return settings, []


def _add(args: argparse.Namespace) -> Report:
    rows, problems = [], []
    for location in args.manifests:
        try:
            path, parsed = catalogue.add(location)
        except CwicError as error:
            problems.append(str(error))
        else:
            rows += [
                {"model": e.name, "id": e.id, "status": "added", "path": str(path)}
                for e in parsed.models
            ]
    return rows, problems


def _remove(args: argparse.Namespace) -> Report:
    rows, problems = [], []
    for target in args.targets:
        copy = catalogue.added(target)
        try:
            for path in [copy] if copy else _cached_files(target):
                path.unlink()
                rows.append({"model": target, "id": "", "status": "removed", "path": str(path)})
        except OSError as error:
            problems.append(str(error))
    return rows, problems


def _cached_files(model: str) -> list[Path]:
    sha256 = models.find(model).sha256
    files = [
        path
        for path in (cache.model_path(sha256), cache.partial_path(sha256))
        if cache.exists(path)
    ]
    if not files:
        raise CwicError(
            f"the model {model!r} is not in the cache {cache.directory()}: nothing to remove"
        )
    return files


def _chosen(asked: list[str], problems: list[str]) -> Iterable[Entry]:
    """The entries asked for, or all that are known, each id once; unknown ones become problems."""
    chosen: dict[str, Entry] = {}
    if not asked:
        found = catalogue.read_all()
        problems += found.problems
        for m in found.manifests:
            for entry in m.models:
                chosen.setdefault(entry.id, entry)
    for model in asked:
        try:
            entry = models.find(model)
            chosen[entry.id] = entry
        except CwicError as error:
            problems.append(str(error))
    return chosen.values()


def _refresh() -> None:
    """Looks at manifest URLs anew, where the network is allowed.

    A failure is only told: a copy may do.
    """
    if not download.is_offline():
        for problem in catalogue.refresh(older_than_seconds=0):
            print(f"pillow-cwic: note: {problem}", file=sys.stderr)


def _show_models(rows: list[Row]) -> None:
    table: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "WHERE", "MANIFEST")]
    for row in rows:
        name = (row["name"] or "-") + (" (default)" if row["default"] else "")
        place = row["path"] or ("to be fetched" if row["urls"] else "nowhere: no URL")
        source = row["manifest"] or "none"
        if row["name_taken_by"]:
            source += f" (use the id: the name means another model, from {row['name_taken_by']})"
        table.append((name, row["id"], f"{row['bytes'] / 1e6:.1f} MB", place, source))
    _print_table(table)


def _show_files(rows: list[Row]) -> None:
    if rows:
        table = [("MODEL", "ID", "STATUS", "PATH")]
        _print_table(
            table + [(row["model"], row["id"], row["status"], row["path"]) for row in rows]
        )


def _show_settings(settings: Row) -> None:
    lines = {
        **settings,
        "manifests": ", ".join(settings["manifests"]),
        "mirror": settings["mirror"] or "none",
    }
    _print_table([(name.replace("_", " "), str(value)) for name, value in lines.items()])


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
