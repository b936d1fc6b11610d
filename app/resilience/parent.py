"""Ending with the parent, so that a killed launcher leaves no rank behind."""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

ENV_LAUNCHER = "RESNET_LAUNCHER_PID"
"""Environment variable: the launcher's process id, for those that must end with it."""


def die_with_parent(signal_number: int, parent_pid: int) -> None:
    """Asks the kernel to send this process `signal_number` when its parent ends; at once if it has ended already.

    The kernel watches the THREAD that started this process (prctl(2)): a parent starts its children from a thread
    that lives as long as itself. Outside Linux only the check of this moment is made.

    Args:
        signal_number: what this process gets, SIGKILL in a rank and SIGTERM in a launcher.
        parent_pid: who started this process, as it knew itself; another parent by now means that it is gone.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal_number))
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal_number)
