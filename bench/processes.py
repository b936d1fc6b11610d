"""A process that is measured from outside: its CPU time and its memory."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 60.0


def cpu_seconds(pid: int) -> float:
    """Used so far by a process, in all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Measured:
    """A command that runs.

    Args:
        command: its words.
        ready: what it logs once it works; empty: it works at once.
        directory: where its log goes.

    Raises:
        RuntimeError: it does not start.
    """

    def __init__(self, command: Sequence[str], ready: str, directory: Path) -> None:
        self.log = directory / f"{time.time_ns()}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        late = time.monotonic() + _START_SECONDS
        while ready not in self.log.read_text():
            if self._process.poll() is not None or time.monotonic() > late:
                raise RuntimeError(f"{' '.join(command)} does not start: {self.log.read_text()[-2000:]}")
            time.sleep(0.01)  # the clock starts now

    def cpu_seconds(self) -> float:
        """Used so far, in all threads."""
        return cpu_seconds(self._process.pid)

    def peak_mebibytes(self) -> float:
        """The most resident memory so far."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def cpu_percent(self, seconds: float) -> float:
        """Of a core, over the next seconds."""
        before, began = self.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return 100 * (self.cpu_seconds() - before) / (time.monotonic() - began)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
