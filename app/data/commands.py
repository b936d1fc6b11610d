"""The commands about data sets: arguments, words and exit codes, shared by resnetctl and `python -m app.data.…`.

Importing this needs the standard library only; NumPy, Pillow and SciPy come in when a command runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

from app import tools
from app.command_line import Parser
from app.data.errors import shown
from app.resilience.exit_codes import ExitCode, TrainingError
from app.version import installing

WORKERS = 16
"""Threads: most of the time they wait for a volume."""
_LISTED = 2000
"""Bad images that are named: more than the 0.1 % of ImageNet that a training tolerates, and not all of a wrong set."""

Progress = Callable[[str, int, int], None]
"""What is counted, how many of them are done, how many there are."""


class End(NamedTuple):
    """How a command ended: its exit code, the line for stdout, and what belongs on stderr before it."""

    code: int
    summary: str
    details: Sequence[str] = ()


Run = Callable[[argparse.Namespace, Progress], End]


class TenthLines:
    """Progress as plain lines: one at each tenth."""

    def __init__(self) -> None:
        self._said: dict[str, int] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """See `Progress`."""
        tenth = 10 * done // total
        if tenth > self._said.get(what, 0):
            self._said[what] = tenth
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)


def prepare_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `prepare_imagenet`."""
    tar = {"required": True, "metavar": "FILE"}
    parser.add_argument("--train-tar", help="ILSVRC2012_img_train.tar", **tar)  # type: ignore[arg-type]
    parser.add_argument("--val-tar", help="ILSVRC2012_img_val.tar", **tar)  # type: ignore[arg-type]
    parser.add_argument("--devkit", help="ILSVRC2012_devkit_t12.tar.gz: it has the labels", **tar)  # type: ignore[arg-type]
    parser.add_argument("--out", required=True, metavar="DIR", help="gets train/ and val/, or the index")
    parser.add_argument(
        "--index-only", action="store_true", help="write an index of the tars instead; training then reads from them"
    )
    for flag, default, what in (
        ("--classes", 1000, "classes that the devkit must have"),
        ("--train-images", 1_281_167, "training images that there must be"),
        ("--val-images", 50_000, "validation images that there must be"),
    ):
        parser.add_argument(flag, type=_count, default=default, metavar="N", help=f"{what} [default {default}]")
    _add_workers(parser)


def check_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `check_dataset`."""
    parser.add_argument("path", metavar="PATH", help="what --dataset_path will be")
    parser.add_argument(
        "--dataset", choices=("imagenet", "digits"), default="imagenet", help="what it should hold [default imagenet]"
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode all pixels, not only headers: finds images that were cut"
    )
    _add_workers(parser)


def prepare_imagenet(args: argparse.Namespace, progress: Progress) -> End:
    """From the published tars to what a training reads.

    Raises:
        TrainingError: see `app.data.ilsvrc.prepare.prepare`.
    """
    from app.data.ilsvrc.prepare import prepare  # noqa: PLC0415
    from app.data.ilsvrc.source import Counts, Source  # noqa: PLC0415

    expected = Counts(args.classes, args.train_images, args.val_images)
    new, counts = prepare(
        Path(args.out),
        lambda: Source(args.train_tar, args.val_tar, args.devkit, expected),
        args.workers,
        progress,
        index_only=args.index_only,
    )
    did = ("indexed" if args.index_only else "wrote") if new else "found"
    images = f"{counts.train} training and {counts.val} validation images of {counts.classes} classes"
    return End(ExitCode.DONE, f"{did} {images} in {shown(args.out)}")


def check_dataset(args: argparse.Namespace, progress: Progress) -> End:
    """Reads every image; 65 if one of them is none, or if there are not as many as were prepared.

    Raises:
        TrainingError: see `app.data.check.check`.
    """
    from app.data.check import check  # noqa: PLC0415
    from app.data.ilsvrc.source import Counts  # noqa: PLC0415

    found = check(args.path, args.workers, progress, pixels=args.decode)
    details = [f"bad image {name} ({why})" for name, why in found.bad[:_LISTED]]
    if len(found.bad) > _LISTED:
        details.append(f"and {len(found.bad) - _LISTED} more")
    counts, published = found.counts, {"imagenet": Counts(), "digits": Counts(10, 1437, 360)}[args.dataset]
    prepared = found.prepared or counts
    changed = counts != prepared
    right, whose = (prepared, "prepare-imagenet wrote") if changed else (published, f"{args.dataset} as published has")
    other = "" if counts == right else f" ({whose} {right.classes}, {right.train} and {right.val})"
    bad = f"{len(found.bad)} bad" if found.bad else "none bad"
    held = f"{counts.classes} classes, {counts.train} training and {counts.val} validation images"
    summary = f"{shown(args.path)}: {held}{other}, {bad} by {'all pixels' if args.decode else 'their headers'}"
    return End(ExitCode.BAD_DATA if found.bad or changed else ExitCode.DONE, summary, details)


def guarded(
    run: Run, args: argparse.Namespace, program: str, progress: AbstractContextManager[Progress] | None = None
) -> int:
    """Runs a command; every end of it has an exit code and, unless it is a good one, one line on stderr."""

    def work() -> int:
        try:
            with progress or nullcontext(TenthLines()) as tell:
                end = run(args, tell)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing == "app":
                raise
            message = f"the Python package {missing} is not installed: {installing('dataset')}"
            raise TrainingError(ExitCode.FRAMEWORK_MISSING, message) from None
        for line in end.details:
            print(line, file=sys.stderr)
        print(end.summary)
        return end.code

    return tools.run(program, work)


COMMANDS: Sequence[tuple[str, str, Callable[[argparse.ArgumentParser], None], Run]] = (
    ("prepare-imagenet", "from the published ImageNet tars to train/ and val/", prepare_arguments, prepare_imagenet),
    ("check", "read every image of a data set, and list the bad ones", check_arguments, check_dataset),
)
"""Name after `resnetctl dataset`, what it does, its arguments, and the function that does it."""


def add_commands(parser: argparse.ArgumentParser, take: Callable[[argparse.ArgumentParser, Run], None]) -> None:
    """Adds the commands to a parser.

    Args:
        parser: gets them.
        take: told of each command's own parser and of the function that does it.
    """
    own = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, what, add_arguments, run in COMMANDS:
        sub = own.add_parser(name, help=what, description=what, allow_abbrev=False)
        add_arguments(sub)
        take(sub, run)


def main() -> int:
    """The whole of `python -m app.data`; returns the exit code."""
    parser = Parser(prog="python -m app.data", description="Prepares and checks data sets.", allow_abbrev=False)
    add_commands(parser, lambda sub, run: sub.set_defaults(command=run))

    def work() -> int:
        args = parser.parse_args()
        return guarded(args.command, args, "dataset")

    return tools.run("dataset", work)


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_count, default=WORKERS, metavar="N", help=f"files worked on at a time [default {WORKERS}]"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) < 10**9):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text)
