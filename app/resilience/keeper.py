"""What is kept of a run: its lineage, checkpoints and events. Rank 0 has one, the other ranks have none."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.config import TrainConfig
from app.resilience import checkpoint
from app.resilience.fit import require_fit
from app.resilience.heartbeat import Heart
from app.resilience.identity import Identity
from app.resilience.lineage import Lineage, volume_errors
from app.telemetry.events import EventLog


class Keeper:
    """The checkpoint directory as rank 0 uses it.

    Args:
        config: the run.
        heart: told of every checkpoint.
        say: prints one line of log.

    Raises:
        TrainingError: the directory can't be used (whose it is, or why), see `Lineage.open`.
    """

    def __init__(self, config: TrainConfig, heart: Heart, say: Callable[[str], None]) -> None:
        attempt = int(os.environ.get("RESNET_ATTEMPT") or 0)
        self._config, self._heart, self._say = config, heart, say
        self._epoch_of: dict[int, int] = {}  # step of a checkpoint -> its epoch, from 1
        self._untidy = ""
        self.lineage = Lineage.open(
            Path(config.checkpoints), Identity.of(config, os.environ.get("RESNET_EXPERIMENT_UID", "")),
            attempt=attempt, resume=config.resume, adopt=config.adopt, pod=os.environ.get("RESNET_POD", ""),
        )  # fmt: skip
        for line in self.lineage.warnings:
            say(f"train: {line}")
        self.finished = self.lineage.finished is not None
        if not self.finished:
            self._writer = self.lineage.writer(keep=config.keep)
            self._events = EventLog(self.lineage.directory / "events.jsonl", attempt=attempt)

    def load(self, classes: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tensors, state) of the checkpoint to go on from; None: begin at step 0.

        Raises:
            TrainingError: 144 it can't be read, 64 or 65 it is of another network or of other classes than these.
        """
        if self.lineage.parent is None:
            return None
        self._say(f"train: resuming from {self.lineage.parent}")
        with volume_errors(f"reading {self.lineage.parent}"):
            tensors, state = checkpoint.load(self.lineage.parent)
        require_fit(self.lineage.parent, state, self._config, classes)
        return tensors, state

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is still being written."""
        return self._writer.busy

    def save(self, epoch: int, step: int, network: Mapping[str, Any], state: dict[str, Any], best_step: int) -> None:
        """Copies the state now and writes it beside the training; the step of the best top-1 is never pruned.

        Args:
            epoch: from 1.
            step: optimizer steps done.
            network: state dict of the unwrapped network.
            state: everything else to go on from; tensors in it are copied too.
            best_step: step of the best checkpoint so far, -1 for none.
        """
        tensors = {f"model.{name}": tensor for name, tensor in network.items()}
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
        if self._writer.failures != self._heart.state.checkpoint_failures:
            self._heart.beat(checkpoint_failures=self._writer.failures)
            self._say(f"train: checkpoint failed, training goes on: {self._writer.error}")
        if self._writer.tidy_error != self._untidy:
            self._untidy = self._writer.tidy_error
            self._say(f"train: old checkpoints could not be removed: {self._untidy}")

    def settle(self) -> Path:
        """Waits until the newest checkpoint is on disk; its path.

        Raises:
            TrainingError: 144, it could not be written.
        """
        last = self._writer.wait(required=True)
        self.take_news()
        path = last.path if last else self.lineage.parent
        assert path is not None, "a run settles after its first checkpoint"
        return path

    def event(self, kind: str, epoch: int, step: int, **values: Any) -> None:
        """One line into events.jsonl. `epoch` counts from 1."""
        self._events.append(kind, epoch=epoch, step=step, **values)

    def finish(self, step: int, top1: float, best_top1: float, exported: str | None) -> None:
        """Marks the run as done: nothing resumes from here."""
        known = top1 if math.isfinite(top1) else None
        self.lineage.finish(step=step, top1=known, best_top1=best_top1, exported=exported)

    def close(self) -> None:
        """Waits for the writer; raises nothing."""
        if not self.finished:
            self._writer.close()
            self._events.close()
