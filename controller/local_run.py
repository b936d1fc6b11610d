"""`resnetctl run`: one experiment on this machine, without a cluster."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from rich.console import Console

from app.config import TrainConfig, plan
from app.data.datasets import DATASETS
from app.launcher import cpus
from app.resilience.exit_codes import ExitCode
from controller.api import Experiment, SpecError, Status, load_file, train_config
from controller.display import Display, Facts, display_for, duration, percent
from controller.local import LocalError
from controller.local.loop import Loop, Renderer, Stop
from controller.local.machine import Machine
from controller.local.process import Waker, end_leftovers
from controller.local.rundir import RunDirectory
from controller.local.template import base_environment, own_devices
from controller.render import default_image, render_job
from controller.report import write_report
from controller.targets import DEFAULT

_LOG_LINES = 8


def run_command(args: argparse.Namespace) -> int:
    """Runs the experiment of `args.file` below `args.workdir`; returns the exit code, having said why."""
    try:
        experiment = load_file(args.file)
    except SpecError as error:
        print(error, file=sys.stderr)
        return error.code
    return run_experiment(experiment, Path(args.workdir), display_for(Console(highlight=False)))


def run_experiment(experiment: Experiment, workdir: Path, display: Display, render: Renderer | None = None) -> int:
    """Runs an experiment until it ends or is stopped; its files lie in `workdir`/<name>.

    Args:
        experiment: as loaded; its namespace, uid and status are the run directory's.
        workdir: made where it is absent.
        display: where it is shown.
        render: makes an attempt's PyTorchJob; absent: `controller.render`.

    Returns:
        0 succeeded; 1 to 127 failed, with the training's own exit code where it is one of these; 130 and 143 stopped
        by SIGINT and SIGTERM.
    """
    # This machine plays training-operator, whatever kind of job a cluster would be given.
    experiment = experiment.model_copy(update={"spec": experiment.spec.model_copy(update={"target": DEFAULT})})
    run = RunDirectory(workdir / experiment.metadata.name)
    try:
        _check_here(experiment)
        with run.held():
            return _held(experiment, run, display, render or _render)
    except LocalError as error:
        print(f"resnetctl: {error.message}", file=sys.stderr)
        return error.code
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        print(
            f"resnetctl: {run.path}: {what}{error.strerror}; nothing runs any more: "
            "once that is mended, the same command goes on",
            file=sys.stderr,
        )
        return 1
    finally:
        display.close()


def _held(wanted: Experiment, run: RunDirectory, display: Display, render: Renderer) -> int:
    began = time.time()
    experiment, before = run.claim(wanted)
    if experiment.status.phase == "Succeeded":
        return _already_done(experiment, run, display)
    waker = Waker()
    spec = experiment.spec
    devices = own_devices(os.environ, spec.accelerator.type, spec.devices_per_node, spec.nodes)
    machine = Machine(run, _fixed(experiment, run), _base(experiment), devices, waker)
    machine.check(render(experiment, experiment.status.attempt + 1, None))
    stop = Stop(waker)
    with stop.listening():
        _tidy(run, display)
        display.block(f"resnetctl run: {experiment.metadata.name}", _plan_facts(experiment, run))
        if before is not None:
            experiment, line = _again(experiment)
            display.note(line)
        run.save(experiment)
        loop = Loop(experiment, run=run, machine=machine, render=render, display=display, stop=stop)
        try:
            loop.run(waker)
        finally:
            machine.close()
            display.close()
            run.collect(experiment.metadata.name)
            write_report(run.report, loop.experiment, run.events)
    return _say_end(loop, run, display, stop.signal, time.time() - began)


def _check_here(experiment: Experiment) -> None:
    """What only this machine can tell."""
    spec = experiment.spec
    if DATASETS[spec.dataset.name].needs_path and not Path(spec.dataset.path or "").is_dir():
        raise LocalError(
            f"spec.dataset.path: {spec.dataset.path} is no directory on this machine: "
            "name the one that holds train/ and val/",
            ExitCode.DATA_MISSING,
        )
    if spec.suspend:
        raise LocalError("spec.suspend is true, so there is nothing to run: set it to false", ExitCode.BAD_OPTION)
    if spec.queue_name:
        raise LocalError(
            "spec.queueName: there is no queue on this machine: leave it out, or run this in a cluster",
            ExitCode.BAD_OPTION,
        )


def _tidy(run: RunDirectory, display: Display) -> None:
    """Ends and removes what an earlier resnetctl left that was killed: two attempts never live at a time."""
    records = run.recorded_pods()
    marks = [record.mark for record in records if record.mark is not None]
    if any(mark.alive() for mark in marks):
        display.note("an earlier run is still ending: waiting for it", warning=True)
    end_leftovers(marks, max((record.grace_seconds for record in records), default=0.0))
    for record in records:
        shutil.rmtree(record.scratch, ignore_errors=True)
    shutil.rmtree(run.pods, ignore_errors=True)
    run.record_pods([])


def _again(experiment: Experiment) -> tuple[Experiment, str]:
    """An experiment that was begun before, ready to go on, and a line that says so."""
    status = experiment.status
    where = "from the beginning" if status.last_checkpoint is None else f"from step {status.last_checkpoint}"
    if status.phase != "Failed":
        return experiment, f"going on {where}"
    # Only a person starts a failed experiment again: with new patience, but the numbers and the past it had.
    kept = {"attempt", "history", "restarts", "last_checkpoint", "epoch", "epochs", "step", "top1", "best_top1"}
    fresh = Status.model_validate(status.model_dump(include=kept))
    reason = status.last_verdict.reason if status.last_verdict else "for an unknown reason"
    return experiment.model_copy(update={"status": fresh}), f"the last run failed ({reason}): trying again {where}"


def _fixed(experiment: Experiment, run: RunDirectory) -> dict[str, Path]:
    """Mount path -> path here, for what outlives the pods."""
    fixed = {experiment.spec.checkpoint.path.rstrip("/"): run.checkpoints.absolute()}
    if experiment.spec.dataset.path is not None:
        fixed[experiment.spec.dataset.path.rstrip("/")] = Path(experiment.spec.dataset.path)
    return fixed


def _base(experiment: Experiment) -> dict[str, str]:
    base = base_environment(os.environ, os.getpid())
    # A launcher divides the CPUs that its pod has; here the pods share one machine's.
    threads = max(1, cpus.usable().count // experiment.spec.world_size)
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)), **base}


def _render(experiment: Experiment, attempt: int, avoid_node: str | None) -> dict[str, Any]:
    return render_job(experiment, attempt, training_image=default_image(), avoid_node=avoid_node)


def _plan_facts(experiment: Experiment, run: RunDirectory) -> Facts:
    config = train_config(experiment)
    facts = plan(config)
    warmup = f"warm-up {config.warmup} epochs" if config.warmup else "no warm-up"
    return [
        ("model", f"{config.model} at {config.size} px, {'autocast' if config.autocast else 'float32'}"),
        ("data set", _dataset_words(config, experiment)),
        ("devices", f"{config.nnodes}x{config.nproc_per_node} {config.device}: {_ranks(config)}, {facts['backend']}"),
        ("global batch", f"{config.global_batch} images"),
        ("learning rate", f"{config.learning_rate:g} ({facts['optimizer']}, {warmup})"),
        ("epochs", str(config.epochs)),
        ("writes to", f"{run.path}/"),
        ("stop, resume", "Ctrl-C once checkpoints and stops; the same command resumes"),
    ]


def _dataset_words(config: TrainConfig, experiment: Experiment) -> str:
    if config.dataset == "synthetic":
        return "synthetic (random images)"
    if experiment.spec.dataset.path is None:
        return f"{config.dataset} (comes with this project)"
    return f"{config.dataset} in {config.dataset_path}"


def _ranks(config: TrainConfig) -> str:
    return "1 rank" if config.world_size == 1 else f"{config.world_size} ranks"


def _already_done(experiment: Experiment, run: RunDirectory, display: Display) -> int:
    if not run.report.is_file():  # the disk was full at the end, or somebody removed it
        run.collect(experiment.metadata.name)
        write_report(run.report, experiment, run.events)
    display.block(f"{experiment.metadata.name} has already succeeded", _result_facts(experiment, run))
    display.note(f"to start afresh, give another --workdir or remove {run.path}")
    return ExitCode.DONE


def _say_end(loop: Loop, run: RunDirectory, display: Display, signal_number: int, took: float) -> int:
    """Prints how it ended and returns the exit code."""
    experiment, status, newest = loop.experiment, loop.experiment.status, loop.newest
    if status.phase == "Succeeded":
        facts = [("time", f"{duration(took)} ({took:.1f} s)"), *_result_facts(experiment, run)]
        display.block(f"{experiment.metadata.name}: Succeeded", facts)
        if not run.model.is_file() and newest is not None and newest.export_error:
            display.note(f"no model.onnx: {newest.export_error}", warning=True)
        return ExitCode.DONE
    if status.phase == "Suspended":
        step = newest.last_checkpoint if newest is not None else status.last_checkpoint
        total = f" of {newest.steps}" if newest is not None and newest.steps else ""
        at = "before its first checkpoint" if step is None else f"at step {step}{total}"
        display.block(f"{experiment.metadata.name}: stopped {at}; the same command resumes", _paths(run))
        return 128 + signal_number
    verdict = status.last_verdict
    code = verdict.exit_code if verdict is not None else None
    facts = [("reason", verdict.reason if verdict else "unknown")]
    if code is not None:
        facts.append(("exit code", str(code)))
    facts += [("message", (verdict and verdict.message) or status.message or "none"), *_attempts(status)]
    display.block(f"{experiment.metadata.name}: Failed", [*facts, *_paths(run)])
    log = run.logs / f"{verdict.pod}.log" if verdict is not None and verdict.pod else None
    if log is not None and log.is_file():
        display.block(f"the end of {log}", [("", line) for line in _tail(log)])
    return code if code is not None and 0 < code < 128 else 1


def _result_facts(experiment: Experiment, run: RunDirectory) -> list[tuple[str, str]]:
    status = experiment.status
    facts = []
    if status.top1 is not None:
        best = f" (best {percent(status.best_top1)})" if status.best_top1 is not None else ""
        facts.append(("top-1", f"{percent(status.top1)}{best}"))
    if status.epochs:
        facts.append(("epochs", f"{status.epoch}/{status.epochs}, {status.step} steps"))
    return [*facts, *_attempts(status), *_paths(run)]


def _attempts(status: Status) -> list[tuple[str, str]]:
    return [("attempts", f"{status.attempt} ({status.restarts} counted as restarts)")]


def _paths(run: RunDirectory) -> list[tuple[str, str]]:
    """Where everything is, of what there is."""
    named = (
        ("model", run.model),
        ("report", run.report),
        ("events", run.events),
        ("metrics", run.metrics),
        ("logs", run.logs),
        ("checkpoints", run.checkpoints),
    )
    return [(label, str(path)) for label, path in named if path.exists()]


def _tail(log: Path) -> list[str]:
    with open(log, errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=_LOG_LINES)]
