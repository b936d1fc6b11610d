"""How the ranks come to know alike what only one of them has seen.

About once a second, at a step that every rank computes alike, the ranks start a MAX all-reduce of a few numbers on the
CPU (8 and two for each rank: 1 KiB for 64 ranks) and read it one step later. No rank waits for a device, and between
two exchanges a step costs two comparisons.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.report import Report, Verdict, pack, unpack

MAX_INTERVAL = 64
"""Upper bound of the steps between two exchanges: what a stop waits for where steps suddenly become slow. At 1 ms a
step it makes an exchange every 64 ms, which costs well under 1 %."""


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
        rank: this rank's number.
        world_size: number of ranks; 1 needs no process group.
        group: a group with a gloo backend for CPU tensors; None is the default group.
        period: wanted seconds between two exchanges.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        *,
        rank: int = 0,
        world_size: int,
        group: dist.ProcessGroup | None = None,
        period: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rank = rank
        self._world_size = world_size
        self._group = group
        self._period = period
        self._clock = clock
        self._interval = 1
        self._due: int | None = None  # the step of the next exchange; None: at once
        self._pending: tuple[Any, torch.Tensor] | None = None
        self._since: tuple[int, float] | None = None  # step and time from which the mean step time is measured

    def at(self, step: int, report: Callable[[], Report]) -> Verdict | None:
        """Called by every rank at every boundary of optimizer steps.

        Args:
            step: optimizer steps done; the same on all ranks, one more at each call.
            report: what this rank has to say; asked only where an exchange begins.

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
            self._start(step, report())
        return verdict

    def now(self, report: Report) -> Verdict:
        """An exchange that is waited for: before and after a phase without steps (validation), and at the end.

        An exchange under way is dropped: a report says where its rank is by now, which includes what it said before.
        The time until the next call of `at` is not counted as a step's.

        Raises:
            TrainingError: LOST_PEER, a rank is gone.
        """
        if self._pending:
            self._read()
        self._since = None
        self._start(0, report)
        self._since = None
        self._due = None
        return self._read()

    def _start(self, step: int, report: Report) -> None:
        now = self._clock()
        seconds = 0.0
        if self._since and step > self._since[0]:
            seconds = (now - self._since[1]) / (step - self._since[0])
        self._since = (step, now)
        numbers = pack(report, seconds, rank=self._rank, world_size=self._world_size)
        values = torch.tensor(numbers, dtype=torch.float64)
        work = None
        if self._world_size > 1:
            with _lost_peer():
                work = dist.all_reduce(values, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, values)

    def _read(self) -> Verdict:
        assert self._pending
        (work, values), self._pending = self._pending, None
        if work is not None:
            with _lost_peer():
                work.wait()
        return unpack(values.tolist(), world_size=self._world_size)


@contextmanager
def _lost_peer() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            ExitCode.LOST_PEER, f"lost a peer while the ranks agreed whether to go on: {first}"
        ) from error
