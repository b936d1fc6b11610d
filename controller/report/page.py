"""What the pages have in common: the templates, how numbers are written, and what both say of an experiment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.config import OPTIONS, plan
from controller.api import Experiment, Status, train_config
from controller.display import duration
from controller.report import timeline as time_line
from controller.report.chart import Chart, draw, legend
from controller.report.timeline import Span

_ENVIRONMENT = Environment(
    loader=PackageLoader("controller.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
    lstrip_blocks=True,
)  # fmt: skip
_OF_A_POD = ("node_rank", "master_addr", "master_port", "metrics_port", "gang_port", "print_plan")
"""Options that a pod's environment sets: they differ from pod to pod, or say nothing of the training."""


@dataclass(frozen=True)
class Figure:
    """One chart of a page with what stands around it."""

    title: str
    unit: str
    legend: Markup
    svg: Markup


def render(template: str, written_at: float, **values: Any) -> str:
    """A page as HTML; `written_at` in unix seconds."""
    return _ENVIRONMENT.get_template(template).render(written=local_time(written_at), **values)


def figure(chart: Chart) -> Figure:
    """A chart, drawn."""
    return Figure(chart.title, chart.unit, legend(chart), draw(chart))


def settings(experiment: Experiment) -> list[tuple[str, str, str, bool]]:
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


def timeline(experiment: Experiment, now: float) -> Markup:
    """The attempts of an experiment, drawn; the one that is under way until `now`."""
    status = experiment.status
    spans = []
    for entry in status.history:
        if entry.start is not None and entry.end is not None:
            ended = entry.reason or "ended"
            looks = "good" if ended == "Succeeded" else "bad" if entry.counted else "busy"
            spans.append(Span(f"attempt {entry.attempt}", unix(entry.start), unix(entry.end), ended, looks))
    if status.attempt and status.attempt_start_time and all(e.attempt != status.attempt for e in status.history):
        spans.append(Span(f"attempt {status.attempt}", unix(status.attempt_start_time), now, status.phase, "busy"))
    return time_line.draw(spans)


def training_time(status: Status) -> str:
    """Of all attempts that have ended; empty: none has."""
    spans = [unix(entry.end) - unix(entry.start) for entry in status.history if entry.start and entry.end]
    return duration(sum(spans)) if any(spans) else ""


def shown(value: float | None, number: Callable[[float], str]) -> str:
    """A value as `number` writes it, or a dash."""
    return "–" if value is None else number(value)


def three(value: float) -> str:
    """With three decimals."""
    return f"{value:.3f}"


def two(value: float) -> str:
    """With two decimals."""
    return f"{value:.2f}"


def significant(value: float) -> str:
    """Its first three digits."""
    return f"{value:.3g}"


def thousands(value: float) -> str:
    """A whole number, with narrow spaces."""
    return f"{value:,.0f}".replace(",", "\u202f")


def unix(moment: str) -> float:
    """A time of a status in seconds."""
    return datetime.fromisoformat(moment).timestamp()


def local_time(at: float) -> str:
    """A date for a person."""
    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
