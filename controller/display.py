"""What a person sees of a run: a live view on a terminal, plain lines in a pipe or a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from controller.api import Experiment
from controller.progress import Progress

PLAIN_SECONDS = 10.0
"""Plain lines come at each epoch and each change of phase, else at most so often."""

_ENDS = ("Suspended", "Succeeded", "Failed")
_PHASE_STYLES = {"Running": "green", "Succeeded": "bold green", "Failed": "bold red", "Restarting": "yellow"}

Facts = Sequence[tuple[str, str]]
"""Label and value of each line of a block."""


@dataclass(frozen=True)
class View:
    """All that is shown of a moment.

    Attributes:
        experiment: with its newest status.
        newest: the newest progress document, None before the first.
        stopping: Ctrl-C has been pressed once.
    """

    experiment: Experiment
    newest: Progress | None
    stopping: bool = False

    @property
    def phase(self) -> str:
        """One or two words: the experiment's phase, or what the training does within it."""
        if self.stopping and self.experiment.status.phase not in _ENDS:
            return "Stopping"
        return self.experiment.status.phase

    @property
    def current(self) -> Progress | None:
        """The progress document, if it is of the attempt that is on."""
        newest = self.newest
        return newest if newest is not None and newest.attempt == self.experiment.status.attempt else None


class Display(Protocol):
    """Where a run is shown."""

    def block(self, title: str, facts: Facts) -> None:
        """A titled list of facts."""

    def note(self, text: str, warning: bool = False) -> None:
        """One line that stays."""

    def show(self, view: View) -> None:
        """The run as it is now."""

    def close(self) -> None:
        """The run is over: nothing moves any more. `block` and `note` may still come."""


def display_for(console: Console) -> Display:
    """The live view on a terminal that can move its cursor, plain lines elsewhere."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else PlainDisplay(console)


class PlainDisplay:
    """One line after another, without control codes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[object, ...] = ()
        self._next = 0.0

    def block(self, title: str, facts: Facts) -> None:
        """See `Display`."""
        self._line(title)
        width = max((len(label) for label, _ in facts), default=0)
        for label, value in facts:
            self._line(f"  {label:<{width}}  {value}")

    def note(self, text: str, warning: bool = False) -> None:
        """See `Display`."""
        self._line(f"{_clock()} {'warning: ' if warning else ''}{text}")

    def show(self, view: View) -> None:
        """See `Display`."""
        if view.phase in _ENDS:
            return  # a block says so, in more words
        current = view.current
        what = (view.phase, view.experiment.status.attempt, current and current.epoch, current and current.phase)
        now = time.monotonic()
        if what == self._shown and (current is None or now < self._next):
            return
        self._shown, self._next = what, now + PLAIN_SECONDS
        self._line(f"{_clock()} {'  '.join(summary(view))}")

    def close(self) -> None:
        """See `Display`."""

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()


class LiveDisplay:
    """A block at the bottom of the terminal that changes in place; lines that stay scroll above it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=4)
        self._started = False

    def block(self, title: str, facts: Facts) -> None:
        """See `Display`."""
        table = Table(box=None, show_header=False, padding=(0, 0, 0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, value in facts:
            table.add_row(label, Text(value))
        self._console.print(Text(title, style="bold"))
        self._console.print(table)

    def note(self, text: str, warning: bool = False) -> None:
        """See `Display`."""
        line = Text(f"{_clock()} ", style="dim").append(text, style="yellow" if warning else "not dim")
        self._console.print(line)

    def show(self, view: View) -> None:
        """See `Display`."""
        if not self._started:
            self._live.start()
            self._started = True
        self._live.update(_panel(view))

    def close(self) -> None:
        """See `Display`."""
        if self._started:
            self._live.stop()
            self._started = False


def summary(view: View) -> list[str]:
    """The moment in a few words each: phase, attempt, epoch, step, speed, loss, accuracy, time left, checkpoint."""
    status, current = view.experiment.status, view.current
    if current is None:
        return [view.phase, *([status.message] if status.message else [])]
    phase = f"{view.phase} ({current.phase})" if view.phase == "Running" else view.phase
    parts = [f"{phase}, attempt {status.attempt}"]
    if current.epoch:
        parts.append(f"epoch {current.epoch}/{current.epochs}")
    if current.steps:
        parts.append(f"step {current.step}/{current.steps}")
    return parts + figures(current)


def figures(current: Progress) -> list[str]:
    """The numbers of a progress document, with their units; what is not known yet is left out."""
    found = []
    if current.images_per_second is not None:
        found.append(f"{current.images_per_second:,.0f} img/s".replace(",", " "))
    if current.loss is not None:
        found.append(f"loss {current.loss:.3f}")
    elif current.loss_reason:
        found.append(f"loss {current.loss_reason}")
    if current.top1 is not None:
        found.append(f"top-1 {percent(current.top1)}")
    if current.eta_seconds is not None and current.phase not in ("done", "export"):
        found.append(f"{duration(current.eta_seconds)} left")
    if current.last_checkpoint is not None:
        found.append(f"checkpoint at step {current.last_checkpoint}")
    return found


def percent(ratio: float) -> str:
    """A ratio as people read it."""
    return f"{100 * ratio:.2f} %"


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    whole = round(max(0.0, seconds))
    for unit, size, next_unit, next_size in (("d", 86_400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // next_size} {next_unit}"
    return f"{whole} s"


def _panel(view: View) -> Group:
    status, current = view.experiment.status, view.current
    head = Text(view.experiment.metadata.name, style="bold")
    head.append("  ").append(view.phase, style=_PHASE_STYLES.get(view.phase, "cyan"))
    if current is not None and view.phase == "Running":
        head.append(f"  {current.phase.replace('_', ' ')}", style="dim")
    if status.attempt:
        head.append(f"  attempt {status.attempt}", style="dim")
    lines: list[Text | Table] = [head]
    if current is not None and current.steps:
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(
            ProgressBar(
                total=current.steps, completed=min(current.step, current.steps), width=40, complete_style="cyan"
            ),
            Text(f"{current.step / current.steps:4.0%}"),
            Text(f"epoch {current.epoch}/{current.epochs}"),
            Text(f"step {current.step}/{current.steps}", style="dim"),
        )
        lines.append(grid)
    if current is not None:
        lines.append(Text("   ".join(figures(current))))
    elif status.message:
        lines.append(Text(status.message, style="dim"))
    return Group(*lines)


def _clock() -> str:
    return time.strftime("%H:%M:%S")
