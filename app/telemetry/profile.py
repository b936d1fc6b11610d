"""`--profiler True`: what the device and the host did in ten steps of rank 0."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from app.data.errors import unwritable
from app.resilience.exit_codes import ExitCode, TrainingError

SKIPPED, TRACED = 10, 10
"""Steps before the trace, while caches and allocators settle, and steps in it."""


class Tracer:
    """Traces steps SKIPPED to SKIPPED + TRACED of this process into one file for chrome://tracing or Perfetto.

    Args:
        directory: where the file goes; made if it is not there.
        device: torch device type; its own activity is traced besides the CPU's where torch.profiler knows it.

    Raises:
        TrainingError: 64, the directory can't be written.
    """

    def __init__(self, directory: str, device: str) -> None:
        self._directory = Path(directory)
        _require_writable(self._directory)
        activities = {ProfilerActivity.CPU, getattr(ProfilerActivity, device.upper(), ProfilerActivity.CPU)}
        self.path: Path | None = None
        self._profile = profile(
            activities=list(activities), on_trace_ready=self._write,
            schedule=schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=TRACED, repeat=1),
        )  # fmt: skip
        self._profile.start()

    def step(self) -> None:
        """One optimizer step is done."""
        self._profile.step()

    def stop(self) -> str:
        """Ends the trace, which a shorter run has as far as it came; a line that says where it is, or that it isn't."""
        self._profile.stop()
        if self.path is None:
            return f"no profile: the run ended before step {SKIPPED}"
        if not self.path.is_file():  # torch's writer says why on stderr, and raises nothing
            return f"no profile: {self.path} could not be written"
        return f"profile written to {self.path}"

    def _write(self, traced: torch.profiler.profile) -> None:
        self.path = self._directory / f"trace-step-{traced.step_num}.json"
        traced.export_chrome_trace(str(self.path))


def _require_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        why = unwritable(directory, error, "name a folder that can be").message
        raise TrainingError(ExitCode.BAD_OPTION, f"--profiler_dir: {why}") from None
