"""`resnetctl dataset …`: the data set commands of app/, with a progress bar where there is a terminal."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from app.data import commands as data_commands
from app.data.commands import Progress, Run, guarded


def add_commands(commands: Any, program: str) -> None:
    """Adds `dataset` and its own commands to the sub-commands of a parser."""
    text = "prepare and check data sets"
    dataset = commands.add_parser("dataset", help=text, description=text, allow_abbrev=False)
    data_commands.add_commands(dataset, lambda sub, run: sub.set_defaults(command=partial(_run, run, program)))


def _run(run: Run, program: str, args: argparse.Namespace) -> int:
    return guarded(run, args, program, _bar())


def _bar() -> AbstractContextManager[Progress] | None:
    """A bar on a terminal; None, which means plain lines, elsewhere or where there is no rich."""
    try:
        from rich.console import Console  # noqa: PLC0415
    except ModuleNotFoundError:
        return None
    console = Console(stderr=True, highlight=False)
    return _live(console) if console.is_terminal and not console.is_dumb_terminal else None


@contextmanager
def _live(console: Any) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bars(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done)

        yield tell
