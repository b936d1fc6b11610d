"""Whether the ranks of this pod still move. Pure: the launcher reads heartbeats and process states, and acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.resilience.heartbeat import Phase, phase_name

PATIENT_PHASES = frozenset({Phase.START, Phase.SCAN, Phase.FIRST_STEP, Phase.EXPORT})
"""Phases without steps that may take long: their limit is PATIENCE times `--watchdog_seconds`."""

PATIENCE = 3

LONELY_PHASES = frozenset({Phase.SCAN, Phase.CHECKPOINT, Phase.EXPORT})
"""Phases in which one rank works and the others wait for it, in whatever phase they are."""

_STOPPED_STATES = "Tt"  # proc(5): stopped by a signal, or by a debugger


@dataclass(frozen=True)
class Pulse:
    """What is known of one rank that still runs.

    Attributes:
        rank: global rank.
        phase: its phase; START where it has written no heartbeat yet.
        step: optimizer steps done.
        moved_at: when phase or step last changed (its start, where there is no heartbeat), in time.monotonic().
        beat_at: when it last wrote a heartbeat, in time.monotonic().
        state: letter of its process state in /proc, "" where unknown.
    """

    rank: int
    phase: int
    step: int
    moved_at: float
    beat_at: float
    state: str = ""


@dataclass(frozen=True)
class Stall:
    """A hang: the rank that most likely caused it, and the line that says so."""

    rank: int
    message: str


def limit(phase: int, watchdog_seconds: float) -> float:
    """Seconds that a rank may stay in a phase without a step."""
    return watchdog_seconds * (PATIENCE if phase in PATIENT_PHASES else 1)


def stall(pulses: Sequence[Pulse], now: float, watchdog_seconds: float) -> Stall | None:
    """The hang of this gang, or None while it moves.

    A rank over its limit is excused while another one, within its own limit, does what all wait for. In a synchronous
    gang all ranks stop when one does, so the rank named is not the one that came over its limit first but the one
    whose process is stopped, else the one that is the furthest behind, else the one whose last beat is the oldest.
    """
    late = {pulse.rank for pulse in pulses if now - pulse.moved_at > limit(pulse.phase, watchdog_seconds)}
    working = [pulse for pulse in pulses if pulse.rank not in late and pulse.phase in LONELY_PHASES]
    if not late or working:
        return None
    stopped_ones = [pulse for pulse in pulses if _is_stopped(pulse)]
    culprit = min(stopped_ones or [pulse for pulse in pulses if pulse.rank in late], key=_behind)
    stopped = ", its process is stopped" if _is_stopped(culprit) else ""
    where = f"phase {phase_name(culprit.phase)}, step {culprit.step}"
    return Stall(
        culprit.rank,
        f"rank {culprit.rank} has not moved for {now - culprit.moved_at:.0f} s ({where}{stopped}); "
        f"the limit is {limit(culprit.phase, watchdog_seconds):g} s",
    )


def _is_stopped(pulse: Pulse) -> bool:
    return bool(pulse.state) and pulse.state in _STOPPED_STATES


def _behind(pulse: Pulse) -> tuple[int, float, int]:
    return pulse.step, pulse.beat_at, pulse.rank
