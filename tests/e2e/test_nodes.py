"""A node that is emptied, or loses its power, under the experiments that train on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.cluster import training_operator
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.e2e.experiments import SOON, Experiment, Laboratory

pytestmark = pytest.mark.timeout(1800)
# The node controller's patience (30 s), the pods' (5 s), their grace (20 s) and a start.
NODE_LOST = 240.0
# Epochs of one rank, and of two that talk, which are so much slower. Both are to train when the fault comes, though
# either may begin 15 s after the other: kubelet looks again that late when it was told of a pod before the API server
# lets it see the pod's claims.
ALONE, BOTH = 24, 12


@contextmanager
def cordoned(cluster: Cluster, node: str) -> Iterator[None]:
    """No new pod gets onto that node meanwhile."""
    cluster.kubectl.run("cordon", node)
    try:
        yield
    finally:
        cluster.kubectl.run("uncordon", node)


def other(node: str) -> str:
    """The other of the two."""
    (found,) = set(NODES) - {node}
    return found


def home(cluster: Cluster) -> str:
    """The node of training-operator, of which there is one."""
    kubectl: Kubectl = cluster.kubectl.within(training_operator.NAMESPACE)
    (pod,) = kubectl.find("pods")
    return str(pod["spec"]["nodeName"])


def on(cluster: Cluster, laboratory: Laboratory, node: str, **training: int) -> Experiment:
    """An experiment of one rank, which begins there and may go on elsewhere."""
    with cordoned(cluster, other(node)):
        alone = laboratory.experiment("alone", nodes=1, training=training)
        wait_for(lambda: alone.node(0, 1) == node, SOON, f"its pod is not on {node}")
    return alone


def waits_for_a_node(experiment: Experiment) -> None:
    """Wait until it says that it lacks a node, and why."""

    def lacks() -> bool:
        held, reason, message = experiment.condition("PodsScheduled")
        return (held, reason) == ("False", "Unschedulable") and "0/2 nodes are available" in message

    experiment.until(lambda _: lacks(), "it does not say that it lacks a node", NODE_LOST)
    assert experiment.status["phase"] == "Restarting"
    assert "0/2 nodes are available" in experiment.why()


def test_what_is_drained_checkpoints_and_goes_on_where_there_is_room(cluster: Cluster, laboratory: Laboratory) -> None:
    node = "node-b"
    alone = on(cluster, laboratory, node, epochs=ALONE)
    both = laboratory.experiment("both", training={"epochs": BOTH})
    alone.trains(1)
    both.trains(1)

    with cordoned(cluster, node):
        cluster.kubectl.run("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", timeout=SOON)
        alone.trains(2)
        assert alone.node() == other(node)
        waits_for_a_node(both)
    alone.succeeded()
    both.succeeded()
    for experiment in (alone, both):
        assert experiment.history() == [("Evicted", False), ("Succeeded", False)]
        assert experiment.status["restarts"] == 0
        assert experiment.lost() == [0]


def test_a_node_without_power_costs_one_checkpoint_interval_and_its_return_disturbs_nobody(
    cluster: Cluster, laboratory: Laboratory
) -> None:
    node = other(home(cluster))
    alone = on(cluster, laboratory, node, epochs=ALONE)
    both = laboratory.experiment("both", training={"epochs": BOTH})
    alone.trains(1)
    both.trains(1)

    cluster.stop_node(node)
    try:
        alone.trains(2, NODE_LOST)
        assert alone.node() == other(node)
        waits_for_a_node(both)
    finally:
        cluster.start_node(node)
    alone.succeeded()
    both.succeeded()
    for experiment in (alone, both):
        assert experiment.history() == [("NodeLost", False), ("Succeeded", False)]
        assert experiment.status["restarts"] == 0
    wait_for(lambda: leftovers(alone) == leftovers(both) == [], SOON, "pods of the first attempts are still there")


def leftovers(experiment: Experiment) -> list[str]:
    """Pods of its first attempt."""
    return [pod["metadata"]["name"] for pod in experiment.owned("pods") if "-1-worker-" in pod["metadata"]["name"]]
