"""Queues of a real Kueue for the end-to-end tests, over cards that the nodes only say they have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster.additions import QUEUES, added
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.kubectl import Kubectl, Object
from tests.e2e.cards import ACCELERATOR, CARD, advertised
from tests.e2e.experiments import SOON, Experiment, Laboratory

API = "kueue.x-k8s.io/v1beta2"
QUOTA = 2
"""Cards of the queue: those of one experiment on two nodes."""
FLAVOR_LABEL = {"tests/flavor": "here"}


@pytest.fixture(scope="module")
def cards(cluster: Cluster) -> Iterator[None]:
    """Nodes with more cards than any queue here gives out."""
    with advertised(cluster, 4):
        yield


@pytest.fixture(scope="module")
def kueue(cluster: Cluster, cards: None) -> Iterator[None]:
    """Kueue, and nodes of a flavor."""
    for node in NODES:
        cluster.kubectl.patch("node", node, {"metadata": {"labels": FLAVOR_LABEL}})
    with added(cluster, QUEUES):
        yield
    for node in NODES:
        cluster.kubectl.patch("node", node, {"metadata": {"labels": dict.fromkeys(FLAVOR_LABEL)}})


@pytest.fixture
def queue(kueue: None, namespace: Kubectl) -> Iterator[str]:
    """The name of a queue of this namespace, in which the higher priority goes first."""
    name = namespace.namespace
    covered = {"cpu": 100, "memory": "1000Gi", CARD: QUOTA}
    quotas = [{"name": resource, "nominalQuota": quota} for resource, quota in covered.items()]
    namespace.apply(
        {"apiVersion": API, "kind": "ResourceFlavor", "metadata": {"name": name}, "spec": {"nodeLabels": FLAVOR_LABEL}},
        {
            "apiVersion": API,
            "kind": "ClusterQueue",
            "metadata": {"name": name},
            "spec": {
                "namespaceSelector": {},
                "preemption": {"withinClusterQueue": "LowerPriority"},
                "resourceGroups": [
                    {"coveredResources": list(covered), "flavors": [{"name": name, "resources": quotas}]}
                ],
            },
        },
        {"apiVersion": API, "kind": "LocalQueue", "metadata": {"name": name}, "spec": {"clusterQueue": name}},
    )
    yield name
    for kind in ("resnetexperiments", "workloads"):
        namespace.run("delete", kind, "--all", "--wait", timeout=SOON)
    namespace.delete("clusterqueue", name)
    namespace.delete("resourceflavor", name)


def carded(laboratory: Laboratory, name: str, **changes: object) -> Experiment:
    """An experiment of two nodes with a card each, which computes on the CPU."""
    return laboratory.experiment(name, accelerator=ACCELERATOR, **changes)


def queued(experiment: Experiment, *words: str) -> None:
    """Wait until it is Queued, and says so in every place with all of these words."""

    def said(status: Object) -> bool:
        return status.get("phase") == "Queued" and all(word in status.get("message", "") for word in words)

    experiment.until(said, f"not Queued with {words}")
    status, reason, message = experiment.condition("PodsScheduled")
    assert (status, reason, message) == ("False", "Queued", experiment.status["message"])
    assert message in experiment.why()
