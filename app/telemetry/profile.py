"""`--profiler True`: what the device and the host did in ten steps of rank 0."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

SKIPPED, TRACED = 10, 10
"""Steps before the trace, while caches and allocators settle, and steps in it."""


class Tracer:
    """Traces steps SKIPPED to SKIPPED + TRACED of this process into one file for chrome://tracing or Perfetto.

    Args:
        directory: where the file goes; made if it is not there.
        device: torch device type; its own activity is traced besides the CPU's where torch.profiler knows it.
    """

    def __init__(self, directory: str, device: str) -> None:
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
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

    def stop(self) -> None:
        """Ends the trace; a shorter run's is written as far as it came."""
        self._profile.stop()

    def _write(self, traced: torch.profiler.profile) -> None:
        self.path = self._directory / f"trace-step-{traced.step_num}.json"
        traced.export_chrome_trace(str(self.path))
