"""`pillow-cwic weights list | fetch | verify | where | add | remove`: the models of this machine.

Every verb prints a table or, with --json, one JSON document on stdout; errors go to stderr. The
exit code is 0, or 1 when something asked for could not be done or is damaged; wrong usage is
argparse's 2.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from ..errors import CwicError
from ..weights import cache, catalogue, download, models
from ..weights.folders import cache_folder, existing, manifest_folder
from ..weights.manifest import Entry, Manifest, presentable
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

    # What there is, and whether it is whole.
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

    # Where it comes from.
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
        # A verb that failed as a whole has nothing to show.
        report = None
        try:
            report, problems = work(args)
        except CwicError as error:
            problems = [str(error)]
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
    manifests = catalogue.read_all()
    rows = [_row(entry, m, manifests) for m in manifests.manifests for entry in m.models]
    listed = {row["sha256"] for row in rows}
    rows += [_row_of_file(path) for path in cache.stored_models() if path.stem not in listed]
    return rows, manifests.problems


def _row(entry: Entry, source: Manifest, manifests: catalogue.Catalogue) -> Row:
    # A name may mean another model than this one.
    winner = manifests.by_name(entry.name)
    files = list(models.copies(entry))

    # What scripts read; tables show some of it.
    return {
        "name": entry.name,
        "id": entry.id,
        "bytes": entry.bytes,
        "sha256": entry.sha256,
        "licence": entry.licence,
        "default": source is manifests.manifests[0] and source.default == entry.name,
        "path": str(files[0]) if files else None,
        "urls": download.sources(entry),
        "manifest": source.location,
        "name_taken_by": winner.origin if winner and winner.id != entry.id else None,
    }


def _row_of_file(path: Path) -> Row:
    """A cached model that no manifest names."""
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
    for entry in _asked_entries(args.models, problems):
        try:
            path = models.locate(entry, quiet=args.quiet)
            rows.append({"model": entry.name, "id": entry.id, "status": "ready", "path": str(path)})
        except CwicError as error:
            problems.append(str(error))
    return rows, problems


def _verify(args: argparse.Namespace) -> Report:
    # What should hash to what; several manifests may name one file.
    problems: list[str] = []
    files = {
        (path, entry.sha256): None
        for entry in _asked_entries(args.models, problems)
        for path in models.copies(entry)
    }
    if not args.models:
        files.update(dict.fromkeys((path, path.stem) for path in cache.stored_models()))

    rows = []
    for path, sha256 in files:
        intact = cache.is_intact(path, sha256)
        status = "ok" if intact else "damaged"
        rows.append({"model": path.name, "id": sha256[:16], "status": status, "path": str(path)})
        if not intact:
            problems.append(
                f"{path} is damaged: a cached file is fetched again when it is needed, others "
                "must be replaced"
            )
    return rows, problems


def _where(_: argparse.Namespace) -> Report:
    settings = {
        "cache": _shown(cache_folder),
        "shipped": str(models.WHEEL_DIR),
        "manifests": catalogue.locations(),
        "added_manifests": _shown(manifest_folder),
        "mirror": os.environ.get(download.MIRROR_VARIABLE),
        "offline": download.is_offline(),
    }
    return settings, []


def _shown(find: Callable[[], Path]) -> str | None:
    folder = existing(find)
    return None if folder is None else str(folder)


def _add(args: argparse.Namespace) -> Report:
    rows = []
    problems = []
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
    rows = []
    problems = []
    for target in args.targets:
        copy = catalogue.find_added(target)
        try:
            for path in [copy] if copy else _cached_files(target):
                path.unlink()
                rows.append({"model": target, "id": "", "status": "removed", "path": str(path)})
        except OSError as error:
            problems.append(str(error))
    return rows, problems


def _cached_files(model: str) -> list[Path]:
    sha256 = models.find(model).sha256
    candidates = (cache.model_path(sha256), cache.partial_path(sha256))
    files = [path for path in candidates if cache.exists(path)]
    if not files:
        raise CwicError(
            f"the model {model!r} is not in the cache {cache_folder()}: nothing to remove"
        )
    return files


def _asked_entries(names: list[str], problems: list[str]) -> Iterable[Entry]:
    """The entries asked for, or all that are known, each id once; unknown ones become problems."""
    # Without names, all of all manifests; the first that names an id has it.
    by_id: dict[str, Entry] = {}
    if not names:
        manifests = catalogue.read_all()
        problems += manifests.problems
        for manifest in manifests.manifests:
            for entry in manifest.models:
                by_id.setdefault(entry.id, entry)

    for name in names:
        try:
            entry = models.find(name)
            by_id[entry.id] = entry
        except CwicError as error:
            problems.append(str(error))
    return by_id.values()


def _refresh() -> None:
    """Looks at manifest URLs anew, where the network is allowed.

    A failure is only told: a copy may do.
    """
    if not download.is_offline():
        for problem in catalogue.refresh(older_than_seconds=0):
            complain(f"note: {problem}")


def _show_models(rows: list[Row]) -> None:
    table: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "WHERE", "MANIFEST")]
    for row in rows:
        name = (row["name"] or "-") + (" (default)" if row["default"] else "")
        place = row["path"] or ("to be fetched" if row["urls"] else "nowhere: no URL")
        source = presentable(row["manifest"] or "none")
        if row["name_taken_by"]:
            other = presentable(row["name_taken_by"])
            source += f" (use the id: the name means another model, from {other})"
        table.append((name, row["id"], f"{row['bytes'] / 1e6:.1f} MB", place, source))
    _print_table(table)


def _show_files(rows: list[Row]) -> None:
    if rows:
        cells = [(row["model"], row["id"], row["status"], row["path"]) for row in rows]
        _print_table([("MODEL", "ID", "STATUS", "PATH"), *cells])


def _show_settings(settings: Row) -> None:
    lines = {
        **settings,
        "manifests": ", ".join(map(presentable, settings["manifests"])),
        "mirror": presentable(settings["mirror"] or "none"),
    }
    rows = ((name, "none" if value is None else value) for name, value in lines.items())
    _print_table([(name.replace("_", " "), str(value)) for name, value in rows])


def _print_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
