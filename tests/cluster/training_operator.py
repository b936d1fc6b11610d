"""Kubeflow's training-operator as its module has it: the CRD alone, or all of it in a pod."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import scratch_image
from tests.cluster.cache import built, entry
from tests.cluster.gomodule import module_directory
from tests.cluster.kubectl import Kubectl
from tests.cluster.toolchain import TRAINING_OPERATOR, tool
from tests.cluster.waiting import wait_for

NAMESPACE = "kubeflow"
DEPLOYMENT = "training-operator"
CRD = "base/crds/kubeflow.org_pytorchjobs.yaml"
JOBS = "/apis/kubeflow.org/v1/pytorchjobs"
OVERLAY = "overlays/standalone"
# The released image has its program here.
PROGRAM = "/manager"
READY_SECONDS = 120.0


def image() -> str:
    """The name under which its image is loaded."""
    return f"localhost/training-operator:v{TRAINING_OPERATOR.version()}"


def archive() -> bytes:
    """Its image: the released one is the same program on a base that it does not use."""
    return scratch_image.archive(image(), tool("manager"), PROGRAM)


def manifests_entry() -> Path:
    """Where its manifests lie in the cache, fetched or not."""
    return entry("training-operator-manifests", TRAINING_OPERATOR.directory.glob("*"))


def manifests() -> Path:
    """The manifests/ of its module, fetched if they are not in the cache.

    Raises:
        RuntimeError: they can't be.
    """

    def copy(into: Path) -> None:
        source = module_directory(TRAINING_OPERATOR.name, TRAINING_OPERATOR.module) / "manifests"
        # Go keeps them read-only, and a cache is to be removable.
        subprocess.run(["cp", "-r", "--no-preserve=mode", f"{source}/.", into], check=True)

    return built(manifests_entry(), copy)


def install_crd(kubectl: Kubectl) -> None:
    """Install the PyTorchJob type alone, and wait until the API server serves it."""
    kubectl.run("apply", "--server-side", "--filename", str(manifests() / CRD))
    wait_for(lambda: kubectl.run("get", "--raw", JOBS), READY_SECONDS, "the API server does not serve PyTorchJobs")


def install(kubectl: Kubectl) -> None:
    """Install all of it; ready() waits until it works."""
    objects = yaml.load_all(kubectl.run("kustomize", str(manifests() / OVERLAY)), Loader=yaml.CSafeLoader)
    kubectl.apply(*(_with_our_image(each) for each in objects))


def wait_until_ready(kubectl: Kubectl) -> None:
    """Wait until it runs and its webhook answers: only then does it refuse a wrong job, and accept a right one."""
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "probe"},
        "spec": {
            "pytorchReplicaSpecs": {
                "Worker": {"template": {"spec": {"containers": [{"name": "pytorch", "image": image()}]}}}
            }
        },
    }

    def accepts() -> bool:
        kubectl.run("create", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump(job))
        return True

    wait_for(accepts, READY_SECONDS, "training-operator's webhook does not answer")


def _with_our_image(content: Mapping[str, Any]) -> Mapping[str, Any]:
    if content["kind"] == "Deployment":
        (container,) = content["spec"]["template"]["spec"]["containers"]
        container.update(image=image(), imagePullPolicy="Never")
        # A service has no endpoint before its pod is ready: asking each second makes the cluster ready 20 s earlier.
        container["readinessProbe"].update(initialDelaySeconds=1, periodSeconds=1)
    return content
