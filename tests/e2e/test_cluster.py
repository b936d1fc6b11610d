"""The cluster that the end-to-end tests stand on does what a real one does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import cgroups
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.control_plane import DOMAIN
from tests.cluster.kubectl import Kubectl, KubectlError, Object
from tests.cluster.waiting import wait_for
from tests.e2e.pods import container, pod, ready, spec, start

# The first test of a session waits for the cluster; on a new machine it is built first.
pytestmark = pytest.mark.timeout(1800)
CARD = "tecorigin.com/tcaicard"


def condition(kubectl: Kubectl, node: str) -> str:
    (found,) = (each for each in kubectl.get("node", node)["status"]["conditions"] if each["type"] == "Ready")
    return str(found["status"])


def server(name: str, node: str) -> Object:
    """A pod that serves its own name over HTTP on port 8080."""
    return pod(name, spec(container("web", "serve", name), node=node), at=node)


def fetch(kubectl: Kubectl, source: str, address: str) -> str:
    """What a pod gets over HTTP from `address`."""
    return kubectl.execute(source, "/probe", "get", f"http://{address}").strip()


def resolve(kubectl: Kubectl, source: str, name: str) -> str:
    """The address that a pod finds for a name."""
    return kubectl.execute(source, "/probe", "resolve", name).strip()


def test_both_nodes_are_ready(cluster: Cluster) -> None:
    assert [condition(cluster.kubectl, name) for name in NODES] == ["True", "True"]


def test_pods_reach_each_other_and_services_by_name_from_either_node(namespace: Kubectl) -> None:
    pods = start(namespace, *(server(f"on-{node}", node) for node in NODES))
    assert [each["spec"]["nodeName"] for each in pods] == list(NODES)
    for node in NODES:
        content = {"selector": {"at": node}, "ports": [{"port": 80, "targetPort": 8080}]}
        namespace.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"to-{node}"}, "spec": content})
    for source in (each["metadata"]["name"] for each in pods):
        for target, node in zip(pods, NODES, strict=True):
            name, service = target["metadata"]["name"], f"to-{node}"
            assert fetch(namespace, source, f"{target['status']['podIP']}:8080") == name
            address = namespace.get("service", service)["spec"]["clusterIP"]
            for written in (service, f"{service}.{namespace.namespace}.svc.{DOMAIN}"):
                found = partial(resolve, namespace, source, written)
                assert wait_for(found, 20, f"{source} does not find {written}") == address
            # A service on the same node, too: its packets leave the bridge where they came in.
            answer = partial(fetch, namespace, source, service)
            assert wait_for(answer, 20, f"{source} gets no answer of {service}") == name


def test_training_operator_makes_the_pods_of_a_job_and_its_webhook_refuses_a_wrong_one(namespace: Kubectl) -> None:
    def job(name: str, replica: str) -> Object:
        template = {"spec": spec(container("pytorch", "say", "rank $PET_NNODES"))}
        replicas = {replica: {"replicas": 2, "restartPolicy": "Never", "template": template}}
        content = {"runPolicy": {"cleanPodPolicy": "None"}, "pytorchReplicaSpecs": replicas}
        return {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": name}, "spec": content}

    namespace.create(job("two", "Worker"))

    def succeeded() -> bool:
        conditions = namespace.get("pytorchjob", "two")["status"]["conditions"]
        return any(each["type"] == "Succeeded" and each["status"] == "True" for each in conditions)

    wait_for(succeeded, 90, "the job did not succeed")
    assert [namespace.logs(f"two-worker-{index}") for index in (0, 1)] == ["rank 2\n", "rank 2\n"]
    with pytest.raises(KubectlError, match=r"denied the request.*Boss"):
        namespace.create(job("wrong", "Boss"))


def test_a_privileged_pod_is_refused(namespace: Kubectl) -> None:
    privileged = spec(container("main", "wait"))
    privileged["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted:latest"'):
        namespace.create(pod("privileged", privileged))


@pytest.fixture
def cards(cluster: Cluster) -> Iterator[int]:
    """Two cards on node-b."""
    cluster.advertise("node-b", CARD, 2)
    yield 2
    cluster.advertise("node-b", CARD, 0)


def test_a_card_that_a_node_advertises_is_what_a_pod_is_scheduled_by(namespace: Kubectl, cards: int) -> None:
    wanted = container("main", "wait") | {"resources": {"limits": {CARD: str(cards)}}}
    (first,) = start(namespace, pod("first", spec(wanted)))
    assert first["spec"]["nodeName"] == "node-b"
    namespace.apply(pod("second", spec(wanted)))

    def refused() -> bool:
        return any(f"Insufficient {CARD}" in event["message"] for event in namespace.find("events"))

    wait_for(refused, 30, "the second pod is not refused for want of cards")


def test_a_node_goes_as_if_its_power_went_and_comes_back_with_its_pods(
    cluster: Cluster, namespace: Kubectl, cards: int
) -> None:
    (before,) = start(namespace, server("stays", "node-b"))
    kept = cluster.node("node-b")
    assert cgroups.processes("node-b")

    with socket.create_connection((before["status"]["podIP"], 8080), timeout=3) as peer:
        cluster.stop_node("node-b")
        with pytest.raises(TimeoutError):
            peer.recv(1)

    assert kept.init_pid() is None
    assert cgroups.processes("node-b") == set()
    assert not Path("/sys/class/net/rnx-1").exists()
    wait_for(lambda: condition(cluster.kubectl, "node-b") == "Unknown", 60, "nobody noticed that node-b is off")
    assert condition(cluster.kubectl, "node-a") == "True"

    cluster.start_node("node-b")

    assert condition(cluster.kubectl, "node-b") == "True"
    wait_for(lambda: ready(namespace, "stays"), 60, "the pod did not come back")
    after = namespace.get("pod", "stays")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 1
    assert cluster.kubectl.get("node", "node-b")["status"]["allocatable"][CARD] == str(cards)
