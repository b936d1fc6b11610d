"""Small builders of what the Kubernetes API would show."""

from __future__ import annotations

import json
from typing import Any

from controller.api import Experiment, Status
from controller.times import to_text

NAMESPACE, NAME, UID = "team", "digits", "uid-of-experiment"
START = 1_800_000_000.0
NODES = 2


def experiment(status: Status | None = None, **spec: Any) -> Experiment:
    """An experiment of two pods; `spec` takes aliases (camelCase)."""
    document = {
        "apiVersion": "resnet-operator.io/v1alpha1",
        "kind": "ResNetExperiment",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": UID, "generation": 1},
        "spec": {
            "model": "resnet18",
            "accelerator": {"type": "cpu", "cardsPerNode": 2},
            "nodes": NODES,
            "dataset": {"name": "digits"},
            "training": {"batchSizePerDevice": 16},
            "checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "checkpoints"}}},
        }
        | spec,
    }
    result = Experiment.model_validate(document)
    return result if status is None else result.model_copy(update={"status": status})


def labels(attempt: int, index: int | None = None) -> dict[str, str]:
    """The labels of a job, or of a pod of that index."""
    found = {"resnet-operator.io/experiment": NAME, "resnet-operator.io/attempt": str(attempt)}
    return found if index is None else found | {"training.kubeflow.org/replica-index": str(index)}


def job(attempt: int = 1, *, owner: str = UID, deleting: float | None = None, **more: Any) -> dict[str, Any]:
    """A PyTorchJob that training-operator has picked up; `more`: created, suspend, conditions."""
    metadata = {
        "name": f"{NAME}-{attempt}",
        "uid": f"uid-of-job-{attempt}",
        "labels": labels(attempt),
        "creationTimestamp": to_text(more.get("created", START)),
        "ownerReferences": [{"uid": owner}],
    }
    if deleting is not None:
        metadata["deletionTimestamp"] = to_text(deleting)
    conditions = more.get("conditions", [{"type": "Created", "status": "True"}])
    return {
        "metadata": metadata,
        "spec": {"runPolicy": {"suspend": True} if more.get("suspend") else {}},
        "status": {"conditions": conditions},
    }


def pod(index: int = 0, attempt: int = 1, *, state: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A pod with its container in the given state; `more`: phase, reason, message, conditions, deleting, uid, limit."""
    conditions = [{"type": "PodScheduled", "status": "True"}, *more.get("conditions", ())]
    status: dict[str, Any] = {"phase": more.get("phase", "Pending"), "podIP": "10.0.0.1"}
    status |= {key: more[key] for key in ("reason", "message") if key in more}
    if state is not None:
        status["containerStatuses"] = [{"name": "pytorch", "state": state}]
    if more.get("scheduled", True):
        status["conditions"] = conditions
    else:
        status["conditions"] = [{"type": "PodScheduled", "status": "False"} | more.get("why", {})]
    metadata = {
        "name": f"{NAME}-{attempt}-worker-{index}",
        "uid": more.get("uid", f"uid-of-pod-{attempt}-{index}"),
        "labels": labels(attempt, index),
    }
    if more.get("deleting") is not None:
        metadata["deletionTimestamp"] = to_text(more["deleting"])
    resources = {"limits": {"memory": more["limit"]}} if "limit" in more else {}
    return {
        "metadata": metadata,
        "spec": {"nodeName": f"node-{index}", "containers": [{"name": "pytorch", "resources": resources}]},
        "status": status,
    }


def running(index: int = 0, attempt: int = 1, *, since: float = START, **more: Any) -> dict[str, Any]:
    """A pod that runs."""
    return pod(index, attempt, state={"running": {"startedAt": to_text(since)}}, phase="Running", **more)


def ended(code: int, index: int = 0, attempt: int = 1, *, words: str = "", **more: Any) -> dict[str, Any]:
    """A pod that has ended; `words` is its termination message, `runtime` the container's reason."""
    end = {
        "exitCode": code,
        "reason": more.pop("runtime", "Error" if code else "Completed"),
        "message": words,
        "startedAt": to_text(START),
        "finishedAt": to_text(more.pop("at", START + 60)),
    }
    return pod(index, attempt, state={"terminated": end}, phase="Failed" if code else "Succeeded", **more)


def disruption(reason: str, message: str = "") -> dict[str, Any]:
    """The condition that marks a pod as disrupted."""
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}


def progress(attempt: int = 1, **values: Any) -> dict[str, Any]:
    """A /progress document."""
    return {
        "namespace": NAMESPACE,
        "experiment": NAME,
        "attempt": attempt,
        "pod": f"{NAME}-{attempt}-worker-0",
        "phase": "train",
        "epoch": 1,
        "epochs": 8,
        "step": 10,
        "steps": 800,
    } | values


def words(attempt: int = 1, **values: Any) -> str:
    """A launcher's termination message."""
    return json.dumps(progress(attempt, **values))


DIGITS = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: digits}
spec:
  model: resnet18
  accelerator: {type: cpu}
  dataset: {name: digits}
  training: {epochs: 8, batchSizePerDevice: 32}
"""
"""A small experiment, as a user writes it."""
