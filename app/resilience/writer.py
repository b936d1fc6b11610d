"""Writes checkpoints beside the training: the copy waits, the disk does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from app.resilience.checkpoint import CheckpointInfo, write
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.snapshot import Content, Snapshots


class CheckpointWriter:
    """One start's writer, owned by rank 0. At most one write is under way.

    A checkpoint that can't be written (disk full, I/O error, volume gone) is counted and the training goes on with the
    last good one in place. One that holds numbers which are not finite is not written at all: `unsound` says so, and
    nothing more is written, since the training is lost. A superseded start (`fence` raises TrainingError) gets that
    error at its next call, and so does any error that is a bug.

    Args:
        directory: the start's own directory.
        fence: raises TrainingError where a newer start owns the run; asked before each commit and each pruning.
        tidy: removes what is too old after a commit: (the commit, step of the best checkpoint or None). Its OSError
            is kept in `tidy_error`.

    Attributes:
        last: the newest checkpoint that this writer committed.
        failures: saves that failed.
        failures_in_row: of them those since the last commit.
        unsound: why a checkpoint is worth nothing, "" while all are sound.
        error: why the newest save failed, "" if it did not.
        tidy_error: why something too old could not be removed, "" if it could.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fence: Callable[[], None] | None = None,
        tidy: Callable[[CheckpointInfo, int | None], None] | None = None,
    ) -> None:
        self._directory = directory
        self._fence = fence
        self._tidy = tidy
        self._snapshots = Snapshots()
        self._thread: threading.Thread | None = None
        self._fatal: Exception | None = None
        self._news: list[CheckpointInfo] = []
        self.last: CheckpointInfo | None = None
        self.failures = 0
        self.failures_in_row = 0
        self.unsound = ""
        self.error = ""
        self.tidy_error = ""

    @property
    def busy(self) -> bool:
        """Whether a write is under way; `save` would wait for it."""
        return self._thread is not None and self._thread.is_alive()

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any], *, best: int | None = None
    ) -> None:
        """Copies everything now and writes it in a thread.

        Args:
            step: optimizer steps done.
            tensors, state: as `checkpoint.save`.
            best: step of the best checkpoint so far, which is never pruned.

        Raises:
            TrainingError: LOST_PEER, a newer start owns the run.
            TypeError, ValueError: as `Snapshots.take`.
        """
        self.wait()
        if self.unsound:
            return
        content = self._snapshots.take(tensors, state)
        self._thread = threading.Thread(
            target=self._run, args=(step, content, best), name="checkpoint-writer", daemon=True
        )
        self._thread.start()

    def news(self) -> list[CheckpointInfo]:
        """What was committed since the last call.

        Raises:
            TrainingError: LOST_PEER, a newer start owns the run.
        """
        if self._fatal:
            raise self._fatal
        count = len(self._news)  # the thread may add one meanwhile
        fresh, self._news[:count] = self._news[:count], []
        return fresh

    def wait(self, *, required: bool = False) -> CheckpointInfo | None:
        """Waits for the write under way and returns the last commit.

        Raises:
            TrainingError: LOST_PEER, a newer start owns the run; with `required`, VOLUME_IO where the newest save
                failed.
        """
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._fatal:
            raise self._fatal
        if required and self.error:
            raise TrainingError(ExitCode.VOLUME_IO, self.error)
        return self.last

    def close(self) -> None:
        """Waits for the write under way and raises nothing: for the end of a training that has its own error."""
        if self._thread:
            self._thread.join()
            self._thread = None

    def _run(self, step: int, content: Content, best: int | None) -> None:
        name = content.unsound()
        if name:
            self.unsound = f"{name} holds numbers that are not finite at step {step}, which was not written"
            return
        try:
            info = write(self._directory, step, content, fence=self._fence)
        except (OSError, MemoryError) as error:
            self.error = f"the checkpoint of step {step} was not written to {self._directory}: {error}"
            self.failures_in_row += 1
            self.failures += 1
            return
        except Exception as error:  # noqa: BLE001  handed to the training thread, which raises it
            self._fatal = error
            return
        self.error, self.failures_in_row = "", 0
        self.last = info
        self._news.append(info)
        try:
            if self._fence:
                self._fence()
            if self._tidy:
                self._tidy(info, best)
            self.tidy_error = ""
        except OSError as error:
            self.tidy_error = f"old checkpoints were not removed: {error}"
        except Exception as error:  # noqa: BLE001  handed to the training thread, which raises it
            self._fatal = error
