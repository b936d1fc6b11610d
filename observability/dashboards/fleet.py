"""The dashboard of all experiments."""

from __future__ import annotations

from observability.dashboards.experiment import NAMESPACE
from observability.dashboards.panels import EXPERIMENT_PHASES, Board, Kind, Panel, Query, Row
from observability.recording import BY, ON

_HERE = 'namespace=~"$namespace"'
_NAME = "{{namespace}}/{{experiment}}"
_PHASE = f"max by (namespace, experiment, phase) (resnet_experiment_status_phase{{{_HERE}}})"
_HOLDS = (
    f"max {BY} (resnet_experiment_devices{{{_HERE}}}) * {ON} "
    f'max {BY} (resnet_experiment_status_phase{{{_HERE}, phase=~"Starting|Running"}})'
)


def _of(metric: str) -> str:
    return f"max {BY} ({metric}{{{_HERE}}})"


BOARD = Board(
    "fleet",
    "ResNet fleet",
    "All experiments: what runs, what waits, what restarts, and which devices are held for it.",
    [NAMESPACE],
    [
        Row("Now", [
            Panel(
                "Experiments by phase", "Queued waits for Kueue, Pending for a node, Starting for its first step.",
                "none", [Query(f"sum by (phase) ({_PHASE})", "{{phase}}")], 12, Kind.STAT,
            ),
            Panel(
                "Devices held", "Of experiments that are Starting or Running.", "none",
                [Query(f"sum({_HOLDS})", "devices")], 4, Kind.STAT,
            ),
            Panel(
                "Images per second", "Of all that train, pauses left out.", "locale",
                [Query(f"sum({_of('resnet_training_images_per_second')})", "images/s")], 4, Kind.STAT,
            ),
            Panel(
                "Alerts firing", "About experiments and the operator; each has a page in docs/runbooks.", "none",
                [Query('count(ALERTS{alertname=~"Resnet.+", alertstate="firing"}) or vector(0)', "alerts")], 4,
                Kind.STAT, alarm=1,
            ),
            Panel(
                "Experiments", "One row each; the name leads to its own dashboard. What has no metrics of its own has "
                "not started, or is over.", "none",
                [
                    Query(f"{_PHASE} == 1", "Phase"),
                    Query(_of("experiment:resnet_training_progress:ratio"), "Progress", "percentunit"),
                    Query(_of("resnet_training_images_per_second"), "Images/s", "locale"),
                    Query(_of("resnet_validation_top1_ratio"), "Top-1", "percentunit"),
                    Query(_of("resnet_training_eta_seconds"), "Time left", "s"),
                    Query(
                        f"time() - {_of('resnet_training_last_progress_timestamp_seconds')}", "Since its last step", "s"
                    ),
                    Query(_of("resnet_experiment_attempt"), "Attempt"),
                    Query(_of("resnet_experiment_devices"), "Devices"),
                ],
                24, Kind.TABLE, link="experiment",
            ),
        ]),
        Row("Over time", [
            Panel(
                "Experiments by phase, over time", "How many are in each phase.", "none",
                [Query(f"sum by (phase) ({_PHASE})", "{{phase}}")], 12, Kind.STACK, low=0,
                colors=EXPERIMENT_PHASES,
            ),
            Panel(
                "Devices held, over time", "By experiments that are Starting or Running.", "none",
                [Query(f"{_HOLDS} > 0", _NAME)], 12, Kind.STACK, low=0,
            ),
            Panel(
                "Progress", "Optimizer steps done, of all that are planned.", "percentunit",
                [Query(_of("experiment:resnet_training_progress:ratio"), _NAME)], low=0, high=1,
            ),
            Panel(
                "Throughput", "Images per second of each gang, pauses included.", "locale",
                [Query(_of("experiment:resnet_training_images:rate"), _NAME)], low=0,
            ),
            Panel(
                "Efficiency", "Throughput per device over its own best of the last day.", "percentunit",
                [Query(_of("experiment:resnet_training_efficiency:ratio"), _NAME)], low=0, high=1,
            ),
        ]),
        Row("Starts and restarts", [
            Panel(
                "Restarts by reason", "Attempts that ended in the time shown and were followed by another. Evicted, "
                "Preempted, NodeLost: the cluster's doing; DeviceLost, VolumeIO, LostPeer: hardware.", "none",
                [Query(
                    f"sum by (reason) (increase(resnet_experiment_restarts_total{{{_HERE}}}[$__range])) > 0.5 or "
                    f"label_replace(sum(increase(resnet_experiment_restarts_total{{{_HERE}}}[$__range])) < 0.5, "
                    '"reason", "none", "", "")',
                    "{{reason}}",
                )],
                kind=Kind.BARS, low=0,
            ),
            Panel(
                "Time to first step", "From the newest attempt's claim to its first step: scheduling, pulling, "
                "scanning the data, compiling.", "s",
                [Query(_of("resnet_experiment_first_step_seconds"), _NAME)], kind=Kind.STEPS, low=0,
            ),
            Panel(
                "Wait in the queue", "How long Kueue has held an attempt back; empty where nothing is Queued.", "s",
                [Query(_of("resnet_experiment_queued_seconds"), _NAME)], low=0,
            ),
        ]),
    ],
    span="now-24h",
    links=["experiment", "operator"],
)  # fmt: skip
