"""What a rank writes is what its launcher reads, also in the middle of a write."""

import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.heartbeat import STEP_SECONDS_BUCKETS, Beat, Heart, Phase, phase_name, read


@given(
    step=st.integers(0, 2**62),
    loss=st.floats(allow_nan=False),
    phase=st.sampled_from(Phase),
    took=st.lists(st.floats(0, 100), max_size=20),
)
def test_a_reader_sees_what_was_written(tmp_path_factory, step, loss, phase, took) -> None:
    path = tmp_path_factory.mktemp("beat") / "0"
    heart = Heart(path)
    for seconds in took:
        heart.step_took(seconds)
    heart.beat(step=step, loss=loss, phase=phase)
    seen = read(path)
    assert seen is not None
    assert (seen.step, seen.loss, seen.phase) == (step, loss, phase)
    assert sum(seen.step_seconds_buckets) == len(took)
    assert seen.step_seconds_sum == pytest.approx(sum(took))


def test_a_step_falls_into_the_first_bucket_that_holds_it(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "0")
    heart.step_took(STEP_SECONDS_BUCKETS[2])
    heart.step_took(STEP_SECONDS_BUCKETS[-1] + 1)
    assert heart.state.step_seconds_buckets[2] == 1
    assert heart.state.step_seconds_buckets[-1] == 1


def test_only_a_new_step_or_phase_counts_as_movement(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "0")
    heart.beat(step=1, phase=Phase.TRAIN)
    moved = heart.state.moved_at
    heart.beat(loss=0.5)
    assert heart.state.moved_at == moved
    assert heart.state.beat_at >= moved
    heart.beat(step=2)
    assert heart.state.moved_at > moved


def test_the_time_of_the_first_step_is_kept(tmp_path: Path) -> None:
    heart = Heart(tmp_path / "0")
    assert math.isnan(heart.state.first_step_at)
    heart.beat(step=501, first_steps=1)
    first = heart.state.first_step_at
    assert first == heart.state.updated_at
    heart.beat(step=502, first_steps=2)
    assert heart.state.first_step_at == first


def test_a_file_in_the_middle_of_a_write_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "0"
    heart = Heart(path)
    heart.beat(step=5)
    torn = bytearray(path.read_bytes())
    torn[:8] = struct.pack("<Q", 7)
    path.write_bytes(bytes(torn))
    assert read(path) is None


@pytest.mark.parametrize("content", [None, b"", b"short", bytes(4096)])
def test_no_beat_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "0"
    if content is not None:
        path.write_bytes(content)
    assert read(path) is None


def test_the_words_of_the_phases_are_the_contract() -> None:
    words = ["start", "scan", "first_step", "train", "validate", "checkpoint", "export", "done"]
    assert [phase_name(phase) for phase in Phase] == words
    assert Beat().phase == Phase.START
