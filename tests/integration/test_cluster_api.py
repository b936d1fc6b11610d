"""The cluster's small profile: a real API server in seconds, as many as are wanted, and gone without a trace."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.description import describe
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.cluster.processes import Processes
from tests.cluster.state import ClusterError
from tests.cluster.waiting import wait_for

# On a new machine Kubernetes is built first.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Cluster]:
    said: list[str] = []
    server = Cluster(tmp_path / "api", "api", said.append)
    server.up()
    yield server
    server.down()


def with_state(directory: Path) -> list[int]:
    """The processes that were told of a path below `directory`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:
            continue
        if f"{directory}/".encode() in arguments:
            found.append(int(path.parent.name))
    return found


def test_the_api_server_knows_pytorchjobs_and_keeps_what_it_is_given(api_namespace: Kubectl) -> None:
    spec = {"pytorchReplicaSpecs": {"Worker": {"replicas": 2, "template": {"spec": {"containers": []}}}}}
    job = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": {"name": "job"}, "spec": spec}
    with pytest.raises(KubectlError, match=r"spec.template.spec.containers|containers"):
        api_namespace.create(job | {"spec": {"pytorchReplicaSpecs": {"Worker": {"template": {"spec": {}}}}}})
    uid = api_namespace.create(job)["metadata"]["uid"]
    assert [found["metadata"]["uid"] for found in api_namespace.find("pytorchjobs")] == [uid]
    api_namespace.delete("pytorchjob", "job")
    assert api_namespace.find("pytorchjobs") == []


def test_two_of_them_run_side_by_side_and_know_nothing_of_each_other(api_server: Cluster, second: Cluster) -> None:
    second.kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "only-here"}})
    assert second.kubectl.get("namespace", "only-here")["status"]["phase"] == "Active"
    with pytest.raises(KubectlError, match=r"NotFound|not found"):
        api_server.kubectl.get("namespace", "only-here")


def test_up_again_changes_nothing(second: Cluster) -> None:
    before = [pid for _, pid, _ in second.status()]
    assert second.up() is False
    assert [pid for _, pid, _ in second.status()] == before


@pytest.mark.parametrize("victim", ["kube-apiserver", "etcd"])
def test_after_a_kill_down_leaves_nothing(second: Cluster, victim: str) -> None:
    pid = second.processes.pid(victim)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: second.processes.pid(victim) is None, 10, "it survived")
    assert [name for name, pid, _ in second.status() if pid is None] == [victim]
    second.down()
    assert with_state(second.state) == []
    assert not second.state.exists()
    second.down()


def test_up_makes_one_that_is_not_whole_anew(second: Cluster) -> None:
    Processes.end(second.processes, "etcd")
    assert second.up() is True
    assert None not in [pid for _, pid, _ in second.status()]


def test_a_directory_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    for act in (Cluster(tmp_path, "api").up, Cluster(tmp_path, "api").down):
        with pytest.raises(ClusterError, match="holds something else than a cluster"):
            act()
    assert (tmp_path / "thesis.tex").exists()


def test_a_failed_test_is_told_of_events_and_pods(api_namespace: Kubectl) -> None:
    container = {
        "name": "main",
        "image": "localhost/none",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": security}
    api_namespace.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lonely"}, "spec": spec})
    api_namespace.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "event"},
            "involvedObject": {"kind": "Pod", "name": "lonely", "namespace": api_namespace.namespace},
            "reason": "Forgotten",
            "message": "nobody schedules it",
        }
    )
    text = describe(api_namespace)
    assert "Forgotten Pod/lonely: nobody schedules it" in text
    assert "pod lonely Pending on no node" in text
