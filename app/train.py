"""One rank of a training, from start to end.

The launcher (`python -m app.run_resnet`) starts one of these per device with the same flags. The methods of `Training`
stand in the order of a run: device, data, gang, network, state, epochs, export.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from app.command_line import parse
from app.config import ConfigError, TrainConfig
from app.launcher import cpus
from app.modules import python_command
from app.resilience import fit, outcome
from app.resilience.end import End
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.heartbeat import ENV_HEARTBEAT, Heart, Phase
from app.resilience.outcome import ENV_OUTCOME, Outcome
from app.resilience.parent import ENV_LAUNCHER, die_with_parent

try:
    import torch

    from app import begin, model, recipe
    from app.accelerators.base import Accelerator
    from app.accelerators.find import find
    from app.data.loader import Batch, Loader
    from app.data.open import open_dataset
    from app.data.samples import require_same
    from app.gang_news import GangNews
    from app.ranks import Rank
    from app.resilience import divergence
    from app.resilience.agreement import Agreement
    from app.resilience.classify import classify
    from app.resilience.keeper import Keeper
    from app.resilience.report import Report, Verdict
    from app.step import Stepper
    from app.telemetry import console
    from app.telemetry.meter import Meter
    from app.telemetry.profile import Tracer
    from app.validation import validate
except ImportError as error:
    line = f"{error}: this image lacks what the training needs: torch, and extra 'app'"
    if ENV_OUTCOME in os.environ:
        outcome.write(Path(os.environ[ENV_OUTCOME]), Outcome(ExitCode.FRAMEWORK_MISSING, line))
    else:
        print(f"train: {line}", file=sys.stderr)
    sys.exit(ExitCode.FRAMEWORK_MISSING)


SAID_BY_LAUNCHER = frozenset(
    {
        *(ExitCode.BAD_OPTION, ExitCode.BAD_DATA, ExitCode.DATA_MISSING, ExitCode.FRAMEWORK_MISSING),
        *(ExitCode.DIVERGED, ExitCode.STOPPED),
    }
)
"""Ends that come to all ranks alike: one line of their launcher says more than one of each rank."""


class Training:
    """A run as one rank sees it; `run` is the whole of it."""

    def __init__(self, config: TrainConfig, rank: Rank, heart: Heart) -> None:
        self.config, self.rank, self.heart = config, rank, heart
        self.stop = threading.Event()
        self.keeper: Keeper | None = None
        self.tracer: Tracer | None = None
        self.epoch = 0  # in progress, from 0
        self.consumed = 0  # images of this epoch that were trained on
        self.step = 0  # optimizer steps done in the whole run
        self.images = 0
        self.saved_step = -1
        self.looked_at = 0  # step of the last look at the device
        self.best_top1, self.best_step = float("-inf"), -1

    def run(self, accelerator: Accelerator) -> Outcome:
        """Trains to the end.

        Raises:
            TrainingError: an end with a code of its own (stopped, diverged, bad data …).
        """
        self.set_up(accelerator)
        finished = self.resume()
        if finished:
            return self.finish_again(finished)
        self.train()
        return self.finish()

    def set_up(self, accelerator: Accelerator) -> None:
        """Device, data, gang, network."""
        config, rank = self.config, self.rank
        self.accelerator = accelerator
        device = accelerator.claim(rank.local_rank)
        if rank.is_first:
            say(console.first_line(config, torch.__version__, accelerator.describe(), cpus.shown(cpus.usable().all)))
            if config.warmup >= config.epochs:
                say(console.only_warm_up_line(config))
        self.heart.beat(phase=Phase.SCAN, epochs=config.last_epoch)
        self.data = open_dataset(config, os.path.dirname(os.environ.get(ENV_HEARTBEAT, "")))
        self.loader = Loader(self.data, config, rank=rank.rank, pinning=accelerator.pinning())
        if rank.is_first:
            for line in console.epoch_lines(config, len(self.data.train), self.loader.steps()):
                say(line)
        self.heart.beat(phase=Phase.START)
        rank.join(config, accelerator.backend)
        require_same(rank.gather(self.data.extent))
        self.heart.beat(phase=Phase.FIRST_STEP)
        torch.manual_seed(config.seed + rank.rank)
        self.network = model.build(config.model, len(self.data.classes), config.seed)
        initial = {f"{model.NETWORK}{name}": tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.stepper = Stepper(config, self.network, accelerator, device, peers=rank.world_size > 1)
        if rank.is_first and self.stepper.lacks_loss_scale:
            say(console.no_loss_scale_line(config))
        self.stepper.warm_up(say)
        self.stepper.load_tensors(initial)
        self.agreement = Agreement(rank=rank.rank, world_size=rank.world_size)
        self.news = GangNews(rank, self.heart, self.loader.bad_files, self.data.train.name, say)
        self.meter = Meter(config.global_batch)

    def resume(self) -> str:
        """Loads the newest good checkpoint, which rank 0 reads for all. A line, where the run is already finished."""
        loaded, other, finished = None, None, ""
        if self.rank.is_first and self.config.steps_per_epoch <= 0:
            self.keeper = Keeper(self.config, self.heart, say)
            if self.keeper.lineage.finished:
                finished = self.keeper.lineage.finished_line()
            else:
                loaded = self.keeper.load(self.data.classes, self.surroundings())
        if self.rank.is_first and not loaded and not finished:
            other = self.other_training()
        loaded, other, finished = self.rank.tell((loaded, other, finished))
        if loaded:
            self.load(*loaded)
        if other:
            self.begin_with(*other)
        self.looked_at = self.step
        self.heart.beat(
            step=self.step, images=self.images, steps=self.step + self.steps_left(), gradient_scale=self.stepper.scale
        )  # fmt: skip
        if self.keeper and not finished:
            parent = self.keeper.lineage.parent
            self.event(
                "start", world_size=self.rank.world_size, global_batch=self.config.global_batch,
                parent=str(parent) if parent else None,
            )  # fmt: skip
        return str(finished)

    def load(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Sets network, optimizer, scaler and counters to those of a checkpoint."""
        self.stepper.load_tensors(tensors)
        self.stepper.load_state(state)
        self.epoch, self.consumed, self.step = state["epoch"], state["consumed"], state["step"]
        self.images, self.saved_step = state["images"], state["step"]
        self.loader.bad_files.load(state["bad_files"])
        self.stepper.interval.nonfinite_steps = state["nonfinite_steps"]
        self.best_top1, self.best_step = state["best_top1"], state["best_step"]
        self.heart.beat(
            checkpoint_step=self.step, bad_images=len(self.loader.bad_files), nonfinite_steps=state["nonfinite_steps"],
            checkpoint_failures=state["checkpoint_failures"], data_wait_seconds=state["data_wait_seconds"],
            best_top1=self.best_top1 if math.isfinite(self.best_top1) else float("nan"),
        )  # fmt: skip

    def other_training(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """Tensors and counters of the training that --pretrained or --resume names, which was not one of ours.

        Raises:
            TrainingError: it can't be read, or does not fit this run.
        """
        state: dict[str, Any] = {}
        if self.keeper and self.keeper.foreign:
            tensors, state, line = begin.foreign_training(
                self.keeper.foreign, self.config, self.network, self.data.classes, self.loader.steps()
            )
        elif self.config.pretrained:
            tensors, line = begin.pretrained(self.config, self.network, self.data.classes)
        else:
            return None
        say(f"train: {line}")
        return tensors, state

    def begin_with(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Sets the network, and what else is known, to those of another training."""
        self.stepper.load_tensors(tensors)
        self.stepper.load_optimizer(state.get("optimizer_state", {}))
        self.epoch, self.step, self.images = (state.get(name, 0) for name in ("epoch", "step", "images"))
        self.best_top1 = state.get("best_top1", self.best_top1)
        self.heart.beat(best_top1=self.best_top1 if math.isfinite(self.best_top1) else float("nan"))

    def steps_left(self) -> int:
        """Optimizer steps from here to the end."""
        if self.epoch >= self.config.last_epoch:
            return 0
        return self.loader.steps(self.consumed) + (self.config.last_epoch - self.epoch - 1) * self.loader.steps()

    def train(self) -> None:
        """Epoch after epoch: train, checkpoint, validate."""
        # From here on SIGTERM means: finish the step, checkpoint, leave with 143. Until here it ends the process.
        signal.signal(signal.SIGTERM, lambda *_: self.stop.set())
        self.next_save = time.monotonic() + 60 * self.config.checkpoint_minutes
        if self.config.profiler and self.rank.is_first:
            self.tracer = Tracer(self.config.profiler_dir, self.config.device)
        try:
            if self.keeper and self.keeper.foreign:
                self.save()  # from here on this run goes on from checkpoints of its own
            while self.epoch < self.config.last_epoch:
                self.train_epoch()
                verdict = self.agreement.now(self.report())
                self.obey(verdict)
                losing = max(verdict.nonfinite_in_row)
                if losing and self.epoch + 1 == self.config.last_epoch:
                    self.give_up(f"the loss was not finite in the last {losing} steps of the run")
                if losing and self.rank.is_first:
                    say(f"train: the loss was not finite in the last {losing} steps: no checkpoint, no validation")
                if self.config.steps_per_epoch <= 0 and not losing:
                    self.save()
                    self.validate()
                self.epoch, self.consumed = self.epoch + 1, 0
        finally:
            self.loader.close()
            if self.tracer:
                say(f"train: {self.tracer.stop()}")

    def train_epoch(self) -> None:
        """The rest of the current epoch; nothing, where it goes on from a checkpoint made before a validation."""
        self.heart.beat(phase=Phase.TRAIN, epoch=self.epoch + 1)
        steps = self.loader.steps(self.consumed)
        batches = self.loader.train_batches(self.epoch, self.consumed)
        self.meter.begin()
        for left in range(steps - 1, -1, -1):
            self.train_step(batches)
            if left == 0 or self.step % self.config.log_interval == 0:
                self.log()
            verdict = self.agreement.at(self.step, self.report)
            if verdict:
                self.obey(verdict)
            if self.keeper and time.monotonic() >= self.next_save and not self.keeper.busy:
                self.save()

    def train_step(self, batches: Iterator[Batch]) -> None:
        """One optimizer step, counted."""
        iteration = self.consumed // self.config.global_batch
        rate = recipe.learning_rate(self.config, self.epoch, iteration, self.loader.steps())
        self.stepper.set_learning_rate(rate)
        waited = self.stepper.run(batches)
        self.step += 1
        self.consumed += self.config.global_batch
        self.images += self.config.global_batch
        state = self.heart.state
        self.heart.step_took(self.meter.step(waited))
        self.heart.beat(
            phase=Phase.TRAIN, step=self.step, images=self.images, first_steps=state.first_steps + 1,
            data_wait_seconds=state.data_wait_seconds + waited, learning_rate=rate,
        )  # fmt: skip
        if self.tracer:
            self.tracer.step()
        if self.keeper:
            self.keeper.take_news()

    def log(self) -> None:
        """Reads the device once, and says how the run is doing."""
        interval = self.stepper.interval
        numbers = interval.read(self.accelerator)
        self.looked_at = self.step
        rate, wait_share = self.meter.rates()
        left = self.steps_left()
        validations = self.config.last_epoch - self.epoch if self.config.steps_per_epoch <= 0 else 0
        eta = self.meter.eta(left, validations)
        state = self.heart.state
        self.heart.beat(
            loss=numbers["loss"], nonfinite_steps=max(state.nonfinite_steps, interval.nonfinite_steps),
            busy_seconds=interval.busy_seconds, images_per_second=rate, eta_seconds=eta,
            gradient_scale=self.stepper.scale, memory_bytes=self.accelerator.memory_bytes(), steps=self.step + left,
        )  # fmt: skip
        if not self.rank.is_first:
            return
        values = {
            "loss": numbers["loss"], "learning_rate": state.learning_rate, "images_per_second": rate,
            "data_wait_share": wait_share,
        }  # fmt: skip
        where = {"epoch": self.epoch + 1, "step": self.step, "steps": self.step + left, "eta_seconds": eta}
        say(console.train_line(self.config, {**values, **where}))
        say(console.seed_line(
            epoch=self.epoch, iteration=self.step - 1, rank=self.rank.rank,
            loss=numbers["last_loss"], rank_images_per_second=rate / self.rank.world_size,
        ))  # fmt: skip
        self.event("train", **values)

    def report(self) -> Report:
        """What this rank tells the others."""
        interval = self.stepper.interval
        return Report(
            stop=self.stop.is_set(), ending=bool(self.keeper and self.keeper.ending),
            bad_files=len(self.loader.bad_files.untold), looked_at=self.looked_at,
            nonfinite_steps=interval.nonfinite_steps, nonfinite_in_row=interval.nonfinite_in_row,
            skipped_in_row=interval.skipped_in_row, gradient_scale=self.heart.state.gradient_scale,
            busy_seconds=interval.busy_seconds,
        )  # fmt: skip

    def obey(self, verdict: Verdict) -> None:
        """Does what all ranks agreed on, at the same step on all of them.

        Raises:
            TrainingError: 65 too many bad images; 76 the training is lost; 144 checkpoints can't be written; 143 after
                the checkpoint, where any rank was told to stop.
        """
        self.news.take(verdict)
        lost = divergence.diverged(verdict, self.config.log_interval)
        if lost or verdict.ending:
            self.give_up(lost)
        if verdict.stop:
            self.leave()

    def give_up(self, lost: str) -> NoReturn:
        """Ends a run that is lost, with one line on all ranks: rank 0's, which knows what is kept.

        Args:
            lost: why it is; "" where it is rank 0's checkpoints that say so.

        Raises:
            TrainingError: 76 or 144.
        """
        end = TrainingError(ExitCode.DIVERGED, divergence.message(lost, None, self.config.learning_rate))
        if self.keeper:
            end = (not lost and self.keeper.ending) or self.keeper.diverged(lost)
        raise TrainingError(*self.rank.tell((end.code, end.message)))

    def save(self) -> None:
        """A checkpoint of this very step; the copy is made now, the writing goes on beside the training.

        None is made of weights whose last loss was not finite: who goes on from them would be lost as well.
        """
        self.next_save = time.monotonic() + 60 * self.config.checkpoint_minutes
        if not self.keeper or self.saved_step == self.step:
            return
        losing = self.stepper.interval.losing()
        if losing:
            say(f"train: no checkpoint of step {self.step}: the loss was not finite in the last {losing} steps")
            return
        state = {
            "model": self.config.model, "dataset": self.config.dataset, "classes": self.data.classes,
            "options": fit.options(self.config),
            **self.surroundings(),
            "image_size": self.config.size, "eval_size": self.config.evaluation_size, "ema": self.config.ema,
            "epoch": self.epoch, "consumed": self.consumed, "step": self.step, "images": self.images,
            "bad_files": self.loader.bad_files.state(), "nonfinite_steps": self.heart.state.nonfinite_steps,
            "checkpoint_failures": self.heart.state.checkpoint_failures,
            "data_wait_seconds": self.heart.state.data_wait_seconds,
            "best_top1": self.best_top1, "best_step": self.best_step, **self.stepper.state(),
        }  # fmt: skip
        self.keeper.save(self.epoch + 1, self.step, self.stepper.tensors(), state, self.best_step)
        self.saved_step = self.step

    def surroundings(self) -> dict[str, Any]:
        """What else a checkpoint's worth depends on."""
        return fit.surroundings(self.config, len(self.data.train), self.accelerator.numerics())

    def validate(self) -> None:
        """Judges the network, or the moving average in its place, on every validation image.

        A stop during validation abandons it: the checkpoint made just before is where the next attempt goes on.
        """
        began = time.monotonic()
        self.heart.beat(phase=Phase.VALIDATE, epoch=self.epoch + 1)
        network = self.stepper.result
        self.rank.broadcast(list(network.buffers()))
        result = validate(
            network, self.stepper.predict, self.loader.validation_batches(), self.rank, abandon=self.stop.is_set,
            alive=lambda: self.heart.beat(moved_at=time.monotonic()), classes=len(self.data.classes),
        )  # fmt: skip
        if result is None:
            self.leave()
        self.meter.validated(time.monotonic() - began)
        if result.top1 > self.best_top1:
            self.best_top1, self.best_step = result.top1, self.step
        left = self.config.last_epoch - self.epoch - 1
        self.heart.beat(
            top1=result.top1, top5=result.top5, validation_loss=result.loss, best_top1=self.best_top1,
            eta_seconds=self.meter.eta(left * self.loader.steps(), left),
        )  # fmt: skip
        if self.rank.is_first:
            say(console.validation_line(self.config, self.epoch + 1, result, self.best_top1))
            names = self.data.classes
            confused = [[names[a], names[b], count, images] for a, b, count, images in result.confused]
            self.event(
                "validate", top1=result.top1, top5=result.top5, loss=result.loss, images=result.images,
                confused=confused,
            )  # fmt: skip

    def leave(self) -> NoReturn:
        """Ends a run that was told to stop.

        Raises:
            TrainingError: 143, once the checkpoint is on disk; 144 where it can't be written.
        """
        kept = "no checkpoint, because of --step"
        if self.config.steps_per_epoch <= 0:
            self.heart.beat(phase=Phase.CHECKPOINT)
            self.save()
            made = self.rank.tell(self.saved_step == self.step)
            kept = "its checkpoint is kept" if made else "no checkpoint of it, since its loss is not finite"
            if self.keeper and made:
                self.keeper.settle()
        raise TrainingError(ExitCode.STOPPED, f"stopped by SIGTERM at step {self.step}: {kept}")

    def finish(self) -> Outcome:
        """The last checkpoint on disk, the ONNX file, the end written down. Only rank 0 has work here."""
        if self.rank.world_size > 1:
            torch.distributed.destroy_process_group()
        early = f" of {self.config.epochs} (--early_stop)" if self.config.last_epoch < self.config.epochs else ""
        message = f"done after {self.epoch}{early} epochs, {self.step} steps"
        exported, why = None, None
        if self.keeper:
            self.heart.beat(phase=Phase.CHECKPOINT)
            source = self.keeper.settle()
            top1 = self.heart.state.top1
            if math.isfinite(top1):  # a run that goes on after its last validation has none of its own
                message += f": top-1 {top1:.2%}"
            if self.config.export:
                self.heart.beat(phase=Phase.EXPORT)
                exported, why = self.export(source, self.keeper.lineage.directory / "model.onnx")
            self.event("end", top1=top1, best_top1=self.best_top1)
            self.keeper.lineage.finish(End(self.step, top1, self.best_top1, exported, why))
            say(f"train: {message}; {exported or 'no ONNX file: ' + (why or '--export False')}")
        self.heart.beat(phase=Phase.DONE, eta_seconds=0.0)
        return Outcome(ExitCode.DONE, message, exported=exported, export_error=why)

    def finish_again(self, finished: str) -> Outcome:
        """What the start that came to the end has written down: nobody may have heard of it, its node was gone."""
        self.heart.beat(phase=Phase.DONE, eta_seconds=0.0)
        end = self.keeper.lineage.finished if self.keeper else None
        if not end:
            return Outcome(ExitCode.DONE, finished)
        say(f"train: {finished}")
        self.heart.beat(
            epoch=self.config.last_epoch, step=end.step, steps=end.step, checkpoint_step=end.step, top1=end.top1,
            best_top1=end.best_top1,
        )  # fmt: skip
        return Outcome(ExitCode.DONE, finished, exported=end.exported, export_error=end.export_error)

    def export(self, source: Path, target: Path) -> tuple[str | None, str | None]:
        """(path, None) of the checked ONNX file, or (None, why): a failed export never fails a finished training."""
        command = [*python_command("app.export"), str(source), str(target), "--dataset_path", self.config.dataset_path]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=2 * self.config.watchdog_seconds
            )
            made = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
        except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
            why = str(error)
        else:
            if made:
                self.event("export", **made)
                return str(target), None
            why = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        self.event("export", error=why)
        return None, why

    def event(self, kind: str, **values: Any) -> None:
        """One line into events.jsonl, on rank 0."""
        if self.keeper and not self.keeper.lineage.finished:
            self.keeper.event(kind, min(self.epoch + 1, self.config.last_epoch), self.step, **values)


def say(line: str) -> None:
    """One whole line of log: in one write, since other ranks may write into the same file and parsers read lines."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(argv: list[str]) -> int:
    """One rank's process: signals first, then the run, then how it ended for the launcher to read."""
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's to handle
    if ENV_LAUNCHER in os.environ:
        die_with_parent(signal.SIGKILL, int(os.environ[ENV_LAUNCHER]))
    try:
        heart = Heart(Path(os.environ[ENV_HEARTBEAT]) if ENV_HEARTBEAT in os.environ else None)
    except OSError as error:
        print(
            f"train: {os.environ[ENV_HEARTBEAT]}: {error.strerror}: the heartbeat needs a page there", file=sys.stderr
        )
        return ExitCode.VOLUME_IO
    accelerator: Accelerator | None = None
    training: Training | None = None
    try:
        config = parse(argv, os.environ, "python -m app.train")
        accelerator = find(config.device)
        training = Training(config, Rank.from_environment(os.environ), heart)
        end = training.run(accelerator)
    except ConfigError as error:
        end = Outcome(ExitCode.BAD_OPTION, str(error))
    except Exception as error:  # noqa: BLE001 - every end becomes a code and one line
        stepped, device_failed = heart.state.first_steps > 0, accelerator.failed if accelerator else (lambda _: False)
        known = classify(error, stepped=stepped, device_failed=device_failed)
        if known is not error and known.code in (ExitCode.INTERNAL, ExitCode.UNCLASSIFIED):
            traceback.print_exc()  # nobody foresaw it: whoever mends it needs the place
        end = Outcome(known.code, known.message, known.reason, exception=type(error).__name__)
    if end.code and not (ENV_OUTCOME in os.environ and end.code in SAID_BY_LAUNCHER):
        print(
            f"train: rank {os.environ.get('RANK', '0')}: {end.message} (exit {end.code})", file=sys.stderr, flush=True
        )
    if end.code and training:
        training.event("stop", code=int(end.code), message=end.message)
    if training and training.keeper:
        training.keeper.close()
    if ENV_OUTCOME in os.environ:
        outcome.write(Path(os.environ[ENV_OUTCOME]), end)
    return end.code


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    # A failed collective leaves threads behind that would hold up an ordinary exit.
    os._exit(status)
