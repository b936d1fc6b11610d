"""Experiments as TrainJobs of a real Trainer v2: the same training, the same verdicts, the same queue."""

from __future__ import annotations

from collections.abc import Iterator
from signal import SIGKILL

import pytest

from tests.cluster.additions import JOB_SETS, TRAINING_JOBS, added
from tests.cluster.cluster import NODES, Cluster
from tests.e2e import inside
from tests.e2e.cards import CARD
from tests.e2e.experiments import Laboratory
from tests.e2e.operator import NAME, Operator
from tests.e2e.queues import carded, cards, kueue, queue, queued

__all__ = ["cards", "kueue", "queue"]  # fixtures
pytestmark = [pytest.mark.timeout(1800), pytest.mark.faults, pytest.mark.usefixtures("trainer")]
TARGET = "TrainJob"


@pytest.fixture(scope="module")
def trainer(cluster: Cluster, operator: Operator) -> Iterator[None]:
    """The Trainer, and the operator's chart once more: it makes the runtime where it finds the kind."""
    with added(cluster, JOB_SETS, TRAINING_JOBS):
        operator.install()
        assert cluster.kubectl.get("clustertrainingruntime", NAME)
        yield
        operator.install(trainer={"runtime": False})
        assert cluster.kubectl.find("clustertrainingruntimes") == []


def test_the_digits_as_a_trainjob_reach_what_they_reach_as_a_pytorchjob(laboratory: Laboratory) -> None:
    old = laboratory.experiment("old")
    before = old.succeeded()
    new = laboratory.experiment("new", target=TARGET)
    assert {new.node(0, new.trains(1).attempt), new.node(1)} == set(NODES)
    after = new.succeeded()
    assert after["top1"] == before["top1"]
    assert new.same_weights_as(old)
    assert (after["attempt"], after["restarts"]) == (1, 0)
    assert new.owned("pytorchjobs") == []


def test_a_killed_rank_of_a_trainjob_is_a_fault_and_a_pod_deleted_by_hand_is_none(
    cluster: Cluster, laboratory: Laboratory
) -> None:
    kubectl = laboratory.kubectl
    struck = laboratory.experiment("struck", target=TARGET, training={"epochs": 6})
    struck.trains(1)
    inside.strike(inside.ranks(cluster, kubectl, struck.pod(1))[1], SIGKILL)
    struck.trains(2)
    kubectl.delete("pod", struck.pod(1), wait=False)
    struck.succeeded()
    assert struck.history() == [("Killed", True), ("Stopped", False), ("Succeeded", False)]
    assert struck.status["restarts"] == 1


def test_a_trainjob_waits_in_the_queue_and_is_suspended_and_resumed(laboratory: Laboratory, queue: str) -> None:
    first = carded(laboratory, "first", target=TARGET, queueName=queue, training={"epochs": 6})
    first.trains(1)
    second = carded(laboratory, "second", target=TARGET, queueName=queue)
    queued(second, f"insufficient unused quota for {CARD} in flavor {queue}", "2 more needed")
    first.change(suspend=True)
    first.phase("Suspended")
    second.succeeded()
    first.change(suspend=False)
    first.succeeded()
    assert first.history() == [("Suspended", False), ("Succeeded", False)]
    assert (first.lost(), second.history()) == ([0], [("Succeeded", False)])
