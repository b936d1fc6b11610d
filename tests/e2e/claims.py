"""Volumes that outlive pods, and that both nodes and this machine can see."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.fixtures import vacate
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for

USER = 1000
"""Of the pods."""
BIND_SECONDS = 60.0
Claim = Callable[[str], Path]
"""Makes a claim of that name, which pods of both nodes may mount and their user write; its folder on this machine."""


@contextmanager
def claims(namespace: Kubectl) -> Iterator[Claim]:
    """Makes claims in a namespace; at the end it goes first, since its pods may still write."""
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

    try:
        yield make
    finally:
        vacate(namespace)
        for folder in folders:
            shutil.rmtree(folder)
        for volume in namespace.find("pv"):
            if volume["metadata"]["name"].startswith(f"{namespace.namespace}-"):
                namespace.delete("pv", volume["metadata"]["name"], wait=False)
