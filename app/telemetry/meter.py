"""How fast the training is, and when it will be done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Meter:
    """Rates between two log lines, and the time left.

    Attributes:
        global_batch: images per step of the whole gang.
        clock: monotonic seconds.
    """

    global_batch: int
    clock: Callable[[], float] = time.monotonic
    _since: float = 0.0
    _steps: int = 0
    _waited: float = 0.0
    _seconds_per_step: float = math.nan
    _validation_seconds: float = 0.0
    _step_began: float = field(default=0.0)

    def begin(self) -> None:
        """Starts (again) to measure: at the first step and after every pause, which counts for no rate."""
        self._since = self._step_began = self.clock()
        self._steps, self._waited = 0, 0.0

    def step(self, data_wait: float) -> float:
        """Counts one optimizer step that waited `data_wait` seconds for data; returns the step's own seconds."""
        now = self.clock()
        took, self._step_began = now - self._step_began, now
        self._steps += 1
        self._waited += data_wait
        return took

    def rates(self) -> tuple[float, float]:
        """Images/s of the whole gang and the share of the time that waited for data, since the last call."""
        elapsed = max(self.clock() - self._since, 1e-9)
        steps, waited = self._steps, self._waited
        if steps:
            recent = elapsed / steps
            # The first line is the slowest one (caches, memory): half of the weight goes to what came last.
            known = not math.isnan(self._seconds_per_step)
            self._seconds_per_step = (self._seconds_per_step + recent) / 2 if known else recent
        self._since, self._steps, self._waited = self.clock(), 0, 0.0
        return steps * self.global_batch / elapsed, min(1.0, waited / elapsed)

    def validated(self, seconds: float) -> None:
        """A validation took so long."""
        self._validation_seconds = seconds

    def eta(self, steps_left: int, validations_left: int) -> float:
        """Seconds left, NaN before the first rate is known."""
        return steps_left * self._seconds_per_step + validations_left * self._validation_seconds
