"""report.html: one self-contained page of a run; it opens anywhere, without a network."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.config import OPTIONS, plan
from app.telemetry.events import read_events
from controller.api import Experiment, train_config
from controller.display import duration
from controller.local.rundir import replace
from controller.report.chart import Chart, Line, draw, legend
from controller.report.curves import Curves, EpochRow, Point, counted, curves

_ENVIRONMENT = Environment(
    loader=PackageLoader("controller.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One chart of the page with what stands around it."""

    title: str
    unit: str
    legend: Markup
    svg: Markup


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
    return _ENVIRONMENT.get_template("report.html.j2").render(
        name=experiment.metadata.name,
        phase=status.phase,
        subtitle=_subtitle(experiment),
        message=_message(experiment),
        tiles=_tiles(experiment, found),
        figures=_figures(found),
        epochs=[_epoch_cells(row) for row in found.epochs],
        settings=_settings(experiment),
        attempts=_attempts(experiment, written_at),
        uid=experiment.metadata.uid or "",
        written=_local_time(written_at),
    )


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
        tiles.append(("Images per second", _thousands(median), "median, all ranks"))
    config = train_config(experiment)
    steps = f"{_thousands(status.step)} steps" if status.step is not None else ""
    tiles.append(("Epochs", f"{status.epoch or 0} of {config.epochs}", steps))
    spans = [_seconds_between(entry.start, entry.end) for entry in status.history]
    if any(spans):
        tiles.append(("Time", duration(sum(span or 0.0 for span in spans)), "over all attempts"))
    tiles.append(
        ("Attempts", str(status.attempt), f"{status.restarts} counted restart{'' if status.restarts == 1 else 's'}")
    )
    return tiles


def _figures(found: Curves) -> list[Figure]:
    marks = [(start.step, f"attempt {start.attempt}") for start in found.starts[1:]]
    charts = [
        Chart(
            "Loss", "cross-entropy",
            [Line("training", found.train_loss), Line("validation", found.validation_loss, dots=True)],
            _three, marks, clipped=True,
        ),
        Chart(
            "Validation top-1", "%", [Line("top-1", [_percent(p) for p in found.top1], dots=True)],
            _two, marks, ceiling=100.0,
        ),
        Chart("Learning rate", "", [Line("learning rate", found.learning_rate)], _significant, marks, True),
        Chart("Throughput", "img/s", [Line("all ranks", found.images_per_second)], _thousands, marks, True),
    ]  # fmt: skip
    return [Figure(chart.title, chart.unit, legend(chart), draw(chart)) for chart in charts]


def _epoch_cells(row: EpochRow) -> list[str]:
    def shown(value: float | None, number: Any) -> str:
        return "–" if value is None else str(number(value))

    return [
        str(row.epoch),
        _thousands(row.step),
        shown(row.train_loss, _three),
        shown(row.validation_loss, _three),
        shown(row.top1, lambda ratio: f"{100 * ratio:.2f}"),
        shown(row.learning_rate, _significant),
        shown(row.images_per_second, _thousands),
    ]


def _settings(experiment: Experiment) -> list[tuple[str, str, str, bool]]:
    """Name, value, meaning, and whether it is other than the default: what the recipe derives first, then options."""
    config = train_config(experiment)
    facts = plan(config)
    derived = [
        ("ranks", str(facts["world_size"]), f"{facts['nnodes']} nodes × {facts['nproc_per_node']} devices", True),
        ("global batch", str(facts["global_batch"]), "images per optimizer step", True),
        ("warm-up", str(facts["warmup_epochs"]), "epochs", True),
        ("backend", str(facts["backend"]), "carries the gradients", True),
    ]
    options = [
        (option.flags[0], str(getattr(config, name)), option.help, getattr(config, name) != field.default)
        for name, (option, field) in OPTIONS.items()
        if name not in _OF_A_POD
    ]
    return [*derived, *options]


_OF_A_POD = ("node_rank", "master_addr", "master_port", "metrics_port", "gang_port", "print_plan")
"""Options that a pod's environment sets: they differ from pod to pod, or say nothing of the training."""


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
            "–" if entry.step is None else _thousands(entry.step),
        ]
        for entry in status.history
    ]
    if status.attempt and all(entry.attempt != status.attempt for entry in status.history):
        started = status.attempt_start_time
        took = "–" if started is None else duration(now - _parse(started))
        step = "–" if status.step is None else _thousands(status.step)
        rows.append([str(status.attempt), _local(started), "–", took, status.phase, "no", step])
    return rows


def _percent(point: Point) -> Point:
    return dataclasses.replace(point, value=100 * point.value)


def _three(value: float) -> str:
    return f"{value:.3f}"


def _two(value: float) -> str:
    return f"{value:.2f}"


def _significant(value: float) -> str:
    return f"{value:.3g}"


def _thousands(value: float) -> str:
    return f"{value:,.0f}".replace(",", "\u202f")


def _parse(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _seconds_between(start: str | None, end: str | None) -> float | None:
    return None if start is None or end is None else _parse(end) - _parse(start)


def _took(start: str | None, end: str | None) -> str:
    seconds = _seconds_between(start, end)
    return "–" if seconds is None else duration(seconds)


def _local(moment: str | None) -> str:
    return "–" if moment is None else _local_time(_parse(moment))


def _local_time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
