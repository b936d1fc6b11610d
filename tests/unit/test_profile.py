"""`--profiler True` says truly whether there is a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.resilience.exit_codes import TrainingError
from app.telemetry.profile import SKIPPED, TRACED, Tracer


def traced(directory: Path, steps: int) -> Tracer:
    tracer = Tracer(str(directory), "cpu")
    for _ in range(steps):
        tracer.step()
    return tracer


@pytest.mark.parametrize("steps", [SKIPPED + 2, SKIPPED + TRACED + 5])
def test_a_trace_is_written_whether_or_not_all_its_steps_came(tmp_path: Path, steps: int) -> None:
    line = traced(tmp_path / "profile", steps).stop()
    (trace,) = (tmp_path / "profile").iterdir()
    assert line == f"profile written to {trace}"
    assert "traceEvents" in json.loads(trace.read_text())


def test_a_run_that_ends_before_the_trace_has_none_and_says_so(tmp_path: Path) -> None:
    assert traced(tmp_path, 3).stop() == f"no profile: the run ended before step {SKIPPED}"
    assert not list(tmp_path.iterdir())


def test_a_trace_that_was_not_written_is_not_called_written(tmp_path: Path) -> None:
    tracer = traced(tmp_path / "profile", SKIPPED + 2)
    (tmp_path / "profile").rmdir()
    assert tracer.stop().startswith(f"no profile: {tmp_path}/profile/trace-step-")


def test_a_directory_that_can_not_be_written_is_one_line_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError) as caught:
        Tracer(str(tmp_path / "file" / "profile"), "cpu")
    assert caught.value.code == 64
    assert caught.value.message == (
        f"--profiler_dir: {tmp_path}/file/profile cannot be written: Not a directory; name a folder that can be"
    )
