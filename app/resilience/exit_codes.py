"""Exit codes: the contract between a rank, its launcher and the controller.

1-127 are permanent (the same command would fail again), 128 and above are retryable, as training-operator's
restartPolicy ExitCode reads them. A process killed by signal n counts as 128 + n.
"""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    """Every code that the training ends with on its own account."""

    DONE = 0
    BAD_OPTION = 64
    BAD_DATA = 65
    DATA_MISSING = 66
    FRAMEWORK_MISSING = 69
    INTERNAL = 70
    DIVERGED = 76
    KILLED = 137
    LOST_PEER = 140
    DEVICE = 141
    HUNG = 142
    STOPPED = 143
    VOLUME_IO = 144
    UNCLASSIFIED = 145


REASONS: dict[int, str] = {
    ExitCode.DONE: "Done",
    ExitCode.BAD_OPTION: "BadOption",
    ExitCode.BAD_DATA: "BadData",
    ExitCode.DATA_MISSING: "DataMissing",
    ExitCode.FRAMEWORK_MISSING: "FrameworkMissing",
    ExitCode.INTERNAL: "InternalError",
    ExitCode.DIVERGED: "Diverged",
    ExitCode.KILLED: "Killed",
    ExitCode.LOST_PEER: "LostPeer",
    ExitCode.DEVICE: "DeviceLost",
    ExitCode.HUNG: "Hung",
    ExitCode.STOPPED: "Stopped",
    ExitCode.VOLUME_IO: "VolumeIO",
    ExitCode.UNCLASSIFIED: "Unclassified",
}
"""Exit code -> the one-word reason shown in status, events and metrics."""

OOM_KILLED = "OOMKilled"
"""The reason where the kernel killed for memory, as Kubernetes says it. The code is KILLED."""

PORT_IN_USE = "PortInUse"
"""The reason where a port is taken on this node. The code is DEVICE: as a lost device, it is the node's fault."""

SICK_VOLUME = frozenset({errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH})
"""What a sick disk, NFS server or FUSE mount answers: the same call may succeed later, on this node or another."""

FULL_VOLUME = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a volume without room answers."""


class TrainingError(Exception):
    """An end of the training that has a code of its own and one clear line for a person.

    Args:
        code: what the process exits with.
        message: one line: what was wrong, where, and what would be right.
        reason: one word where it says more than the code's own.
    """

    def __init__(self, code: ExitCode, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason


def permanent(code: int) -> bool:
    """Whether the same command would only fail the same way again (1-127)."""
    return 0 < code < 128


def reason(code: int) -> str:
    """The one-word reason of an exit code, ``Signal<n>`` for a process killed by signal n."""
    if code in REASONS:
        return REASONS[code]
    return f"Signal{code - 128}" if code > 128 else f"Exit{code}"
