"""PURE: several runs on one page."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from app.config import plan
from controller.api import Experiment, train_config
from controller.report import page
from controller.report.chart import Chart, Line
from controller.report.curves import Curves, Event, Point, counted, curves

MOST = 6
"""Colours that can be told from each other."""
HEADS = (
    "Phase", "Best top-1, %", "Last top-1, %", "Last loss", "Epochs", "Global batch", "Images/s", "Images/s per device",
    "Time", "Attempts",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One of them: its name on the page, the experiment with its newest status, and its events."""

    name: str
    experiment: Experiment
    events: Sequence[Event]


def render_comparison(runs: Sequence[Run], written_at: float) -> str:
    """The page as HTML, of two to MOST runs; `written_at` in unix seconds."""
    found = [curves(run.events) for run in runs]
    return page.render(
        "comparison.html.j2", written_at,
        runs=[run.name for run in runs],
        heads=HEADS,
        results=[_result(run, each) for run, each in zip(runs, found, strict=True)],
        figures=_figures(runs, found),
        differences=_differences(runs),
        timelines=[page.timeline(run.experiment, written_at) for run in runs],
    )  # fmt: skip


def _result(run: Run, found: Curves) -> list[str]:
    status, facts = run.experiment.status, plan(train_config(run.experiment))
    losses, speed = counted(found.train_loss), counted(found.images_per_second)
    median = statistics.median(point.value for point in speed) if speed else None
    return [
        status.phase,
        page.shown(status.best_top1, lambda ratio: f"{100 * ratio:.2f}"),
        page.shown(status.top1, lambda ratio: f"{100 * ratio:.2f}"),
        page.shown(losses[-1].value if losses else None, page.three),
        f"{status.epoch or 0} of {facts['epochs']}",
        str(facts["global_batch"]),
        page.shown(median, page.thousands),
        page.shown(median, lambda rate: page.significant(rate / facts["world_size"])),
        page.training_time(status) or "–",
        str(status.attempt),
    ]


def _figures(runs: Sequence[Run], found: Sequence[Curves]) -> list[page.Figure]:
    batches = [plan(train_config(run.experiment))["global_batch"] for run in runs]

    def lines(of: Callable[[Curves], Sequence[Point]], factor: float = 1.0, *, dots: bool = False) -> list[Line]:
        """One a run, over the images that it has seen: steps of different batches can't be compared."""
        return [
            Line(
                run.name,
                [dataclasses.replace(p, step=p.step * batch, value=factor * p.value) for p in of(each)],
                dots,
            )
            for run, each, batch in zip(runs, found, batches, strict=True)
        ]

    axis: dict[str, Any] = {"axis": "training images seen", "position": "image"}
    charts = [
        Chart("Training loss", "cross-entropy", lines(lambda c: c.train_loss), page.three, clipped=True, **axis),
        Chart(
            "Validation loss", "cross-entropy", lines(lambda c: c.validation_loss, dots=True), page.three,
            clipped=True, **axis,
        ),
        Chart(
            "Validation top-1", "%", lines(lambda c: c.top1, 100, dots=True), page.two, ceiling=100.0, **axis
        ),
        Chart("Learning rate", "", lines(lambda c: c.learning_rate), page.significant, from_zero=True, **axis),
        Chart(
            "Throughput", "img/s", lines(lambda c: c.images_per_second), page.thousands, from_zero=True, **axis
        ),
    ]  # fmt: skip
    return [page.figure(chart) for chart in charts]


def _differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Name and values of each setting that is not the same in all runs."""
    columns = [{name: value for name, value, _, _ in page.settings(run.experiment)} for run in runs]
    return [
        (name, [column[name] for column in columns])
        for name in columns[0]
        if len({column[name] for column in columns}) > 1
    ]
