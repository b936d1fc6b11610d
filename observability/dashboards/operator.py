"""The dashboard of the operator."""

from __future__ import annotations

from observability.dashboards.panels import EXPERIMENT_PHASES, Board, Kind, Panel, Query, Row, Variable

_HERE = 'namespace=~"$namespace"'
_NAMESPACE = Variable("namespace", "Namespace", "label_values(resnet_operator_build_info, namespace)", several=True)
_WHICH = "{{namespace}}/{{pod}}"

BOARD = Board(
    "operator",
    "ResNet operator",
    "Whether the operator keeps up: looks at experiments, their time and errors, the queue, and who leads.",
    [_NAMESPACE],
    [
        Row("Now", [
            Panel(
                "Leader", "The replica that acts. None: see the runbook ResnetOperatorNoLeader.", "none",
                [Query(f"resnet_operator_is_leader{{{_HERE}}} == 1", _WHICH)], 8, Kind.NAME,
            ),
            Panel(
                "Replicas", "Scraped ones; one acts, the others wait.", "none",
                [Query(f"count by (namespace) (resnet_operator_build_info{{{_HERE}}})", "replicas")], 4, Kind.STAT,
            ),
            Panel(
                "Version", "More than one for longer than an upgrade takes is a mistake.", "none",
                [Query(f"max by (version) (resnet_operator_build_info{{{_HERE}}})", "{{version}}")], 4, Kind.NAME,
            ),
            Panel(
                "Experiments", "That it looks after, finished ones included.", "none",
                [Query(f"sum by (namespace) (resnet_operator_experiments{{{_HERE}}})", "experiments")], 4, Kind.STAT,
            ),
            Panel(
                "Failing looks", "Share of the looks that failed.", "percentunit",
                [Query(f"operator:resnet_operator_reconcile_errors:ratio{{{_HERE}}}", "errors")], 4, Kind.STAT,
                0, 1, alarm=0.1,
            ),
        ]),
        Row("Work", [
            Panel(
                "Looks", "At an experiment, per second. At rest each is looked at once in --timing resync seconds.",
                "ops", [Query(f"operator:resnet_operator_reconcile:rate{{{_HERE}}}", "{{namespace}}")], low=0,
            ),
            Panel(
                "Time of a look", "Its reads and writes included. Slow looks are a slow API server.", "s",
                [
                    Query(f"operator:resnet_operator_reconcile_seconds:{name}{{{_HERE}}}", f"{name} {{{{namespace}}}}")
                    for name in ("p50", "p95", "p99")
                ],
                low=0,
            ),
            Panel(
                "Errors", "Looks that failed, per second; each is tried again with a growing delay.", "ops",
                [Query(
                    f"sum by (namespace, pod) (rate(resnet_operator_reconcile_errors_total{{{_HERE}}}"
                    "[$__rate_interval]))",
                    _WHICH,
                )],
                low=0,
            ),
            Panel(
                "Queue", "Experiments that wait for a look. It should come back to zero again and again.", "none",
                [Query(f"resnet_operator_queue_depth{{{_HERE}}}", _WHICH)], low=0,
            ),
            Panel(
                "Leading, over time", "1: that replica acts. It changes when one is drained or dies.", "none",
                [Query(f"resnet_operator_is_leader{{{_HERE}}}", _WHICH)], kind=Kind.STEPS, low=0, high=1,
            ),
            Panel(
                "Experiments by phase", "Of all namespaces that it looks after.", "none",
                [Query(f"sum by (phase) (resnet_operator_experiments{{{_HERE}}})", "{{phase}}")],
                kind=Kind.STACK, low=0, colors=EXPERIMENT_PHASES,
            ),
        ]),
    ],
    links=["fleet"],
)  # fmt: skip
