"""What the end-to-end tests share: the images of this repository in the cluster, and volumes that outlive pods."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images.build import DOCKERFILES, build_images, name
from tests.cluster.images.containerd import load
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.e2e.experiments import CHECKPOINTS, IMAGES, Laboratory, few_digits
from tests.e2e.operator import Operator

USER = 1000
BIND_SECONDS = 60.0
Claim = Callable[[str], Path]


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> None:
    """Images of the Dockerfiles, as the working tree has them, in every node."""
    load(build_images(), [name(part) for part in DOCKERFILES], [node.containerd.socket for node in cluster.nodes])


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
    images, checkpoints = claim(IMAGES), claim(CHECKPOINTS)
    shutil.copytree(few, images, dirs_exist_ok=True)
    return Laboratory(namespace, images, checkpoints)


@pytest.fixture
def claim(namespace: Kubectl) -> Iterator[Claim]:
    """Makes a claim that pods of both nodes may mount; its folder on this machine, which the pods' user may write."""
    folders: list[Path] = []

    def make(name: str) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{namespace.namespace}-"))
        folders.append(folder)
        shutil.chown(folder, USER, USER)
        volume = f"{namespace.namespace}-{name}"
        shape = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
        namespace.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": volume},
                "spec": {**shape, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder)}},
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name},
                "spec": {**shape, "volumeName": volume, "resources": {"requests": {"storage": "1Gi"}}},
            },
        )
        bound = lambda: namespace.get("pvc", name)["status"]["phase"] == "Bound"  # noqa: E731
        wait_for(bound, BIND_SECONDS, f"claim {name} is not bound")
        return folder

    yield make
    for folder in folders:
        shutil.rmtree(folder)
    for volume in namespace.find("pv"):
        if volume["metadata"]["name"].startswith(f"{namespace.namespace}-"):
            namespace.delete("pv", volume["metadata"]["name"], wait=False)
