"""From any exception to an exit code: whose fault it was, and whether trying again can help."""

from __future__ import annotations

import errno
from collections.abc import Callable

from app.resilience.exit_codes import FULL_VOLUME, SICK_VOLUME, ExitCode, TrainingError

_PEER_WORDS = (
    "connection reset by peer", "connection closed by peer", "broken pipe", "connection refused",
    "socket timeout", "timed out waiting", "gloo", "nccl", "tccl", "remote process exited", "heartbeat timeout",
)  # fmt: skip
"""Parts of a RuntimeError's text with which collectives of torch's backends say that a peer is gone."""

_OUT_OF_MEMORY = ("out of memory", "out_of_memory", "can't allocate memory", "cannot allocate memory")
"""Parts of a RuntimeError's text with which torch and its backends say that a device (or the CPU as one) is full."""


def classify(error: BaseException, *, stepped: bool, device_failed: Callable[[BaseException], bool]) -> TrainingError:
    """The error as a TrainingError with one line.

    Args:
        error: what ended the rank.
        stepped: whether this process had done its first step: before it, the same command would fail again.
        device_failed: the accelerator's own reading of an error.
    """
    if isinstance(error, TrainingError):
        return error
    text = (str(error).strip() or repr(error)).splitlines()[0]
    if isinstance(error, OSError) and error.errno in SICK_VOLUME | FULL_VOLUME | {errno.EROFS}:
        return TrainingError(ExitCode.VOLUME_IO, text)
    if _is_among(error, _OUT_OF_MEMORY):
        less = f"give a smaller --batch_size or --image_size ({text})"
        if stepped:
            message = f"out of memory, though earlier steps fitted: has the device another user? If not, {less}"
            return TrainingError(ExitCode.UNCLASSIFIED, message)
        return TrainingError(ExitCode.BAD_OPTION, f"--batch_size does not fit into the device's memory: {less}")
    if device_failed(error):
        return TrainingError(ExitCode.DEVICE, text)
    if type(error).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError") or _is_among(
        error, _PEER_WORDS
    ):
        return TrainingError(ExitCode.LOST_PEER, text)
    code = ExitCode.UNCLASSIFIED if stepped else ExitCode.INTERNAL
    if isinstance(error, MemoryError):
        return TrainingError(code, f"out of host memory: raise the pod's limit or lower --num_workers ({text})")
    return TrainingError(code, f"{type(error).__name__}: {text}")


def _is_among(error: BaseException, words: tuple[str, ...]) -> bool:
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)
