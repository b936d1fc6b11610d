"""Which rank holds the others up. Pure: busy seconds in, ratios and changes out.

In synchronous training the time of a step is the same on all ranks, since the fast ones wait for the slow one; only
the time that each of them computes tells them apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median_low

BEGINS = 1.25
"""A straggler computes at least so many times as long as the median of the others."""

ENDS = 1.1
"""It is none any more below this ratio: between the two it stays what it was, so that noise is not news."""

READINGS = 5
"""So many readings in a row must say so."""

READING_SECONDS = 2.0
"""A reading covers at least so many busy seconds of the slowest rank: 10 s in all, so not a hiccup of its host."""


@dataclass(frozen=True)
class Change:
    """A rank has become a straggler, or is one no more.

    Attributes:
        rank: which one.
        ratio: its busy time over the median of the others', in the last reading.
        begins: whether it has become one.
    """

    rank: int
    ratio: float
    begins: bool


def slowdowns(busy: Sequence[float]) -> list[float]:
    """Each rank's busy seconds over the median of the others'; NaN where there are no others or they did nothing.

    The rank itself is left out, and of two medians the lower one is taken: so one slow rank shows among two, and two
    slow ones among three.
    """
    ratios = []
    for rank, own in enumerate(busy):
        others = [*busy[:rank], *busy[rank + 1 :]]
        usual = median_low(others) if others else 0.0
        ratios.append(own / usual if usual > 0 else math.nan)
    return ratios


@dataclass
class Stragglers:
    """The rule over time: who is slow is named once when it begins and once when it ends.

    Attributes:
        ratios: of the last reading, by rank; empty before the first.
        named: the ranks that are stragglers.
        readings, reading_seconds: as READINGS and READING_SECONDS.
    """

    readings: int = READINGS
    reading_seconds: float = READING_SECONDS
    ratios: list[float] = field(default_factory=list)
    named: set[int] = field(default_factory=set)
    _before: Sequence[float] = ()
    _rows: dict[int, int] = field(default_factory=dict)  # readings in a row that speak for a change

    def take(self, busy_seconds: Sequence[float]) -> list[Change]:
        """Takes all ranks' busy seconds since the start of their processes; returns what changed.

        Calls that say nothing new, or less than a reading, change nothing.
        """
        before = self._before or [0.0] * len(busy_seconds)
        busy = [now - then for now, then in zip(busy_seconds, before, strict=True)]
        if max(busy) < self.reading_seconds:
            return []
        self._before = tuple(busy_seconds)
        self.ratios = slowdowns(busy)
        changes = []
        for rank, ratio in enumerate(self.ratios):
            slow = rank in self.named
            speaks = ratio < ENDS if slow else ratio >= BEGINS
            self._rows[rank] = self._rows.get(rank, 0) + 1 if speaks else 0
            if self._rows[rank] >= self.readings:
                self._rows[rank] = 0
                self.named ^= {rank}
                changes.append(Change(rank, ratio, begins=not slow))
        return changes

    def worst(self) -> tuple[int, float] | None:
        """(rank, ratio) of the slowest straggler, None where there is none."""
        return max(((rank, self.ratios[rank]) for rank in self.named), key=lambda found: found[1], default=None)
