"""The peer of `bench.controller`: the same first step, a PyTorchJob for each experiment, as a minimal kopf operator.

It does a small part of the work: no claim, no attempt, no verdict; one POST and one status patch per experiment.

    PYTHON_WITH_KOPF bench/kopf_peer.py KUBECONFIG NAMESPACE JOB.json HANDLERS
"""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import kopf
import kubernetes

KUBECONFIG, NAMESPACE, TEMPLATE, HANDLERS = sys.argv[1:]
JOB = json.loads(Path(TEMPLATE).read_text())


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    """As many handlers at a time as the other side has workers; kopf's own objects stay without a limit."""
    settings.execution.max_workers = int(HANDLERS)
    settings.posting.enabled = False


@kopf.on.login()
def login(**about: Any) -> kopf.ConnectionInfo | None:
    """By the kubeconfig that was given."""
    return kopf.login_with_kubeconfig(**about)


@kopf.on.create("resnet-operator.io", "v1alpha1", "resnetexperiments")
def created(name: str, namespace: str, uid: str, patch: kopf.Patch, **_: Any) -> None:
    """Makes the job of a new experiment."""
    job = copy.deepcopy(JOB)
    job["metadata"] |= {"name": f"{name}-1", "namespace": namespace}
    job["metadata"]["ownerReferences"][0] |= {"name": name, "uid": uid}
    api = kubernetes.client.CustomObjectsApi()
    api.create_namespaced_custom_object("kubeflow.org", "v1", namespace, "pytorchjobs", job)
    patch.status["attempt"] = 1


if __name__ == "__main__":
    os.environ["KUBECONFIG"] = KUBECONFIG
    kubernetes.config.load_kube_config(KUBECONFIG)  # type: ignore[no-untyped-call]
    kopf.run(namespaces=[NAMESPACE], standalone=True)
