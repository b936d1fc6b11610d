"""Both charts on the real cluster: the operator comes, changes and goes while experiments train."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import NODES, Cluster
from tests.cluster.description import describe
from tests.cluster.fixtures import DELETION_SECONDS, RESTRICTED, new_namespace
from tests.cluster.helm import Helm
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.waiting import wait_for
from tests.e2e.claims import USER
from tests.e2e.operator import CRD, NAME, SELECTOR, Operator
from tests.e2e.pods import container, pod, spec, start

EXPERIMENT = "resnet-experiment"
# The preset, smaller: two pods of one rank each, or one, beside a cluster on two cores.
DIGITS: Object = {
    "preset": "digits",
    "accelerator": {"cardsPerNode": 1},
    "podTemplate": {
        "resources": {"requests": {"cpu": "100m", "memory": "500Mi"}, "limits": {"memory": "2Gi"}},
        "sharedMemory": "256Mi",
        # Threads that spin for each other on two busy cores make a rank ten times as slow.
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
    },
    "claims": {"checkpoints": {"create": True, "storageClassName": "", "size": "1Gi"}},
}
ROLLBACK = ("rollback", NAME, "--wait")
LONG = 100_000
SOON = 120.0
TRAINED = 300.0
pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("images")]

Team = Callable[..., "Release"]


class Release:
    """One experiment as a release of its chart, in a namespace of its own."""

    def __init__(self, kubectl: Kubectl, name: str, folder: Path) -> None:
        self.kubectl = kubectl
        self.helm = Helm(kubectl.kubeconfig, kubectl.namespace)
        self.name = name
        self.folder = folder
        self.installed = 0.0

    def install(self, values: Object) -> None:
        """Install it on a volume that is made for its claim."""
        claim = f"{self.name}-checkpoints"
        volume = {
            "accessModes": ["ReadWriteMany"], "storageClassName": "", "capacity": {"storage": "1Gi"},
            "hostPath": {"path": str(self.folder)},
            "claimRef": {"namespace": self.kubectl.namespace, "name": claim},
        }  # fmt: skip
        name = f"{self.kubectl.namespace}-{claim}"
        self.kubectl.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": volume})
        self.installed = time.monotonic()
        self.helm.install(self.name, EXPERIMENT, values)

    @property
    def status(self) -> Object:
        """Of the experiment."""
        found: Object = self.kubectl.get("rnx", self.name).get("status", {})
        return found

    def wait(self, what: Callable[[Object], Any], seconds: float, words: str) -> Object:
        """The status of which `what` is true."""

        def look() -> Object | None:
            status = self.status
            return status if what(status) else None

        return wait_for(look, seconds, f"{self.name}: {words}: {self.status}")

    def pods(self) -> list[Object]:
        """Its pods."""
        return self.kubectl.find("pods", f"resnet-operator.io/experiment={self.name}")

    def identities(self) -> set[str]:
        """UIDs of its job and pods: others after a new attempt."""
        jobs = self.kubectl.find("pytorchjobs", f"resnet-operator.io/experiment={self.name}")
        return uids([*jobs, *self.pods()])

    def checkpoints(self) -> set[int]:
        """The steps of its checkpoints."""
        found = (self.folder / self.kubectl.namespace / self.name).glob("*/step-*/MANIFEST.json")
        return {int(each.parent.name.removeprefix("step-")) for each in found}


@pytest.fixture
def team(cluster: Cluster) -> Iterator[Team]:
    """Makes experiments, each in a namespace of its own."""
    made: list[Release] = []

    def make(name: str, kubectl: Kubectl | None = None, labels: dict[str, str] = RESTRICTED) -> Release:
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        shutil.chown(folder, USER, USER)
        where = kubectl or cluster.kubectl.within(new_namespace(cluster.kubectl, labels))
        made.append(Release(where, name, folder))
        return made[-1]

    yield make
    for each in made:
        print(each.name, describe(each.kubectl), sep="\n")  # where a test failed it is shown
        each.kubectl.delete("namespace", each.kubectl.namespace, wait=False)
    for each in made:
        wait_for(lambda: not each.kubectl.find("pods"), DELETION_SECONDS, f"pods of {each.name} do not end")  # noqa: B023
        each.kubectl.delete("pv", f"{each.kubectl.namespace}-{each.name}-checkpoints", wait=False)
        shutil.rmtree(each.folder)


def trains(status: Object) -> bool:
    return bool(status.get("phase") == "Running" and status.get("step"))


def uids(objects: list[Object]) -> set[str]:
    return {str(each["metadata"]["uid"]) for each in objects}


def condition(status: Object, kind: str) -> Object:
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


def test_experiments_of_two_namespaces_outlive_upgrade_rollback_and_removal_of_the_operator(
    operator: Operator, team: Team
) -> None:
    both = team("two-pods"), team("one-pod")
    for each, nodes, epochs in zip(both, (2, 1), (3, 4), strict=True):
        each.install(DIGITS | {"nodes": nodes, "training": {"epochs": epochs}})
    for each in both:
        each.wait(trains, SOON, "it does not train")
        print(f"install to first step, {each.name}: {time.monotonic() - each.installed:.1f} s")
    before = [each.identities() for each in both]
    assert [len(each) for each in before] == [3, 2]

    # Removed: the kind stays, and its experiments with jobs that go on.
    operator.helm.uninstall(NAME)
    assert operator.kubectl.get("crd", CRD)
    namespaced = "deployments,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets,configmaps"
    for kinds in (namespaced, "clusterroles,clusterrolebindings"):
        assert operator.kubectl.find(kinds, SELECTOR) == []
    assert {pod["status"]["phase"] for each in both for pod in each.pods()} == {"Running"}
    operator.install()

    # Upgraded and rolled back: other pods of the operator, the same of the experiments.
    for change in (
        partial(operator.install, podAnnotations={"upgraded": "yes"}),
        partial(operator.helm.run, *ROLLBACK),
    ):
        pods = uids(operator.pods())
        change()
        wait_for(lambda: pods.isdisjoint(uids(operator.pods())), SOON, "old pods of the operator are left")  # noqa: B023
    assert [each.identities() for each in both] == before

    assert "Phase:          Succeeded" in both[0].helm.run("test", both[0].name)
    assert not both[0].kubectl.find("pods", "app.kubernetes.io/name=resnet-experiment")
    for each in both:
        status = each.wait(lambda status: status.get("phase") in ("Succeeded", "Failed"), TRAINED, "it does not end")
        assert (status["phase"], status["attempt"], status["restarts"]) == ("Succeeded", 1, 0)
        assert condition(status, "Exported")["status"] == "True"
        assert status["top1"] > 0.5
        assert (each.folder / each.kubectl.namespace / each.name / "1" / "model.onnx").is_file()
    assert [each.identities() for each in both] == before


def test_on_the_nodes_network_a_port_that_is_taken_is_told_and_another_one_helps(
    operator: Operator, team: Team
) -> None:
    first = team("first", labels={})
    second = team("second", first.kubectl)
    on_host = {"hostNetwork": True, "nodeSelector": {"kubernetes.io/hostname": NODES[1]}}
    values = DIGITS | {"nodes": 1, "training": {"epochs": LONG}}
    values["podTemplate"] = DIGITS["podTemplate"] | on_host
    first.install(values)
    first.wait(trains, SOON, "it does not train")
    second.install(values)
    why = partial(condition, kind="PodsScheduled")
    status = second.wait(lambda status: why(status).get("reason") == "Unschedulable", SOON, "no condition tells it")
    assert "free ports" in why(status)["message"]

    # Ports of its own; but the one for metrics is taken by a pod that does not declare it, and answers what it likes.
    stranger = spec(container("web", "serve", "not a progress document"), node=NODES[1]) | {"hostNetwork": True}
    start(second.kubectl, pod("stranger", stranger))
    second.helm.uninstall(second.name)
    wait_for(lambda: not second.pods(), SOON, "its pod does not end")
    values["podTemplate"] |= {"ports": {"master": 23457, "metrics": 8080, "gang": 9403}}
    second.helm.install(second.name, EXPERIMENT, values)
    status = second.wait(lambda status: status.get("restarts"), SOON, "the end of its attempt is not seen")
    assert status["lastVerdict"]["reason"] == "PortInUse"
    assert "8080" in status["lastVerdict"]["message"]
    assert "step" not in status
    second.kubectl.delete("pod", "stranger")
    second.wait(trains, SOON, "it does not train on a port that is free again")
    assert (first.status["attempt"], first.status["restarts"]) == (1, 0)

    # Its pods end in order, and what they wrote stays.
    known = first.checkpoints()
    first.helm.uninstall(first.name)
    wait_for(lambda: not first.pods(), SOON, "its pod does not end")
    assert max(first.checkpoints()) > max(known, default=0)
    assert first.kubectl.get("pvc", "first-checkpoints")["status"]["phase"] == "Bound"
