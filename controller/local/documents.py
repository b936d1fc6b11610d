"""PURE: PyTorchJobs and pods in the shape of the Kubernetes API."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controller.local.template import CONTAINER, LOOPBACK


def timestamp(at: float) -> str:
    """Unix seconds as the Kubernetes API writes a time."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def condition(kind: str, now: float, status: str = "True") -> dict[str, str]:
    """One item of `status.conditions`."""
    return {"type": kind, "status": status, "lastTransitionTime": timestamp(now)}


def pod_document(job: Mapping[str, Any], template: Mapping[str, Any], index: int, now: float) -> dict[str, Any]:
    """The pod that training-operator makes for a replica, bound to a node as the scheduler would."""
    metadata, spec = job["metadata"], copy.deepcopy(dict(template["spec"]))
    given = template.get("metadata", {})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-worker-{index}",
            "namespace": metadata.get("namespace", ""),
            "uid": str(uuid.uuid4()),
            "creationTimestamp": timestamp(now),
            "annotations": dict(given.get("annotations", {})),
            "labels": given.get("labels", {})
            | {
                "training.kubeflow.org/operator-name": "pytorchjob-controller",
                "training.kubeflow.org/job-name": metadata["name"],
                "training.kubeflow.org/replica-type": "worker",
                "training.kubeflow.org/replica-index": str(index),
            },
            "ownerReferences": [
                {
                    "apiVersion": job["apiVersion"],
                    "kind": job["kind"],
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": spec | {"nodeName": f"node-{index}"},
        "status": {"phase": "Pending", "conditions": [condition("PodScheduled", now)], "startTime": timestamp(now)},
    }


def set_state(pod: dict[str, Any], phase: str, state: dict[str, Any], now: float) -> None:
    """Sets a pod's phase and the state of its container, with the conditions that follow from them."""
    ready = phase == "Running"
    scheduled = pod["status"]["conditions"][0]
    container = next(c for c in pod["spec"]["containers"] if c["name"] == CONTAINER)
    pod["status"] |= {
        "phase": phase,
        "podIP": LOOPBACK,
        "hostIP": LOOPBACK,
        "conditions": [
            scheduled,
            *(condition(kind, now, str(ready)) for kind in ("Ready", "ContainersReady")),
        ],
        "containerStatuses": [
            {
                "name": CONTAINER,
                "image": container.get("image", ""),
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            }
        ],
    }
