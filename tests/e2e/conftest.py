"""What the end-to-end tests share: the images of this repository in the cluster, and volumes that outlive pods."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import load_built
from tests.cluster.kubectl import Kubectl
from tests.e2e.claims import Claim, claims
from tests.e2e.experiments import Laboratory, few_digits
from tests.e2e.operator import Operator


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> None:
    """Images of the Dockerfiles, as the working tree has them, in every node."""
    load_built(node.containerd.socket for node in cluster.nodes)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, images: None) -> Iterator[Operator]:
    """The operator, installed by its chart, with short times, for all namespaces; removed with its kind at the end."""
    release = Operator.of(cluster)
    release.install()
    yield release
    release.remove()


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of train/ and val/ with a few real images."""
    folder = tmp_path_factory.mktemp("few")
    few_digits(folder / "few", folder / "all")
    return folder / "few"


@pytest.fixture
def laboratory(operator: Operator, namespace: Kubectl, claim: Claim, few: Path) -> Laboratory:
    """For experiments that the operator takes care of."""
    return Laboratory.furnished(namespace, claim, few)


@pytest.fixture
def claim(namespace: Kubectl) -> Iterator[Claim]:
    """Makes claims in the test's namespace."""
    with claims(namespace) as make:
        yield make
