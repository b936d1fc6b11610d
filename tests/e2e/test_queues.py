"""Experiments that wait in a queue of a real Kueue: why they wait is said, and stopping them loses nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.cluster import NODES
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.waiting import wait_for
from tests.e2e.cards import CARD
from tests.e2e.experiments import SOON, Experiment, Laboratory
from tests.e2e.queues import carded, cards, kueue, queue, queued

__all__ = ["cards", "kueue", "queue"]  # fixtures

pytestmark = [pytest.mark.timeout(1800), pytest.mark.faults]


@pytest.fixture
def priorities(namespace: Kubectl) -> Iterator[dict[str, str]]:
    """Priority classes, as this test calls them -> as the cluster does."""
    names = {word: f"{namespace.namespace}-{word}" for word in ("low", "high")}
    for value, name in enumerate(names.values()):
        kind = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}}
        namespace.apply({**kind, "value": value, "preemptionPolicy": "Never"})
    yield names
    for name in names.values():
        namespace.delete("priorityclass", name)


def workload(experiment: Experiment) -> str:
    """The name of its Workload."""
    job = f"{experiment.name}-{experiment.status['attempt']}"
    (found,) = (
        each["metadata"]["name"]
        for each in experiment.kubectl.find("workloads")
        if each["metadata"]["ownerReferences"][0]["name"] == job
    )
    return str(found)


def test_of_two_that_do_not_fit_together_the_second_waits_for_its_turn(laboratory: Laboratory, queue: str) -> None:
    first = carded(laboratory, "first", queueName=queue)
    first.phase("Running")
    second = carded(laboratory, "second", queueName=queue)
    queued(second, f"insufficient unused quota for {CARD} in flavor {queue}", "2 more needed")
    stray = carded(laboratory, "stray", queueName="nope")
    queued(stray, "LocalQueue nope doesn't exist")
    stray.change(suspend=True)
    stray.phase("Suspended")

    first.succeeded()
    start = second.trains(1)
    assert {second.node(0), second.node(1)} == set(NODES)
    laboratory.kubectl.patch("workload", workload(second), {"spec": {"active": False}})
    queued(second, "deactivated")
    wait_for(lambda: not second.owned("pods"), SOON, "its pods still run")
    laboratory.kubectl.patch("workload", workload(second), {"spec": {"active": True}})
    second.succeeded()
    assert (start.attempt, second.status["attempt"], second.history()) == (1, 1, [("Succeeded", False)])
    assert second.lost() == [0]


def test_who_is_preempted_by_a_higher_priority_goes_on_bit_by_bit_where_it_was(
    laboratory: Laboratory, queue: str, priorities: dict[str, str]
) -> None:
    low = carded(laboratory, "low", queueName=queue, priorityClassName=priorities["low"])
    low.trains(1)
    high = carded(laboratory, "high", queueName=queue, priorityClassName=priorities["high"])
    queued(low)
    assert low.status["restarts"] == 0
    high.phase("Running")
    assert low.status["phase"] == "Queued"
    high.succeeded()
    assert high.history() == [("Succeeded", False)]

    low.succeeded()
    assert (low.status["attempt"], low.history(), low.lost()) == (1, [("Succeeded", False)], [0])
    assert len(low.starts) == 2
    assert low.same_weights_as(high)


def test_a_quota_of_cards_is_named_and_waited_for(laboratory: Laboratory, cards: None) -> None:
    quota: Object = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "cards"}}
    hard = f"requests.{CARD}"
    laboratory.kubectl.apply({**quota, "spec": {"hard": {hard: "0"}}})
    modest = carded(laboratory, "modest", training={"epochs": 1})
    modest.until(
        lambda _: modest.condition("PodsScheduled")[1] == "PodsRefused", "it does not say who refuses its pods"
    )
    assert f"exceeded quota: cards, requested: {hard}=1" in modest.condition("PodsScheduled")[2]
    assert (modest.status["phase"], modest.status["restarts"]) == ("Pending", 0)
    laboratory.kubectl.apply({**quota, "spec": {"hard": {hard: "2"}}})
    modest.succeeded()
    assert modest.history() == [("Succeeded", False)]
