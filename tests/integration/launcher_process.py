"""The real launcher over fake ranks, with limits that fit a test: `python launcher_process.py FLAGS`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from app.launcher import cpus
from app.launcher.command import run
from app.launcher.launcher import Times
from app.launcher.signals import Signals

if __name__ == "__main__":
    if "FAKE_CPUS" in os.environ:  # a machine of one NUMA node of which these are this pod's own
        cores = tuple(frozenset({cpu}) for cpu in sorted(cpus.parsed(os.environ["FAKE_CPUS"])))
        cpus.usable = lambda: cpus.Cpus(cores, (frozenset().union(*cores),), exclusive=True)  # type: ignore[assignment]
    signals = Signals()
    signals.install()
    command = [sys.executable, str(Path(__file__).with_name("launcher_rank.py"))]
    sys.exit(run(sys.argv[1:], signals, command, Times(others=1.0, stacks=0.5, reserve=5.0)))
