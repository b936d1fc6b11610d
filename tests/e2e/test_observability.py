"""Dashboards, rules and alerts on a training of the real cluster, by a real Prometheus that finds its pods.

The rules run on a clock that is 30 times as fast: Prometheus scrapes each second instead of twice a minute.
"""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from observability import recording
from observability.files import CHART, files
from observability.metrics import programs
from observability.pace import MINUTE, Pace
from observability.rules import rule_files
from tests.cluster.cluster import Cluster
from tests.cluster.prometheus import Prometheus, prometheus
from tests.cluster.waiting import wait_for
from tests.e2e import inside
from tests.e2e.disks import ALONE, filled, small_disk
from tests.e2e.experiments import KIND, SOON, Laboratory
from tests.e2e.operator import NAME as OPERATOR
from tests.promql import filled_in

pytestmark = pytest.mark.timeout(1800)
FASTER = Pace(Fraction(1, 30))
WINDOW = FASTER(5 * MINUTE)
RANKS = 2
WITHOUT_DATA = {
    ("resnet-fleet", "Wait in the queue"): "nothing is Queued without Kueue, which this cluster does not have",
}
"""Panels that have nothing to show here, each with the reason."""

Key = tuple[str, str, str]


def dashboards() -> list[dict[str, Any]]:
    """As they are shipped."""
    return [json.loads(text) for name, text in files().items() if name.startswith(f"{CHART}/dashboards/")]


def queries(namespace: str, experiment: str) -> dict[Key, str]:
    """Every query of every panel by (dashboard, panel, ref), as Grafana sends it for that experiment."""
    found = {}
    for board in dashboards():
        chosen = OPERATOR if board["uid"] == "resnet-operator" else namespace
        for panel in board["panels"]:
            for target in panel.get("targets", ()):
                expression = filled_in(target["expr"], WINDOW, namespace=chosen, experiment=experiment)
                found[board["uid"], panel["title"], target["refId"]] = expression
    return found


def choices(namespace: str) -> list[str]:
    """What the dashboards' variables are filled from, as queries that yield something where they do."""
    listed = [
        each["query"] for board in dashboards() for each in board["templating"]["list"] if each["type"] == "query"
    ]
    parts = [re.fullmatch(r"label_values\((.+), (\w+)\)", filled_in(query, namespace=namespace)) for query in listed]
    return [f"count by ({part[2]}) ({part[1]})" for part in parts if part]


def recorded() -> list[str]:
    """Every recorded series."""
    rules = [*recording.of_training(FASTER), *recording.of_operator(FASTER)]
    return [
        f"{rule.name}{{{','.join(f'{name}={json.dumps(value)}' for name, value in rule.labels.items())}}}"
        for rule in rules
    ]


def firing(scraper: Prometheus, name: str, experiment: str) -> dict[str, str] | None:
    """The annotations of an alert about that experiment, once it fires."""
    for alert in scraper.alerts():
        labels = alert["labels"]
        if alert["state"] == "firing" and (labels["alertname"], labels.get("experiment")) == (name, experiment):
            annotations: dict[str, str] = alert["annotations"]
            return annotations
    return None


def test_every_query_has_data_and_real_faults_raise_their_alerts(
    cluster: Cluster, laboratory: Laboratory, tmp_path: Path
) -> None:
    for name, text in rule_files(FASTER).items():
        (tmp_path / name).write_text(text)
    namespace = laboratory.kubectl.namespace
    with (
        prometheus(cluster, sorted(tmp_path.glob("*.yaml"))) as scraper,
        small_disk(cluster, laboratory.checkpoints) as disk,
    ):
        watched = replace(laboratory, checkpoints=disk).experiment(
            "watched",
            **{**ALONE, "accelerator": {"type": "cpu", "cardsPerNode": RANKS}, "activeDeadlineSeconds": 3600},
            training={"epochs": 1000}, checkpoint={"keep": 1},
        )  # fmt: skip
        watched.trains(1)
        asked = queries(namespace, watched.name)
        assert len(asked) > 60

        def empty() -> list[str]:
            panels = {(key[0], key[1]) for key, query in asked.items() if not scraper.query(query)}
            others = [query for query in (*recorded(), *choices(namespace)) if not scraper.query(query)]
            return [*(f"{board}: {title}" for board, title in panels - WITHOUT_DATA.keys()), *others]

        try:
            wait_for(lambda: not empty(), SOON, "not all has data")
        except AssertionError:
            pytest.fail(f"nothing is to be seen of: {'; '.join(sorted(empty()))}")
        for board, title in WITHOUT_DATA:
            assert not scraper.query(asked[board, title, "A"]), f"{title} has data: it is no exception"

        # As many series as docs/metrics.md says.
        training = programs()[0].metrics
        expected = sum(metric.series * (RANKS if "rank" in metric.labels else 1) for metric in training)
        names = "|".join({re.escape(name) for metric in training for name in metric.names})
        ours = f'namespace="{namespace}",experiment="{watched.name}"'
        assert scraper.query(f'count({{__name__=~"{names}",{ours}}})')[0][1] == expected

        for alert in (
            "ResnetTrainingStalled",
            "ResnetCheckpointFailing",
            "ResnetMetricsMissing",
            "ResnetLossNotFinite",
        ):
            assert not firing(scraper, alert, watched.name)
        with filled(disk):
            said = wait_for(
                lambda: firing(scraper, "ResnetCheckpointFailing", watched.name), SOON, "a full volume raises no alert"
            )
        assert said["summary"] == f"{namespace}/watched could not write a checkpoint"

        rank = inside.ranks(cluster, laboratory.kubectl, watched.pod())[1]
        inside.strike(rank, signal.SIGSTOP)
        try:
            said = wait_for(
                lambda: firing(scraper, "ResnetTrainingStalled", watched.name), SOON, "a stopped rank raises no alert"
            )
        finally:
            inside.strike(rank, signal.SIGCONT)
        assert re.fullmatch(rf"{namespace}/watched has done no step for [\d.]+s", said["summary"])
        wait_for(lambda: not firing(scraper, "ResnetTrainingStalled", watched.name), SOON, "it does not end again")

        laboratory.kubectl.delete(KIND, watched.name)
        left = f'count by (__name__) ({{{ours},__name__!~"ALERTS.*"}})'
        wait_for(lambda: not scraper.query(left), SOON, "series of a deleted experiment do not go stale")
