"""The pages' commands for kubectl and Helm, typed for an API server without nodes."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.waiting import wait_for
from tests.markdown import ROOT, commands, having
from tests.typed import typed

# On a new machine Helm and Kubernetes are built first.
pytestmark = pytest.mark.timeout(1500)
SECONDS = 120.0
# The chart of the operator brings the kind that the one of experiments needs.
CHARTS = [
    ROOT / path
    for path in ("docs/device-plugin.md", "charts/resnet-operator/README.md", "charts/resnet-experiment/README.md")
]
READMES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


@pytest.fixture
def server() -> Iterator[Cluster]:
    """An API server of the test's own, with nothing but the PyTorchJob type."""
    state = Path(tempfile.mkdtemp(prefix="rnx"))
    cluster = Cluster(state, "api", say=lambda _: None)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()
        shutil.rmtree(state, ignore_errors=True)


def test_no_page_with_such_commands_is_left_out() -> None:
    assert set(having("api")) == {*READMES, *CHARTS}


def test_without_helm(server: Cluster, tmp_path: Path) -> None:
    said = typed(commands(READMES[0], "api"), server.kubeconfig, "default", tmp_path, SECONDS)
    assert "deployment.apps/resnet-operator serverside-applied" in said
    assert said.splitlines()[-1].split()[:2] == ["resnet50-4cards", "resnet50"]


def test_the_charts(server: Cluster, tmp_path: Path) -> None:
    kinds = lambda: server.kubectl.run("api-resources", "--api-group=resnet-operator.io", "--output=name")  # noqa: E731
    for page in CHARTS:
        typed(commands(page, "api"), server.kubeconfig, "default", tmp_path, SECONDS)
        if page.parent.name == "resnet-operator":
            wait_for(lambda: kinds().strip(), 30, "the kind is not served")
    assert {each["metadata"]["name"] for each in server.kubectl.find("rnx", "")} == {"r50", "r50-by-hand"}
    assert server.kubectl.within("resnet-device-plugin").get("daemonset", "resnet-device-plugin")
