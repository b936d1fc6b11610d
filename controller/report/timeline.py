"""PURE: the attempts of a run on one line of time, as inline SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from controller.display import duration
from controller.report.chart import ticks

WIDTH, LEFT, RIGHT, ROW, BOTTOM = 1120, 90, 20, 26, 34
LEAST = 2.0
"""Width of an attempt that was over at once."""
MOST = 30
"""Rows: of more attempts the last ones are drawn."""


@dataclass(frozen=True)
class Span:
    """One attempt.

    Attributes:
        name: of the row.
        start, end: unix seconds.
        ended: how, or the phase it is in.
        looks: good, bad or busy, the name of a colour.
    """

    name: str
    start: float
    end: float
    ended: str
    looks: str


def draw(spans: Sequence[Span]) -> Markup:
    """The attempts as an <svg>; nothing where there are none."""
    if not spans:
        return Markup("")
    spans = spans[-MOST:]
    begin = min(span.start for span in spans)
    whole = max(1.0, max(span.end for span in spans) - begin)
    height = ROW * len(spans) + BOTTOM

    def x(moment: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (moment - begin) / whole

    rows = Markup("").join(
        Markup(
            '<text class="row" x="{label}" y="{text}">{name}</text>'
            '<rect class="{looks}" x="{x}" y="{y}" width="{width}" height="{height}" rx="3">'
            "<title>{title}</title></rect>"
        ).format(
            label=LEFT - 10, text=ROW * row + 18, name=span.name, looks=span.looks, x=round(x(span.start), 1),
            y=ROW * row + 5, width=round(max(LEAST, x(span.end) - x(span.start)), 1), height=ROW - 8, title=_told(span),
        )
        for row, span in enumerate(spans)
    )  # fmt: skip
    below = Markup("").join(
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            round(x(begin + tick), 1), height - 10, duration(tick)
        )
        for tick in ticks(0, whole, 6)
        if tick <= whole
    )
    label = f"Attempts over time. {'; '.join(map(_told, spans))}."
    return Markup('<svg class="timeline" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        WIDTH, height, label, rows, below
    )


def _told(span: Span) -> str:
    return f"{span.name}: {span.ended} after {duration(span.end - span.start)}"
