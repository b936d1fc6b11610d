"""What a rank tells the others about once a second, and what they all know then. Pure: numbers in, numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """One rank's word.

    Attributes:
        stop: it was asked to stop.
        ending: it has a reason to end the run that only it knows (rank 0: what happened to its checkpoints).
        bad_files: training files that it found bad and has not named to the others.
        looked_at: optimizer steps done when it last read its device, at a log interval; the same on all ranks.
        nonfinite_steps: its steps with a non-finite loss in the whole run.
        nonfinite_in_row: of them those without a finite one since, up to `looked_at`.
        skipped_in_row: optimizer steps in a row that its loss scaler left out, up to `looked_at`.
        gradient_scale: its loss scale at `looked_at`; 1 where there is none.
        busy_seconds: that it computed in this process, up to `looked_at`.
    """

    stop: bool = False
    ending: bool = False
    bad_files: int = 0
    looked_at: int = 0
    nonfinite_steps: int = 0
    nonfinite_in_row: int = 0
    skipped_in_row: int = 0
    gradient_scale: float = 1.0
    busy_seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What the ranks agreed on; the same on all of them. See `Report` for the meaning of each number.

    Attributes:
        stop, ending, bad_files, looked_at, nonfinite_steps, skipped_in_row: the largest of any rank.
        gradient_scale: the smallest of any rank.
        step_seconds: the slowest rank's mean seconds per step since the exchange before; 0 where not known.
        nonfinite_in_row, busy_seconds: of each rank, by its number.
    """

    stop: bool
    ending: bool
    bad_files: int
    looked_at: int
    nonfinite_steps: int
    skipped_in_row: int
    gradient_scale: float
    step_seconds: float
    nonfinite_in_row: tuple[int, ...]
    busy_seconds: tuple[float, ...]


_COMMON = 8


def pack(report: Report, step_seconds: float, *, rank: int, world_size: int) -> list[float]:
    """The numbers whose MAX over all ranks is the verdict.

    A number of each rank has a slot for every rank, which only its owner fills: their MAX is all ranks' numbers.
    """
    common = (
        report.stop, report.ending, report.bad_files, report.looked_at, report.nonfinite_steps, report.skipped_in_row,
        -report.gradient_scale, step_seconds,
    )  # fmt: skip
    rows, busy = [0.0] * world_size, [0.0] * world_size
    rows[rank], busy[rank] = float(report.nonfinite_in_row), report.busy_seconds
    return [*map(float, common), *rows, *busy]


def unpack(values: Sequence[float], *, world_size: int) -> Verdict:
    """The verdict in the MAX over all ranks of what `pack` made."""
    stop, ending, bad_files, looked_at, nonfinite_steps, skipped_in_row, scale, seconds = values[:_COMMON]
    rows, busy = values[_COMMON : _COMMON + world_size], values[_COMMON + world_size :]
    return Verdict(
        stop=stop > 0, ending=ending > 0, bad_files=int(bad_files), looked_at=int(looked_at),
        nonfinite_steps=int(nonfinite_steps), skipped_in_row=int(skipped_in_row), gradient_scale=-scale,
        step_seconds=seconds, nonfinite_in_row=tuple(int(row) for row in rows), busy_seconds=tuple(busy),
    )  # fmt: skip
