"""PURE: a line chart as inline SVG. Colours come from the page's style sheet, so that light and dark both work."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from controller.report.curves import Point, counted

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 20, 44
MAX_POINTS = 600
"""About one a pixel: a curve of more points is drawn by the lowest and highest of each pixel column."""


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        name: in the legend and in tooltips.
        points: in the order of starts and steps.
        dots: few points that are worth a mark each.
    """

    name: str
    points: Sequence[Point]
    dots: bool = False


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        title: what is measured.
        unit: of the y axis, in words.
        lines: the curves, the first one in the first colour.
        number: writes a value for tooltips.
        marks: (step, label) of vertical lines: where a later start went on.
        from_zero: the y axis begins at 0.
        ceiling: the y axis ends there at the latest (100 of a percentage).
        clipped: a few values far above all others are written at the upper edge instead of flattening the rest.
        axis, position: what a point's step counts, under the axis and in one word.
    """

    title: str
    unit: str
    lines: Sequence[Line]
    number: Callable[[float], str]
    marks: Sequence[tuple[int, str]] = ()
    from_zero: bool = False
    ceiling: float | None = None
    clipped: bool = False
    axis: str = "optimizer steps"
    position: str = "step"

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not any(math.isfinite(point.value) for line in self.lines for point in line.points)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers (1, 2, 2.5 or 5 times a power of ten apart) that enclose low to high, about `count` of them."""
    span = high - low
    if not span > 0:
        span = abs(high) or 1.0
        low, high = low - span / 2, high + span / 2
    raw = span / max(1, count - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if raw <= factor * power * (1 + 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def tick_label(tick: float, among: Sequence[float]) -> str:
    """A tick with as many decimals as tell it from its neighbours, the same for all of them."""
    step = among[1] - among[0] if len(among) > 1 else abs(tick) or 1.0
    decimals = next((d for d in range(6) if abs(round(step, d) - step) < 1e-6 * step), None)
    return f"{tick:.15g}" if decimals is None else f"{tick:,.{decimals}f}".replace(",", "\u202f")


def thin(points: Sequence[Point], limit: int = MAX_POINTS) -> list[Point]:
    """At most `limit` of the points, with the first and last, and the lowest and highest of every stretch."""
    if len(points) <= limit:
        return list(points)
    stretches = max(1, (limit - 2) // 2)
    chosen = {0, len(points) - 1}
    for i in range(stretches):
        stretch = range(len(points) * i // stretches, len(points) * (i + 1) // stretches)
        chosen.add(min(stretch, key=lambda j: points[j].value))
        chosen.add(max(stretch, key=lambda j: points[j].value))
    return [points[i] for i in sorted(chosen)][:limit]


def draw(chart: Chart) -> Markup:
    """The chart as an <svg>, or a sentence where there is nothing to draw."""
    if chart.empty:
        return Markup('<p class="none">No values in this run.</p>')
    finite = [p for line in chart.lines for p in line.points if math.isfinite(p.value)]
    above = _far_above([p.value for p in finite if not p.redone]) if chart.clipped else math.inf
    values = [p.value for p in finite if p.value <= above]
    y_ticks = ticks(0.0 if chart.from_zero else min(values), max(values))
    if chart.ceiling is not None:
        y_ticks = [tick for tick in y_ticks if tick <= chart.ceiling]
    last_step = max(p.step for p in finite)
    x_ticks = [tick for tick in ticks(0, max(1, last_step), 6) if tick <= last_step and tick == int(tick)]
    low, high = y_ticks[0], max(y_ticks[-1], *values)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(1, last_step)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (value - low) / (high - low))

    parts = [_axes(chart.axis, x_ticks, y_ticks, x, y)]
    for step, label in chart.marks:
        if 0 < step <= last_step:
            parts.append(_mark(x(step), label))
    hover = []
    clip = f"clip-{chart.title.lower().replace(' ', '-')}"
    parts.append(
        Markup('<clipPath id="{}"><rect x="0" y="{}" width="{}" height="{}"/></clipPath>').format(
            clip, TOP - 4, WIDTH, HEIGHT - TOP - BOTTOM + 8
        )
    )
    for number, line in enumerate(chart.lines, 1):
        parts.append(Markup('<g clip-path="url(#{})">{}</g>').format(clip, _line(line, number, chart, x, y)))
        parts += [_beyond(chart, line, p, number, x(p.step)) for p in _peaks(line.points, above)]
        hover += [
            [round(x(p.step), 1), round(max(TOP, y(p.value)), 1), number, _tooltip(chart, line, p)]
            for p in thin(counted(line.points), 300)
        ]
    body = Markup("").join(parts)
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" tabindex="0" aria-label="{label}" data-points="{points}">'
        "{body}"
        '<g class="hover" hidden><line class="cross" y1="{top}" y2="{bottom}"/></g></svg>'
    ).format(
        w=WIDTH, h=HEIGHT, label=describe(chart), points=json.dumps(hover, separators=(",", ":")), body=body,
        top=TOP, bottom=HEIGHT - BOTTOM,
    )  # fmt: skip


def describe(chart: Chart) -> str:
    """The chart in one sentence, for those who can't see it."""
    parts = []
    for line in chart.lines:
        points = counted(line.points)
        if points:
            first, last = points[0], points[-1]
            parts.append(
                f"{line.name}: {chart.number(first.value)} at {chart.position} {first.step}, "
                f"{chart.number(last.value)} at {chart.position} {last.step}"
            )
    return f"{chart.title} ({chart.unit}) over {chart.axis}. {'; '.join(parts)}."


def _far_above(values: Sequence[float]) -> float:
    """Three times the 95th percentile: what lies above is drawn as outliers."""
    ordered = sorted(values)
    typical = ordered[int(0.95 * (len(ordered) - 1))] if ordered else 0.0
    return 3 * typical if typical > 0 else math.inf


def _peaks(points: Sequence[Point], above: float) -> list[Point]:
    """The highest point of each stretch above the axis."""
    stretches = (list(run) for beyond, run in groupby(counted(points), key=lambda p: p.value > above) if beyond)
    return [max(stretch, key=lambda p: p.value) for stretch in stretches]


def _beyond(chart: Chart, line: Line, point: Point, number: int, x: float) -> Markup:
    anchor, shift = ("start", 8) if x < (LEFT + WIDTH) / 2 else ("end", -8)
    return Markup(
        '<g class="beyond"><path class="s{n}" d="M{x} {t}l5 7h-10z"><title>{title}</title></path>'
        '<text x="{lx}" y="{ly}" text-anchor="{a}">{value}</text></g>'
    ).format(
        n=number, x=round(x, 1), t=TOP - 2, title=_tooltip(chart, line, point), lx=round(x + shift, 1), ly=TOP + 6,
        a=anchor, value=chart.number(point.value),
    )  # fmt: skip


def _axes(
    axis: str,
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x: Callable[[float], float],
    y: Callable[[float], float],
) -> Markup:
    grid = Markup("").join(
        Markup('<line x1="{l}" x2="{r}" y1="{y}" y2="{y}"/>').format(l=LEFT, r=WIDTH - RIGHT, y=round(y(tick), 1))
        for tick in y_ticks
    )
    left = Markup("").join(
        Markup('<text x="{x}" y="{y}" class="y">{t}</text>').format(
            x=LEFT - 8, y=round(y(tick) + 4, 1), t=tick_label(tick, y_ticks)
        )
        for tick in y_ticks
    )
    below = Markup("").join(
        Markup('<text x="{x}" y="{y}" class="x">{t}</text>').format(
            x=round(x(tick), 1), y=HEIGHT - BOTTOM + 18, t=tick_label(tick, x_ticks)
        )
        for tick in x_ticks
    )
    return Markup(
        '<g class="grid">{grid}</g><g class="ticks">{left}{below}<text x="{x}" y="{y}" class="x axis">{axis}</text></g>'
    ).format(axis=axis, grid=grid, left=left, below=below, x=(LEFT + WIDTH - RIGHT) / 2, y=HEIGHT - 6)


def _mark(x: float, label: str) -> Markup:
    anchor, shift = ("start", 4) if x < (LEFT + WIDTH) / 2 else ("end", -4)
    return Markup(
        '<g class="mark"><line x1="{x}" x2="{x}" y1="{t}" y2="{b}"/>'
        '<text x="{lx}" y="{ly}" text-anchor="{a}">{label}</text></g>'
    ).format(
        x=round(x, 1), t=TOP - 6, b=HEIGHT - BOTTOM, lx=round(x + shift, 1), ly=TOP - 8, a=anchor, label=label
    )  # fmt: skip


def _line(line: Line, number: int, chart: Chart, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    """The curve, broken where a value was not finite, and what was done again as lines of their own beside it."""
    pieces = []

    def add(points: Sequence[Point], classes: str) -> None:
        for finite, stretch in groupby(points, key=lambda p: math.isfinite(p.value)):
            if finite:
                path = " ".join(f"{x(p.step):.1f},{y(p.value):.1f}" for p in thin(list(stretch)))
                pieces.append(Markup('<polyline class="{}" points="{}"/>').format(classes, path))

    add([p for p in line.points if not p.redone], f"s{number}")
    for start in sorted({p.start for p in line.points if p.redone}):
        before = [p for p in line.points if p.start == start and not p.redone][-1:]
        add(before + [p for p in line.points if p.start == start and p.redone], f"s{number} redone")
    lone = len(counted(line.points)) < 2
    if line.dots or lone:
        for p in thin(counted(line.points), 120):
            pieces.append(
                Markup('<circle class="s{}" cx="{}" cy="{}" r="3.2"><title>{}</title></circle>').format(
                    number, round(x(p.step), 1), round(y(p.value), 1), _tooltip(chart, line, p)
                )
            )
    return Markup("").join(pieces)


def _tooltip(chart: Chart, line: Line, point: Point) -> str:
    return (
        f"{line.name} {chart.number(point.value)}{_suffix(chart)} · {chart.position} {point.step} · epoch {point.epoch}"
    )


def _suffix(chart: Chart) -> str:
    return f" {chart.unit}" if len(chart.unit) <= 6 and chart.unit else ""


def legend(chart: Chart) -> Markup:
    """The names of the curves beside their colours, where there are two or more or some work was done again."""
    named = [(number, line) for number, line in enumerate(chart.lines, 1) if counted(line.points)]
    items = [Markup('<span class="key"><i class="s{}"></i>{}</span>').format(n, line.name) for n, line in named]
    if len(items) < 2:
        items = []
    if any(_differs(line.points) for line in chart.lines):
        items.append(Markup('<span class="key"><i class="redone"></i>done again</span>'))
    return Markup("").join(items)


def _differs(points: Sequence[Point]) -> bool:
    """Whether what was done again came out otherwise, so that it shows beside the curve."""
    counting = {(point.step, point.value) for point in counted(points)}
    return any(point.redone and (point.step, point.value) not in counting for point in points)
