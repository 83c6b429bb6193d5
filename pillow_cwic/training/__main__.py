"""`python -m pillow_cwic.training train | evaluate | export | screens`.

Invariant: the command line is read, and `--help` answered, without torch: the verbs import what
needs it. This module decides nothing but defaults.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; 0 if it worked, 1 with a message if it did not, 2 for wrong usage."""
    options = parser().parse_args(arguments)
    verbs = {
        "train": run_train,
        "evaluate": run_evaluate,
        "export": run_export,
        "screens": run_screens,
    }
    try:
        verbs[options.verb](options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"{options.verb}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{options.verb}: interrupted", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="python -m pillow_cwic.training", description="Retrain, measure and export models."
    )
    verbs = top.add_subparsers(dest="verb", required=True)
    add_train(verbs.add_parser("train", help="train a model from a recipe and pictures"))
    add_evaluate(
        verbs.add_parser("evaluate", help="rate-distortion by real files, beside Pillow's codecs")
    )
    add_export(verbs.add_parser("export", help="make a usable model from a run"))
    add_screens(verbs.add_parser("screens", help="draw text, interfaces, charts and flat art"))
    return top


def add_train(train: argparse.ArgumentParser) -> None:
    """Arguments of `train`."""
    # What to train, from what, where to.
    train.add_argument(
        "recipe", help="a TOML file, or the name of a shipped recipe (light, paper, smoke)"
    )
    train.add_argument(
        "--data", nargs="+", required=True, metavar="DIR_OR_TAR", help="training pictures"
    )
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder")

    # For how long, and from where.
    train.add_argument(
        "--minutes", type=float, help="wall-clock budget over all sessions; default: the recipe's"
    )
    train.add_argument(
        "--steps", type=int, help="a budget in steps instead: reproducible, but of unknown duration"
    )
    train.add_argument(
        "--stop-after", type=float, metavar="M", help="stop this session cleanly after M minutes"
    )
    train.add_argument("--resume", action="store_true", help="continue the run in RUN")
    train.add_argument(
        "--new-data", action="store_true", help="with --resume: go on with other pictures"
    )
    train.add_argument(
        "--from", type=Path, dest="initial", metavar="WEIGHTS", help="start from these weights"
    )
    add_train_machine(train)


def add_train_machine(train: argparse.ArgumentParser) -> None:
    """Arguments of `train` that change no result but how it is come by."""
    # Where, and what is kept of it.
    train.add_argument("--device", help="cpu, cuda, cuda:1 or auto (default)")
    train.add_argument(
        "--part-mib",
        type=float,
        default=0.0,
        metavar="N",
        help="cut checkpoints into parts of N MiB",
    )

    # How much of the machine, and how loud.
    train.add_argument(
        "--jobs", type=int, help="processes that decode pictures; default: one per processor"
    )
    train.add_argument(
        "--threads",
        type=int,
        help="CPU threads of a step; 1 is fastest beside other busy processes",
    )
    train.add_argument("--quiet", action="store_true", help="no progress line")


