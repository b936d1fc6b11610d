"""pytest's fixtures for tests on a real API server or a real cluster; tests/conftest.py makes them known.

What a namespace of a failed test looked like is printed with the failure.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, default_state
from tests.cluster.description import describe
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.waiting import wait_for

KEEP = "RESNET_OPERATOR_KEEP_CLUSTER"
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}
DELETION_SECONDS = 120.0


@pytest.fixture(scope="session")
def api_server() -> Iterator[Cluster]:
    """An API server of this session's own, with the PyTorchJob type and no nodes."""
    places = Path(tempfile.gettempdir())
    for left in places.glob(f"rnx-api-{os.getuid()}-*"):
        if not Path("/proc", left.name.rpartition("-")[2]).exists():
            Cluster(left, "api").down()
    server = Cluster(places / f"rnx-api-{os.getuid()}-{os.getpid()}", "api")
    server.up()
    yield server
    server.down()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster of this machine: the one that runs, else a new one, taken down at the end unless $KEEP is 1."""
    running = Cluster(default_state("full"))
    started = running.up()
    yield running
    if started and os.environ.get(KEEP) != "1":
        running.down()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Kubectl]:
    """kubectl in a namespace of this test alone, which enforces PodSecurity "restricted"."""
    with own_namespace(cluster.kubectl) as kubectl:
        yield kubectl


@pytest.fixture
def api_namespace(api_server: Cluster) -> Iterator[Kubectl]:
    """kubectl in a namespace of this test alone, on the API server without nodes."""
    kubectl = api_server.kubectl.within(new_namespace(api_server.kubectl))
    yield kubectl
    # Nothing there ends a namespace: it stays Terminating.
    kubectl.delete("namespace", kubectl.namespace, wait=False)


@contextmanager
def own_namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    """kubectl in a new namespace, which is deleted at the end, when its pods have ended."""
    inside = kubectl.within(new_namespace(kubectl))
    yield inside
    vacate(inside)


def vacate(namespace: Kubectl) -> None:
    """Delete a namespace, if it exists, and wait until its pods have ended."""
    namespace.delete("namespace", namespace.namespace, wait=False)
    # Its own end takes five seconds more, and disturbs nobody.
    wait_for(lambda: not namespace.find("pods"), DELETION_SECONDS, f"pods of {namespace.namespace} do not end")


def new_namespace(kubectl: Kubectl, labels: Mapping[str, str] = RESTRICTED) -> str:
    """Create a namespace, which enforces PodSecurity "restricted" unless it has other labels; its name."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    content: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    kubectl.create(content)
    return name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the test's namespaces held."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for value in item.funcargs.values():
            if isinstance(value, Kubectl) and value.namespace:
                report.sections.append((f"namespace {value.namespace}", describe(value)))
    return report
