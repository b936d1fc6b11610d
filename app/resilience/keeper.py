"""What is kept of a run: its lineage, checkpoints and events. Rank 0 has one, the other ranks have none."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config import TrainConfig
from app.resilience import checkpoint, divergence, fit
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.heartbeat import Heart
from app.resilience.identity import Identity, recorded_weights
from app.resilience.lineage import Lineage, volume_errors
from app.telemetry.events import EventLog
from app.weights import Weights, fingerprint, read

FAILURES_LIMIT = 5
"""So many checkpoints in a row that can't be written end the run: on a sick mount a new pod may help, and until then
every hour of training is one more to lose."""


class Keeper:
    """The checkpoint directory as rank 0 uses it.

    Args:
        config: the run.
        heart: told of every checkpoint.
        say: prints one line of log.

    Attributes:
        lineage: of this start.
        foreign: what `--resume PATH` names, where that is a file of another program.

    Raises:
        TrainingError: the directory can't be used (whose it is, or why), see `Lineage.open`; `--resume` or
            `--pretrained` names a file that can't be.
    """

    def __init__(self, config: TrainConfig, heart: Heart, say: Callable[[str], None]) -> None:
        attempt = int(os.environ.get("RESNET_ATTEMPT") or 0)
        self._config, self._heart, self._say = config, heart, say
        self._epoch_of: dict[int, int] = {}  # step of a checkpoint -> its epoch, from 1
        self._untidy = ""
        self._failures = 0  # of the writer, that were told
        self._ending: TrainingError | None = None
        self.foreign: Weights | None = None
        if os.path.isfile(config.resumes_from):
            self.foreign = read(Path(config.resumes_from), trust_checkpoint=config.trust_checkpoint)
        identity = Identity.of(config, os.environ.get("RESNET_EXPERIMENT_UID", ""), _pretrained(config))
        self.lineage = Lineage.open(
            Path(config.checkpoints), identity, attempt=attempt, resume="none" if self.foreign else config.resume,
            adopt=config.adopt, pod=os.environ.get("RESNET_POD", ""),
        )  # fmt: skip
        for line in self.lineage.warnings:
            say(f"train: {line}")
        if not self.lineage.finished:
            self._writer = self.lineage.writer(keep=config.keep)
            self._events = EventLog(self.lineage.directory / "events.jsonl", attempt=attempt)

    def load(
        self, classes: Sequence[str], surroundings: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tensors, state) of the checkpoint to go on from; None: begin at step 0. Says what has changed since.

        Args:
            classes: of the data set, in their order.
            surroundings: of this run, see `fit.surroundings`.

        Raises:
            TrainingError: 144 it can't be read, 64 or 65 it is of another network or of other classes than these.
        """
        if self.lineage.parent is None:
            return None
        self._say(f"train: resuming from {self.lineage.parent}")
        with volume_errors(f"reading {self.lineage.parent}"):
            tensors, state = checkpoint.load(self.lineage.parent)
        fit.require_fit(self.lineage.parent, state, self._config, classes)
        for line in fit.changes(self.lineage.parent, state, surroundings):
            self._say(f"train: {line}")
        return tensors, state

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._writer.busy

    def save(self, epoch: int, step: int, tensors: Mapping[str, Any], state: dict[str, Any], best_step: int) -> None:
        """Copies the state now and writes it beside the training; the step of the best top-1 is never pruned.

        Args:
            epoch: from 1.
            step: optimizer steps done.
            tensors: the network's, by their names in a checkpoint.
            state: everything else to go on from; tensors in it are copied too.
            best_step: step of the best checkpoint so far, -1 for none.
        """
        self._epoch_of[step] = epoch
        self._writer.save(step, tensors, state, best=best_step if best_step >= 0 else None)

    def take_news(self) -> None:
        """Tells heartbeat and events of what was committed, or failed, since the last call.

        Raises:
            TrainingError: 140, a newer gang has taken over this directory.
        """
        for info in self._writer.news():
            self._heart.beat(
                checkpoint_step=info.step, checkpoint_time=info.time, checkpoint_seconds=info.seconds,
                checkpoint_bytes=info.bytes,
            )  # fmt: skip
            self.event(
                "checkpoint",
                self._epoch_of[info.step],
                info.step,
                seconds=info.seconds,
                bytes=info.bytes,
                path=str(info.path),
            )
        fresh = self._writer.failures - self._failures
        if fresh:
            self._failures += fresh
            self._heart.beat(checkpoint_failures=self._heart.state.checkpoint_failures + fresh)
            row = f"{self._writer.failures_in_row} of at most {FAILURES_LIMIT} in a row"
            self._say(f"train: checkpoint failed ({row}), training goes on: {self._writer.error}")
        if self._writer.tidy_error != self._untidy:
            self._untidy = self._writer.tidy_error
            self._say(f"train: old checkpoints could not be removed: {self._untidy}")

    @property
    def ending(self) -> TrainingError | None:
        """Why the run has to end for its checkpoints' sake, if it has: 76 weights are not finite, 144 none is kept.

        Once said it stands: the other ranks have heard that there is a reason.
        """
        if self._ending is None and self._writer.unsound:
            self._ending = self._lost(self._writer.unsound)
        if self._ending is None and self._writer.failures_in_row >= FAILURES_LIMIT:
            row, newest = self._writer.failures_in_row, self._newest() or "none"
            line = f"{row} checkpoints in a row were not written, the newest there is: {newest}; {self._writer.error}"
            self._ending = TrainingError(ExitCode.VOLUME_IO, f"{line}; make room, or mend the volume")
        return self._ending

    def diverged(self, why: str) -> TrainingError:
        """The end of a lost training: 76, naming the checkpoint that is kept. Waits for one that is being written."""
        self._writer.close()
        return self._lost(why)

    def _lost(self, why: str) -> TrainingError:
        line = divergence.message(why, self._newest(), self._config.learning_rate)
        return TrainingError(ExitCode.DIVERGED, line)

    def _newest(self) -> Path | None:
        return self._writer.last.path if self._writer.last else self.lineage.parent

    def settle(self) -> Path:
        """Waits until the newest checkpoint is on disk; its path.

        Raises:
            TrainingError: 144, it could not be written; 76, its weights are not finite.
        """
        self._writer.wait()
        if self.ending:
            raise self.ending
        self._writer.wait(required=True)
        self.take_news()
        path = self._newest()
        assert path is not None, "a run settles after its first checkpoint"
        return path

    def event(self, kind: str, epoch: int, step: int, **values: Any) -> None:
        """One line into events.jsonl. `epoch` counts from 1."""
        self._events.append(kind, epoch=epoch, step=step, **values)

    def close(self) -> None:
        """Waits for the writer; raises nothing."""
        if not self.lineage.finished:
            self._writer.close()
            self._events.close()


def _pretrained(config: TrainConfig) -> str:
    """The hash of `--pretrained`; of a file that has gone, the one that the run in this directory began with."""
    if not config.pretrained:
        return ""
    try:
        return fingerprint(Path(config.pretrained))
    except TrainingError as error:
        with volume_errors(f"--checkpoint_dir {config.checkpoints}"):
            known = recorded_weights(Path(config.checkpoints))
        if error.code != ExitCode.DATA_MISSING or not known:
            raise TrainingError(error.code, f"--pretrained {error.message}") from None
        return known