def add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate`."""
    # What to measure, on what, where to.
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="names, ids or weights files")
    evaluate.add_argument(
        "--images", nargs="+", required=True, metavar="DIR_OR_TAR", help="test pictures"
    )
    evaluate.add_argument(
        "--out", type=Path, default=Path("evaluation"), help="folder for rd.json, rd.md and rd.png"
    )

    # At which settings.
    evaluate.add_argument(
        "--qualities", type=numbers, metavar="Q,Q,...", help="dial positions 0..1"
    )
    evaluate.add_argument(
        "--indices",
        type=integers,
        metavar="I,I,...",
        help="or quality indices, 0 to the model's last",
    )
    evaluate.add_argument(
        "--efforts",
        type=integers,
        default=(0,),
        metavar="N,N,...",
        help="effort of the models' files",
    )
    add_comparison(evaluate)

    # How.
    evaluate.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    evaluate.add_argument("--device", help="cpu, cuda, cuda:1 or auto (default)")


def add_comparison(evaluate: argparse.ArgumentParser) -> None:
    """Arguments of `evaluate` that say what the models are compared with."""
    evaluate.add_argument(
        "--codecs", metavar="NAME,...", help="Pillow's codecs to run, or none; default: all"
    )
    evaluate.add_argument(
        "--anchors", nargs="*", type=Path, default=[], metavar="FILE.json", help="published curves"
    )
    evaluate.add_argument(
        "--beside", nargs="*", type=Path, default=[], metavar="RD.json", help="earlier evaluations"
    )
    evaluate.add_argument(
        "--rates", type=numbers, metavar="LOW,HIGH", help="bpp range of the BD-rates"
    )


def add_export(export: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    # Which run, and what its model is called.
    export.add_argument("run", type=Path, metavar="RUN", help="the run folder that `train` wrote")
    export.add_argument("--name", help="the model's name; default: the run folder's")
    export.add_argument("--out", type=Path, help="default: RUN/export")

    # What stands in its card.
    export.add_argument(
        "--images", nargs="*", default=[], metavar="DIR_OR_TAR", help="pictures to calibrate with"
    )
    export.add_argument(
        "--codecs", metavar="NAME,...", help="codecs for the table, or none; default: all"
    )
    export.add_argument("--licence", default="not stated", help="what others may do with the model")

    # How, and what then.
    export.add_argument(
        "--install",
        action="store_true",
        help='add it to your manifests: save(..., model="NAME") works',
    )
    export.add_argument("--jobs", type=int, default=1, help="processes for the calibration")


def add_screens(screens: argparse.ArgumentParser) -> None:
    """Arguments of `screens`."""
    screens.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder")
    screens.add_argument("--count", type=int, required=True, metavar="N", help="how many pictures")
    screens.add_argument("--seed", type=int, default=0, help="other pictures for another number")


def numbers(text: str) -> tuple[float, ...]:
    """'0.1,0.5' -> (0.1, 0.5)."""
    return tuple(float(part) for part in text.split(","))


def integers(text: str) -> tuple[int, ...]:
    """'0,10' -> (0, 10)."""
    return tuple(int(part) for part in text.split(","))


def codec_names(text: str | None) -> tuple[str, ...]:
    """'jpeg,webp' -> names; 'none' or nothing -> (); None -> the usual ones."""
    from ..tools.rivals import MEASURED

    if text is None:
        return MEASURED
    return tuple(part for part in text.split(",") if part not in ("", "none"))


def run_train(options: argparse.Namespace) -> None:
    """`train`."""
    from ..runtime.machine import available_cores
    from .run import train
    from .run_setup import TrainOptions

    values = {key: value for key, value in vars(options).items() if key not in ("verb", "jobs")}
    train(TrainOptions(**values, jobs=options.jobs or available_cores()))


def run_evaluate(options: argparse.Namespace) -> None:
    """`evaluate`."""
    from .evaluate import DIALS, EvaluateOptions, evaluate, refuse_skipped

    # What argparse cannot say.
    if options.qualities and options.indices:
        raise ValueError("give --qualities or --indices, not both")
    if options.rates and len(options.rates) != 2:
        raise ValueError(f"--rates is LOW,HIGH in bpp, found {len(options.rates)} numbers")

    # Options left out keep the measurement's own defaults.
    _, skipped = evaluate(
        EvaluateOptions(
            models=options.models,
            images=options.images,
            out=options.out,
            qualities=options.qualities or DIALS,
            indices=options.indices or (),
            efforts=options.efforts,
            codecs=codec_names(options.codecs),
            anchors=tuple(options.anchors),
            beside=tuple(options.beside),
            rates=options.rates,
            jobs=options.jobs,
            device=options.device,
        )
    )
    refuse_skipped(skipped)


def run_screens(options: argparse.Namespace) -> None:
    """`screens`."""
    from .screens import write_screens

    paths = write_screens(options.out, options.count, options.seed)
    print(f"{len(paths)} pictures in {options.out}")


def run_export(options: argparse.Namespace) -> None:
    """`export`."""
    from .evaluate import refuse_skipped
    from .export import ExportOptions, export

    # A run's folder gives its model the name.
    folder = options.out or options.run / "export"
    entry, skipped = export(
        ExportOptions(
            run=options.run,
            name=options.name or options.run.resolve().name,
            out=folder,
            images=options.images,
            licence=options.licence,
            install=options.install,
            codecs=codec_names(options.codecs),
            jobs=options.jobs,
        )
    )

    # What was made, and how to use it.
    path = folder / entry.file
    print(f"{path}: {entry.bytes} bytes, id {entry.id}")
    if not options.install:
        print(
            f"To use it by name: pillow-cwic weights add {path.parent / 'manifest.json'}",
            file=sys.stderr,
        )
    refuse_skipped(skipped)


if __name__ == "__main__":
    sys.exit(main())
