"""What several integration tests need: images to train on, and an API server."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.data import digits
from controller.crd import definition
from controller.kube.client import Client
from controller.kube.config import connect
from tests.cluster.cluster import Cluster
from tests.integration.kube import Namespace, install


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as JPEGs; not to be changed."""
    path = tmp_path_factory.mktemp("digits") / "data"
    digits.write(path)
    return path


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """An API server without nodes, that knows PyTorchJobs and ResNetExperiments."""
    state = Path(tempfile.mkdtemp(prefix="rnx"))
    cluster = Cluster(state, "api", say=lambda _: None)
    try:
        cluster.up()
        install(connect(str(cluster.kubeconfig)), definition())
        yield cluster.kubeconfig
    finally:
        cluster.down()
        shutil.rmtree(state, ignore_errors=True)


@pytest.fixture(scope="session")
def client(kubeconfig: Path) -> Client:
    """With all rights."""
    return connect(str(kubeconfig))


@pytest.fixture
def team(client: Client) -> Namespace:
    """A namespace of its own."""
    return Namespace.made(client)
