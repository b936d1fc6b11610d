"""The heartbeat: one small memory-mapped file per rank, written by the rank and read by its launcher.

A rank that hangs or dies leaves its last beat behind, so the launcher can still say how far the run is. Writing is
a struct.pack into shared memory: no system call, no lock, no wait for a device.
"""

from __future__ import annotations

import math
import mmap
import os
import struct
import time
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

ENV_HEARTBEAT = "RESNET_HEARTBEAT"
"""Environment variable: the path of the rank's heartbeat file."""

STEP_SECONDS_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the step time histogram, in seconds."""


class Phase(IntEnum):
    """What a rank is doing. ``name.lower()`` is the word shown in /progress and metrics."""

    START = 0
    SCAN = 1
    FIRST_STEP = 2
    TRAIN = 3
    VALIDATE = 4
    CHECKPOINT = 5
    EXPORT = 6
    DONE = 7


def phase_name(phase: int) -> str:
    """The word for a phase as /progress and the metrics show it."""
    return Phase(phase).name.lower()


@dataclass
class Beat:
    """All that a rank reports. NaN (floats) and -1 (integers) mean "none yet".

    Counters of the run (step, images, nonfinite_steps, bad_images, checkpoint_failures, data_wait_seconds) continue
    over a resume; those of a rank's own process (first_steps, busy_seconds, the step times) begin with it.
    """

    phase: int = Phase.START
    epoch: int = 0  # the epoch in progress, from 1; 0 before training
    epochs: int = 0
    step: int = 0  # optimizer steps done in the whole run
    steps: int = 0  # optimizer steps of the whole run
    first_steps: int = 0  # optimizer steps done by THIS process: 0 means before its first step
    images: int = 0  # training images of the whole gang
    nonfinite_steps: int = 0  # the most of any rank
    bad_images: int = 0  # distinct files that the whole gang met
    checkpoint_step: int = -1
    checkpoint_bytes: int = 0
    checkpoint_failures: int = 0
    memory_bytes: int = 0
    straggler_rank: int = -1  # the slowest of those that are stragglers, of the whole gang
    moved_at: float = 0.0  # time.monotonic() of the last change of phase or step
    beat_at: float = 0.0  # time.monotonic() of the last beat
    updated_at: float = 0.0  # time.time() of the last beat
    first_step_at: float = math.nan  # time.time() when this process had done its first optimizer step
    busy_seconds: float = 0.0  # computing, waits for data and for peers left out
    data_wait_seconds: float = 0.0
    slowdown_ratio: float = math.nan  # busy time of this rank over the median of the others'
    straggler_ratio: float = math.nan  # of straggler_rank
    loss: float = math.nan
    learning_rate: float = math.nan
    gradient_scale: float = math.nan
    images_per_second: float = math.nan  # of the whole gang
    eta_seconds: float = math.nan
    top1: float = math.nan  # ratio
    top5: float = math.nan  # ratio
    best_top1: float = math.nan  # ratio
    validation_loss: float = math.nan
    checkpoint_time: float = math.nan  # time.time() of the newest committed checkpoint
    checkpoint_seconds: float = math.nan
    step_seconds_sum: float = 0.0
    step_seconds_buckets: list[int] = field(default_factory=lambda: [0] * (len(STEP_SECONDS_BUCKETS) + 1))


_SCALARS = [f.name for f in fields(Beat) if f.name != "step_seconds_buckets"]
_DEFAULTS = Beat()
_LAYOUT = struct.Struct(
    "<"
    + "".join("q" if isinstance(getattr(_DEFAULTS, name), int) else "d" for name in _SCALARS)
    + f"{len(_DEFAULTS.step_seconds_buckets)}q"
)
_SEQUENCE = struct.Struct("<Q")
_SIZE = _SEQUENCE.size + _LAYOUT.size


class Heart:
    """The writing end, owned by one rank. ``path`` None makes a heart that nobody reads (a rank typed by hand)."""

    def __init__(self, path: Path | None) -> None:
        self.state = Beat()
        self._sequence = 0
        if path is None:
            self._map = mmap.mmap(-1, _SIZE)
        else:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, _SIZE)  # a full disk is an error here, not a SIGBUS later
                self._map = mmap.mmap(fd, _SIZE)
            finally:
                os.close(fd)
        self.beat()

    def beat(self, **changes: Any) -> None:
        """Sets the named fields of `Beat` and publishes the whole."""
        state = self.state
        before = (state.phase, state.step)
        for name, value in changes.items():
            setattr(state, name, value)
        now = time.monotonic()
        if (state.phase, state.step) != before or not state.moved_at:
            state.moved_at = now
        state.beat_at = now
        state.updated_at = time.time()
        if state.first_steps and math.isnan(state.first_step_at):
            state.first_step_at = state.updated_at
        # Odd while a write is under way: the reader tries again (a seqlock with one writer).
        _SEQUENCE.pack_into(self._map, 0, self._sequence + 1)
        _LAYOUT.pack_into(
            self._map, _SEQUENCE.size, *(getattr(state, name) for name in _SCALARS), *state.step_seconds_buckets
        )
        self._sequence += 2
        _SEQUENCE.pack_into(self._map, 0, self._sequence)

    def step_took(self, seconds: float) -> None:
        """Counts one training step into the histogram; published with the next beat."""
        state = self.state
        state.step_seconds_sum += seconds
        for i, bound in enumerate(STEP_SECONDS_BUCKETS):
            if seconds <= bound:
                state.step_seconds_buckets[i] += 1
                return
        state.step_seconds_buckets[-1] += 1


def read(path: Path) -> Beat | None:
    """The last beat in the file, or None where there is none (yet) or it is being written without end."""
    try:
        with open(path, "rb") as file:
            for _ in range(100):
                file.seek(0)
                raw = file.read(_SIZE)
                if len(raw) < _SIZE:
                    return None
                (first,) = _SEQUENCE.unpack_from(raw)
                file.seek(0)
                (second,) = _SEQUENCE.unpack(file.read(_SEQUENCE.size))
                if first and first % 2 == 0 and first == second:
                    values = _LAYOUT.unpack_from(raw, _SEQUENCE.size)
                    return Beat(
                        **dict(zip(_SCALARS, values[: len(_SCALARS)], strict=True)),
                        step_seconds_buckets=list(values[len(_SCALARS) :]),
                    )
    except FileNotFoundError:
        return None
    return None
