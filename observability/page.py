"""docs/metrics.md, made from the metrics, the rules and the dashboards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from observability import alerts, recording
from observability.dashboards.panels import Board
from observability.metrics import Metric, programs
from observability.pace import Pace

_HEAD = """# Metrics, rules, alerts and dashboards

Made from the code by `make docs`; a test fails where it is not current. Base units, ratios from 0 to 1, the time of an
event rather than its age. A value that does not exist yet is left out.

The operator's chart ships all of it: a PodMonitor and a ServiceMonitor, a PrometheusRule, and the dashboards as
ConfigMaps for Grafana's sidecar. Without Prometheus Operator: `charts/resnet-operator/rules/*.yaml` are plain rule
files and `charts/resnet-operator/dashboards/*.json` can be imported. Scrape every pod's port `metrics`, at least every
30 seconds, with `honor_labels: true`: `namespace` is the experiment's, not the scraped pod's.

"""

_CARDINALITY = """## How many series

No label holds a step, an epoch, a UID or a message; `reason` is one of {reasons} words, or `Signal<n>`.
An experiment has {fixed} series from the pod of its node 0 and {per_rank} for each rank, and {of_operator} from the
operator. So 100 experiments of 16 ranks are {hundred} series. While a new attempt begins, the same again for the new
pod, as Prometheus adds `pod` and `instance`.

A training's series end with its pod: Prometheus marks them stale at the first scrape that gets no answer, and what is
recorded of them ends up to ten minutes later. The operator's end when the experiment is deleted; of one that is over it
no longer shows the reasons for which it never restarted.

"""

_PICTURES = """The pictures are rendered with Grafana's UI components (`python -m tests.drawing`), of a training of two
nodes and one of a single node on the tests' cluster, on a clock twelve times as fast; they have not been in a Grafana.
"""


def markdown(boards: Sequence[Board]) -> str:
    """The whole page."""
    pace = Pace()
    parts = [_HEAD]
    for program in programs():
        rows = [_metric(metric) for metric in program.metrics]
        parts.append(f"## {program.title}\n\n{program.where}\n\n{_table(('metric', 'type', 'labels', 'what'), rows)}\n")
    parts.append(_cardinality())
    recorded = [
        (f"`{rule.name}`", ", ".join(f"{name}={value}" for name, value in rule.labels.items()) or "-", rule.help)
        for rule in (*recording.of_training(pace), *recording.of_operator(pace))
    ]
    parts.append(f"## Recording rules\n\n{_table(('series', 'labels', 'what'), recorded)}\n")
    told = [
        (
            f"[{alert.name}](runbooks/{alert.name}.md)",
            alert.severity,
            pace(alert.wait) if alert.wait else "-",
            _short(alert.expression),
        )
        for alert in (*alerts.of_training(pace), *alerts.of_operator(pace))
    ]
    parts.append(f"## Alerts\n\n{_table(('alert', 'severity', 'for', 'when'), told)}\n")
    shown = [(f"{board.title} (`{board.uid}`)", str(len(board.panels)), board.description) for board in boards]
    parts.append(f"## Dashboards\n\n{_table(('dashboard', 'panels', 'what'), shown)}\n{_PICTURES}")
    parts += [f"\n![{board.title}](dashboard-{board.name}.png)\n" for board in boards]
    return "".join(parts)


def _cardinality() -> str:
    training, operator, _ = (program.metrics for program in programs())
    per_rank = sum(metric.series for metric in training if "rank" in metric.labels)
    of_operator = sum(metric.series for metric in operator if "experiment" in metric.labels)
    (restarts,) = (metric.series for metric in operator if "reason" in metric.labels)
    fixed = sum(metric.series for metric in training) - per_rank
    return _CARDINALITY.format(
        reasons=restarts, fixed=fixed, per_rank=per_rank, of_operator=of_operator,
        hundred=f"{100 * (fixed + 16 * per_rank + of_operator):,}".replace(",", " "),
    )  # fmt: skip


def _metric(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(metric.labels) or "-"
    help_text = metric.help[:1].upper() + metric.help[1:]
    return f"`{metric.name}`", metric.kind, labels, help_text if help_text.endswith(".") else f"{help_text}."


def _short(expression: str) -> str:
    return f"`{expression.replace('|', chr(92) + '|')}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
