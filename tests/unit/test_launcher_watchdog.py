"""Who is found to hang, and who is not."""

from __future__ import annotations

import pytest

from app.launcher.watchdog import Pulse, limit, stall
from app.resilience.heartbeat import Phase

NOW = 10_000.0


def pulse(
    rank: int, phase: Phase, still: float, *, step: int = 5, state: str = "S", beat: float | None = None
) -> Pulse:
    """A rank that has not moved for `still` seconds and wrote its last beat `beat` seconds ago (default: then)."""
    return Pulse(rank, phase, step, NOW - still, NOW - (still if beat is None else beat), state)


@pytest.mark.parametrize("phase", list(Phase))
def test_each_phase_has_its_limit(phase: Phase) -> None:
    factor = 3 if phase in (Phase.START, Phase.SCAN, Phase.FIRST_STEP, Phase.EXPORT) else 1
    assert limit(phase, 100) == 100 * factor
    assert stall([pulse(0, phase, 100 * factor - 1)], NOW, 100) is None
    found = stall([pulse(0, phase, 100 * factor + 1)], NOW, 100)
    assert found
    assert found.rank == 0
    assert phase.name.lower() in found.message
    assert f"for {100 * factor + 1} s" in found.message


def test_stopped_process_is_named_though_all_stand_still() -> None:
    gang = [pulse(0, Phase.TRAIN, 101), pulse(1, Phase.TRAIN, 101), pulse(2, Phase.TRAIN, 99, step=6, state="T")]
    found = stall(gang, NOW, 100)
    assert found
    assert found.rank == 2
    assert "its process is stopped" in found.message


def test_rank_that_is_behind_is_named() -> None:
    found = stall([pulse(0, Phase.TRAIN, 102, step=7), pulse(1, Phase.TRAIN, 101, step=6)], NOW, 100)
    assert found
    assert found.rank == 1


def test_oldest_beat_is_named_among_equals() -> None:
    found = stall([pulse(0, Phase.TRAIN, 101, beat=50), pulse(1, Phase.TRAIN, 101, beat=70)], NOW, 100)
    assert found
    assert found.rank == 1


@pytest.mark.parametrize("phase", [Phase.SCAN, Phase.CHECKPOINT, Phase.EXPORT])
def test_ranks_that_wait_for_one_that_works_are_excused(phase: Phase) -> None:
    waiting = [pulse(1, Phase.TRAIN, 150), pulse(2, Phase.DONE, 150)]
    assert stall([pulse(0, phase, 50), *waiting], NOW, 100) is None
    assert stall([pulse(0, phase, 301), *waiting], NOW, 100) is not None


def test_ranks_that_train_excuse_nobody() -> None:
    found = stall([pulse(0, Phase.TRAIN, 1, step=9), pulse(1, Phase.TRAIN, 101)], NOW, 100)
    assert found
    assert found.rank == 1


def test_no_running_rank_is_no_hang() -> None:
    assert stall([], NOW, 100) is None
