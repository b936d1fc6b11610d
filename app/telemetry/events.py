"""events.jsonl: what happened in a start, one JSON object a line."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events to a file; a file that can't be written never ends the training.

    Kinds and their values: start {world_size, global_batch, parent}, train {loss, learning_rate, images_per_second,
    data_wait_share}, validate {top1, top5, loss, images, confused: [[class, taken for, how
    often, images of the class], …]}, checkpoint {seconds, bytes, path}, stop {code, message},
    export {path, max_difference or error}, end {top1, best_top1}.

    Args:
        path: the file; its folder exists.
        attempt: put into every line.

    Attributes:
        failures: events that were not written.
        error: why the newest one was not, "" if it was.
    """

    def __init__(self, path: Path, *, attempt: int) -> None:
        self._path = path
        self._attempt = attempt
        self._fd: int | None = None
        self.failures = 0
        self.error = ""

    def append(self, kind: str, *, epoch: int, step: int, **values: Any) -> None:
        """Writes one line; the operating system has it when this returns.

        Args:
            kind: what happened.
            epoch: the epoch in progress, from 1.
            step: optimizer steps done.
            values: JSON values; non-finite numbers become null.
        """
        event = {"time": time.time(), "kind": kind, "attempt": self._attempt, "epoch": epoch, "step": step, **values}
        data = json.dumps(finite(event), allow_nan=False).encode() + b"\n"
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                if _ends_within_a_line(self._fd):
                    data = b"\n" + data
            while data:
                data = data[os.write(self._fd, data) :]
            self.error = ""
        except OSError as error:
            self.failures += 1
            self.error = f"{self._path}: {error.strerror}"
            self.close()

    def close(self) -> None:
        """Closes the file; a later event opens it again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            try:
                os.close(fd)
            except OSError as error:  # NFS reports the failure of an earlier write here
                self.error = f"{self._path}: {error.strerror}"


def read_events(path: Path) -> list[dict[str, Any]]:
    """All whole events of a file, in order; none where it is absent. What a crash left half written is skipped."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    events = []
    for text in raw.split(b"\n"):
        try:
            event = json.loads(text)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    return events


def _ends_within_a_line(fd: int) -> bool:
    """Whether the file ends in the middle of a line, by a writer that died."""
    size = os.fstat(fd).st_size
    return size > 0 and os.pread(fd, 1, size - 1) != b"\n"


def finite(value: Any) -> Any:
    """A JSON value with non-finite numbers, at any depth, as None."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
