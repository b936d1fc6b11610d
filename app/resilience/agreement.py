"""What all ranks must decide alike: to stop on SIGTERM, and that the training has diverged.

About once a second, at a step that every rank computes alike, the ranks start a MAX all-reduce of three numbers on the
CPU and read it one step later. No rank waits for a device, and between two exchanges a step costs two comparisons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from app.resilience.exit_codes import ExitCode, TrainingError

NONFINITE_LIMIT = 10
"""So many steps in a row with a non-finite loss mean that the training has diverged."""

MAX_INTERVAL = 64
"""Upper bound of the steps between two exchanges: what a stop waits for where steps suddenly become slow. At 1 ms a
step it makes an exchange every 64 ms, which costs well under 1 %."""


@dataclass(frozen=True)
class Verdict:
    """What the ranks agreed on; the same on all of them.

    Attributes:
        stop: some rank was asked to stop.
        nonfinite_in_row: the longest row of non-finite steps of any rank.
        step_seconds: the slowest rank's mean seconds per step since the exchange before; 0 where not known.
    """

    stop: bool
    nonfinite_in_row: int
    step_seconds: float


def diverged(nonfinite_in_row: int, limit: int = NONFINITE_LIMIT) -> bool:
    """Whether so many non-finite steps in a row end the training (exit 76)."""
    return nonfinite_in_row >= limit


def next_interval(interval: int, step_seconds: float, period: float) -> int:
    """Steps until the next exchange, from agreed numbers only.

    It grows at most twofold at a time, so that one quick measurement can't put the next exchange off for long, and
    falls at once. Where the step time is not known (0) it stays.
    """
    if step_seconds <= 0:
        return interval
    fitting = int(period / step_seconds) if step_seconds * MAX_INTERVAL > period else MAX_INTERVAL
    return max(1, min(fitting, 2 * interval, MAX_INTERVAL))


class Agreement:
    """The exchange between ranks. Every rank must make the same calls at the same steps.

    Args:
        world_size: number of ranks; 1 needs no process group.
        group: a group with a gloo backend for CPU tensors; None is the default group.
        period: wanted seconds between two exchanges.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        *,
        world_size: int,
        group: dist.ProcessGroup | None = None,
        period: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._alone = world_size == 1
        self._group = group
        self._period = period
        self._clock = clock
        self._interval = 1
        self._due: int | None = None  # the step of the next exchange; None: at once
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._since: tuple[int, float] | None = None  # step and time from which the mean step time is measured

    def at(self, step: int, *, stop: bool, nonfinite_in_row: int = 0) -> Verdict | None:
        """Called by every rank at every boundary of optimizer steps.

        Args:
            step: optimizer steps done; the same on all ranks, one more at each call.
            stop: this rank was asked to stop.
            nonfinite_in_row: this rank's steps with a non-finite loss without a finite one since.

        Returns:
            The verdict at the step where it becomes known, on all ranks at the same one; else None.

        Raises:
            TrainingError: LOST_PEER, a rank is gone.
        """
        verdict = None
        if self._pending:
            verdict = self._read()
            self._interval = next_interval(self._interval, verdict.step_seconds, self._period)
            self._due = step - 1 + self._interval
        if self._due is None or step >= self._due:
            self._start(step, stop, nonfinite_in_row)
        return verdict

    def now(self, *, stop: bool, nonfinite_in_row: int = 0) -> Verdict:
        """An exchange that is waited for: before and after a phase without steps (validation), and at the end.

        It includes what an exchange under way has agreed on already. The time until the next call of `at` is not
        counted as a step's.

        Raises:
            TrainingError: LOST_PEER, a rank is gone.
        """
        before = self._read() if self._pending else None
        self._since = None
        self._start(0, stop, nonfinite_in_row)
        self._since = None
        self._due = None
        verdict = self._read()
        if before is None:
            return verdict
        return Verdict(
            stop=verdict.stop or before.stop,
            nonfinite_in_row=max(verdict.nonfinite_in_row, before.nonfinite_in_row),
            step_seconds=before.step_seconds,
        )

    def _start(self, step: int, stop: bool, nonfinite_in_row: int) -> None:
        now = self._clock()
        seconds = 0.0
        if self._since and step > self._since[0]:
            seconds = (now - self._since[1]) / (step - self._since[0])
        self._since = (step, now)
        values = torch.tensor([float(stop), float(nonfinite_in_row), seconds], dtype=torch.float64)
        work = None
        if not self._alone:
            with _lost_peer():
                work = dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, values)

    def _read(self) -> Verdict:
        assert self._pending
        (work, values), self._pending = self._pending, None
        if work is not None:
            with _lost_peer():
                work.wait()
        stop, nonfinite, seconds = values.tolist()
        return Verdict(stop=stop > 0, nonfinite_in_row=int(nonfinite), step_seconds=seconds)


@contextmanager
def _lost_peer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            ExitCode.LOST_PEER, f"lost a peer while the ranks agreed whether to go on: {first}"
        ) from error
