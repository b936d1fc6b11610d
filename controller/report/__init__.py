"""report.html: one self-contained page of a run, or of several side by side; it opens anywhere, without a network."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.config import plan
from app.telemetry.events import read_events
from controller.api import Experiment, train_config
from controller.display import duration
from controller.local.rundir import replace
from controller.report import page
from controller.report.chart import Chart, Line
from controller.report.curves import Curves, EpochRow, Point, counted, curves


def write_report(path: Path, experiment: Experiment, events: Path) -> None:
    """Writes the page of a run.

    Args:
        path: report.html.
        experiment: with its newest status.
        events: the joined events.jsonl; a missing one counts as empty.

    Raises:
        OSError: the page can't be written.
    """
    replace(path, render_report(experiment, read_events(events), time.time()).encode())


def render_report(experiment: Experiment, events: Sequence[dict[str, Any]], written_at: float) -> str:
    """The page as HTML.

    Args:
        experiment: with its newest status.
        events: of all starts, in their order.
        written_at: unix seconds.
    """
    found = curves(events)
    status = experiment.status
    return page.render(
        "report.html.j2", written_at,
        name=experiment.metadata.name,
        phase=status.phase,
        subtitle=_subtitle(experiment),
        message=_message(experiment),
        tiles=_tiles(experiment, found),
        figures=_figures(found),
        confused=[(a, b, count, page.two(100 * count / of)) for a, b, count, of in found.confused],
        epochs=[_epoch_cells(row) for row in found.epochs],
        settings=page.settings(experiment),
        attempts=_attempts(experiment, written_at),
        timeline=page.timeline(experiment, written_at),
        uid=experiment.metadata.uid or "",
    )  # fmt: skip


def _subtitle(experiment: Experiment) -> str:
    facts = plan(train_config(experiment))
    return (
        f"{facts['model']} on {facts['dataset']}, {facts['nnodes']}×{facts['nproc_per_node']} {facts['device']}, "
        f"global batch {facts['global_batch']}"
    )


def _message(experiment: Experiment) -> str:
    """What a reader must know besides the numbers; empty where there is nothing."""
    status = experiment.status
    if status.phase == "Suspended":
        return "Stopped after a checkpoint: the same command resumes."
    return "" if status.phase == "Succeeded" else status.message or ""


def _tiles(experiment: Experiment, found: Curves) -> list[tuple[str, str, str]]:
    """Label, value and remark of the numbers that are read first."""
    status = experiment.status
    tiles = []
    if status.top1 is not None:
        best = f"best {100 * status.best_top1:.2f} %" if status.best_top1 is not None else ""
        tiles.append(("Validation top-1", f"{100 * status.top1:.2f} %", best))
    losses = counted(found.train_loss)
    if losses:
        validation = counted(found.validation_loss)
        remark = f"validation {validation[-1].value:.3f}" if validation else ""
        tiles.append(("Training loss", f"{losses[-1].value:.3f}", remark))
    speed = counted(found.images_per_second)
    if speed:
        median = statistics.median(point.value for point in speed)
        tiles.append(("Images per second", page.thousands(median), "median, all ranks"))
    config = train_config(experiment)
    steps = f"{page.thousands(status.step)} steps" if status.step is not None else ""
    tiles.append(("Epochs", f"{status.epoch or 0} of {config.epochs}", steps))
    took = page.training_time(status)
    if took:
        tiles.append(("Time", took, "over all attempts"))
    tiles.append(
        ("Attempts", str(status.attempt), f"{status.restarts} counted restart{'' if status.restarts == 1 else 's'}")
    )
    return tiles


def _figures(found: Curves) -> list[page.Figure]:
    marks = [(start.step, f"attempt {start.attempt}") for start in found.starts[1:]]
    charts = [
        Chart(
            "Loss", "cross-entropy",
            [Line("training", found.train_loss), Line("validation", found.validation_loss, dots=True)],
            page.three, marks, clipped=True,
        ),
        Chart(
            "Validation top-1", "%", [Line("top-1", [_percent(p) for p in found.top1], dots=True)],
            page.two, marks, ceiling=100.0,
        ),
        Chart("Learning rate", "", [Line("learning rate", found.learning_rate)], page.significant, marks, True),
        Chart("Throughput", "img/s", [Line("all ranks", found.images_per_second)], page.thousands, marks, True),
    ]  # fmt: skip
    return [page.figure(chart) for chart in charts]


def _epoch_cells(row: EpochRow) -> list[str]:
    return [
        str(row.epoch),
        page.thousands(row.step),
        page.shown(row.train_loss, page.three),
        page.shown(row.validation_loss, page.three),
        page.shown(row.top1, lambda ratio: page.two(100 * ratio)),
        page.shown(row.learning_rate, page.significant),
        page.shown(row.images_per_second, page.thousands),
    ]


def _attempts(experiment: Experiment, now: float) -> list[list[str]]:
    """Attempt, start, end, duration, reason, counted, step of each attempt, the one that is on as the last."""
    status = experiment.status
    rows = [
        [
            str(entry.attempt),
            _local(entry.start),
            _local(entry.end),
            _took(entry.start, entry.end),
            entry.reason or "–",
            "yes" if entry.counted else "no",
            page.shown(entry.step, page.thousands),
        ]
        for entry in status.history
    ]
    if status.attempt and all(entry.attempt != status.attempt for entry in status.history):
        started = status.attempt_start_time
        took = "–" if started is None else duration(now - page.unix(started))
        step = page.shown(status.step, page.thousands)
        rows.append([str(status.attempt), _local(started), "–", took, status.phase, "no", step])
    return rows


def _percent(point: Point) -> Point:
    return dataclasses.replace(point, value=100 * point.value)


def _took(start: str | None, end: str | None) -> str:
    return "–" if start is None or end is None else duration(page.unix(end) - page.unix(start))


def _local(moment: str | None) -> str:
    return "–" if moment is None else page.local_time(page.unix(moment))
