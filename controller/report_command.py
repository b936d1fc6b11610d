"""`resnetctl report DIR…`: the page of a run written anew, or one page of several runs side by side."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from app.resilience.exit_codes import ExitCode


def add_command(commands: Any) -> None:
    """Adds it to what `resnetctl --help` lists."""
    text = "write the page of a run, or of several side by side"
    sub = commands.add_parser("report", help=text, description=text, allow_abbrev=False)
    sub.add_argument("runs", nargs="+", metavar="DIR", help="what `resnetctl run` made, such as runs/digits")
    sub.add_argument(
        "-o", "--output", metavar="FILE",
        help="absent: report.html in DIR; of several runs comparison.html in the current folder",
    )  # fmt: skip
    sub.set_defaults(command=_report)


def _report(args: argparse.Namespace) -> int:
    from controller.local import LocalError  # noqa: PLC0415

    try:
        path = _write([Path(each) for each in args.runs], args.output)
    except LocalError as error:
        print(f"resnetctl: {error.message}", file=sys.stderr)
        return error.code
    print(path)
    return ExitCode.DONE


def _write(folders: list[Path], output: str | None) -> Path:
    from app.telemetry.events import read_events  # noqa: PLC0415
    from controller.local import LocalError  # noqa: PLC0415
    from controller.local.rundir import RunDirectory, replace  # noqa: PLC0415
    from controller.report import write_report  # noqa: PLC0415
    from controller.report.comparison import MOST, Run, render_comparison  # noqa: PLC0415

    if len(folders) > MOST:
        raise LocalError(f"report: at most {MOST} runs fit side by side, not {len(folders)}", ExitCode.BAD_OPTION)
    runs = [RunDirectory(folder) for folder in folders]
    found = []
    for run in runs:
        experiment = run.load()
        if experiment is None:
            raise LocalError(
                f"{run.path}: no run lies here (there is no {run.experiment.name}): give a folder that "
                "`resnetctl run` has made, such as runs/digits",
                ExitCode.BAD_OPTION,
            )
        found.append(experiment)
    if len(runs) == 1:
        path = Path(output) if output else runs[0].report
        write_report(path, found[0], runs[0].events)
        return path
    names = Counter(folder.name for folder in folders)
    page = render_comparison(
        [
            Run(folder.name if names[folder.name] == 1 else str(folder), experiment, read_events(run.events))
            for folder, run, experiment in zip(folders, runs, found, strict=True)
        ],
        time.time(),
    )
    path = Path(output or "comparison.html")
    replace(path, page.encode())
    return path
