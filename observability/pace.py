"""PURE: how long the rules wait. A test runs the same rules on a faster clock."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

MINUTE = 60
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@dataclass(frozen=True)
class Pace:
    """Durations of the rules, all of them times `factor`: 1 as shipped, less where the scrapes are closer too."""

    factor: Fraction = Fraction(1)

    def __call__(self, seconds: int) -> str:
        """A duration as PromQL and rule files write it: 90 -> "90s", 300 -> "5m"."""
        milliseconds = round(1000 * seconds * self.factor)
        for unit, size in (("d", 1000 * DAY), ("h", 1000 * HOUR), ("m", 1000 * MINUTE), ("s", 1000)):
            if milliseconds >= size and milliseconds % size == 0:
                return f"{milliseconds // size}{unit}"
        return f"{milliseconds}ms"

    def number(self, seconds: int) -> str:
        """The same as a number of seconds, to compare with."""
        return f"{float(seconds * self.factor):g}"
