"""The peer of `bench.controller`: the same first step as a minimal kopf operator.

It writes what ours writes: the attempt is claimed in status, the PyTorchJob made and noted in status, an Event told. It
renders nothing, checks nothing, and reads nothing again.

    PYTHON_WITH_KOPF bench/kopf_peer.py KUBECONFIG NAMESPACE JOB.json HANDLERS
"""

from __future__ import annotations

import copy
import json
import logging
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
    settings.posting.level = logging.WARNING  # its log lines are no Events


@kopf.on.login()
def login(**about: Any) -> kopf.ConnectionInfo | None:
    """By the kubeconfig that was given."""
    return kopf.login_with_kubeconfig(**about)


@kopf.on.create("resnet-operator.io", "v1alpha1", "resnetexperiments")
def created(name: str, namespace: str, uid: str, body: kopf.Body, patch: kopf.Patch, **_: Any) -> None:
    """Makes the job of a new experiment."""
    api = kubernetes.client.CustomObjectsApi()
    where = "resnet-operator.io", "v1alpha1", namespace, "resnetexperiments", name
    claim = {"metadata": {"resourceVersion": body.metadata["resourceVersion"]}, "status": {"attempt": 1}}
    api.patch_namespaced_custom_object_status(*where, claim)
    job = copy.deepcopy(JOB)
    job["metadata"] |= {"name": f"{name}-1", "namespace": namespace}
    job["metadata"]["ownerReferences"][0] |= {"name": name, "uid": uid}
    api.create_namespaced_custom_object("kubeflow.org", "v1", namespace, "pytorchjobs", job)
    patch.status["jobName"] = f"{name}-1"
    kopf.event(body, type="Normal", reason="AttemptStarting", message="attempt 1 begins")


if __name__ == "__main__":
    os.environ["KUBECONFIG"] = KUBECONFIG
    kubernetes.config.load_kube_config(KUBECONFIG)  # type: ignore[no-untyped-call]
    kopf.run(namespaces=[NAMESPACE], standalone=True)
