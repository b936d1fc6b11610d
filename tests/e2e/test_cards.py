"""More experiments than cards: none is forgotten, and two halves of two gangs do not wait for each other for ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.cluster import NODES, Cluster
from tests.cluster.waiting import wait_for
from tests.e2e.cards import ACCELERATOR, advertised
from tests.e2e.experiments import SOON, Experiment, Laboratory

pytestmark = [pytest.mark.timeout(3600), pytest.mark.faults]
HALF_SECONDS = 15
TEN = 10
RESERVED = "resnet-operator.io/reserved"


@pytest.fixture(autouse=True)
def cards(cluster: Cluster) -> Iterator[None]:
    """One card on each node."""
    with advertised(cluster, 1):
        yield


def test_two_half_gangs_let_go_and_both_train(cluster: Cluster, laboratory: Laboratory) -> None:
    def rival(name: str, node: str, **template: object) -> Experiment:
        made = laboratory.experiment(
            name, accelerator=ACCELERATOR, faultTolerance={"startTimeoutSeconds": HALF_SECONDS},
            training={"epochs": 1}, podTemplate=template,
        )  # fmt: skip
        wait_for(lambda: nodes_of(made) == {node}, SOON, f"{name} has no pod on {node}")
        return made

    with reserved(cluster, NODES[1]):
        left = rival("left", NODES[0])
        right = rival("right", NODES[1], tolerations=[{"key": RESERVED, "operator": "Exists"}])
    for each in (left, right):
        each.succeeded()
        assert each.status["restarts"] == 0
    ends = {reason for each in (left, right) for reason, _ in each.history()}
    assert ends == {"GangIncomplete", "Succeeded"}


@contextmanager
def reserved(cluster: Cluster, node: str) -> Iterator[None]:
    """Pods get onto a node meanwhile only if they tolerate that."""
    cluster.kubectl.run("taint", "node", node, f"{RESERVED}=:NoSchedule")
    try:
        yield
    finally:
        cluster.kubectl.run("taint", "node", node, f"{RESERVED}-")


def nodes_of(experiment: Experiment) -> set[str]:
    """The nodes that hold its pods."""
    return {pod["spec"]["nodeName"] for pod in experiment.owned("pods") if "nodeName" in pod["spec"]}


def test_ten_experiments_share_two_cards_and_all_are_trained(laboratory: Laboratory) -> None:
    queue = [
        laboratory.experiment(
            f"tenth-{number}", nodes=1, accelerator=ACCELERATOR, training={"epochs": 1, "batchSizePerDevice": 16}
        )
        for number in range(TEN)
    ]
    at_a_time = 0
    while (phases := [each.status.get("phase") for each in queue]) != ["Succeeded"] * TEN:
        at_a_time = max(at_a_time, phases.count("Running"))
        assert "Failed" not in phases
    assert at_a_time <= len(NODES)
    for each in queue:
        each.succeeded()
        assert each.history() == [("Succeeded", False)]
