"""PURE: panels as we describe them, and where they lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

COLUMNS = 24
STAT_HEIGHT, HEIGHT = 4, 8
ROW_HEIGHT = 1

EXPERIMENT_PHASES = {
    "Pending": "yellow", "Queued": "light-yellow", "Starting": "light-green", "Running": "green",
    "Restarting": "orange", "Suspended": "text", "Succeeded": "blue", "Failed": "red",
}  # fmt: skip
"""Phase of an experiment -> its colour, the same on all dashboards."""
TRAINING_PHASES = {
    "start": "text", "scan": "light-yellow", "first_step": "yellow", "train": "green", "validate": "blue",
    "checkpoint": "orange", "export": "purple", "done": "light-blue",
}  # fmt: skip
"""The same for phases of a training."""


class Kind(Enum):
    """How a panel draws its data."""

    STAT = "stat"
    NAME = "name"  # a stat that shows a label, not the value
    LINES = "lines"
    STACK = "stack"
    STEPS = "steps"  # lines that are level between two values
    BARS = "bars"
    TABLE = "table"

    @property
    def instant(self) -> bool:
        """Whether it shows the newest value alone."""
        return self in (Kind.STAT, Kind.NAME, Kind.BARS, Kind.TABLE)


@dataclass(frozen=True)
class Query:
    """PromQL and the name of what it yields: a legend, or the head of a table's column."""

    expression: str
    legend: str
    unit: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title, description: the description says how to read it, and what to do where it looks wrong.
        unit: Grafana's name of it.
        queries: at least one.
        width: of 24 columns.
        kind: how it is drawn.
        low, high: ends of the axis; absent: as the data are.
        warn, alarm: from there on it is yellow, red.
        link: of a table's rows, to another dashboard.
        colors: of what has a legend of that name; else Grafana deals them out by position.
    """

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    kind: Kind = Kind.LINES
    low: float | None = None
    high: float | None = None
    warn: float | None = None
    alarm: float | None = None
    link: str = ""
    colors: Mapping[str, str] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """In grid units."""
        return STAT_HEIGHT if self.kind in (Kind.STAT, Kind.NAME) else HEIGHT


@dataclass(frozen=True)
class Row:
    """Panels under a heading, laid side by side as long as they fit, then below."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True)
class Variable:
    """What a reader may choose: the values of a label of a metric."""

    name: str
    label: str
    query: str
    several: bool


@dataclass(frozen=True)
class Board:
    """A dashboard. Its uid is its name with "resnet-" before it."""

    name: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]
    span: str = "now-6h"
    links: Sequence[str] = field(default=())

    @property
    def uid(self) -> str:
        """In its address."""
        return f"resnet-{self.name}"

    @property
    def panels(self) -> list[Panel]:
        """All of them."""
        return [panel for row in self.rows for panel in row.panels]


@dataclass(frozen=True)
class Place:
    """Where something lies."""

    x: int
    y: int
    width: int
    height: int


def lay_out(rows: Sequence[Row]) -> Iterator[tuple[Row | Panel, Place]]:
    """Every row's heading and panels with their places, from the top down.

    Raises:
        ValueError: a panel is wider than the page.
    """
    y = 0
    for row in rows:
        yield row, Place(0, y, COLUMNS, ROW_HEIGHT)
        y += ROW_HEIGHT
        x = tallest = 0
        for panel in row.panels:
            if not 0 < panel.width <= COLUMNS:
                raise ValueError(f"{panel.title}: a width of {panel.width} does not fit {COLUMNS} columns")
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            yield panel, Place(x, y, panel.width, panel.height)
            x += panel.width
            tallest = max(tallest, panel.height)
        y += tallest
