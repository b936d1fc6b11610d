"""What is kept of the documents that are watched: memory follows from it. PURE.

`controller.observed` reads nothing else of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from controller.api import LABEL_ATTEMPT, LABEL_EXPERIMENT
from controller.targets import CONTAINERS, INDEX_LABELS, TARGETS, Target

Document = dict[str, Any]
Key = tuple[str, str]
"""Namespace and name of an experiment."""

_LABELS = (LABEL_EXPERIMENT, LABEL_ATTEMPT, *INDEX_LABELS)
_METADATA = ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_CONDITIONS = {"PodScheduled", "Ready", "ContainersReady", "DisruptionTarget"}


def experiment(document: Document) -> Document:
    """An experiment without managed fields, labels and annotations."""
    return {
        "apiVersion": document["apiVersion"],
        "kind": document["kind"],
        "metadata": _some(document["metadata"], *_METADATA),
        "spec": document.get("spec") or {},
    } | _some(document, "status")


def job(target: Target, document: Document) -> Document:
    """Whose a job is, whether Kueue holds it, and whether its operator has seen it."""
    return {"metadata": _metadata(document), **target.trimmed(document)}


def pod(document: Document) -> Document:
    """A pod's training container, its node and its conditions."""
    spec, status = document["spec"], document.get("status") or {}
    containers = [_container(each) for each in spec["containers"] if each["name"] in CONTAINERS]
    states = [
        _some(each, "name", "state") for each in status.get("containerStatuses") or () if each["name"] in CONTAINERS
    ]
    conditions = [
        _some(each, "type", "status", "reason", "message")
        for each in status.get("conditions") or ()
        if each["type"] in _CONDITIONS
    ]
    return {
        "metadata": _metadata(document),
        "spec": _some(spec, "nodeName") | {"containers": containers},
        "status": _some(status, "phase", "reason", "message", "podIP")
        | {"conditions": conditions, "containerStatuses": states},
    }


TRIMS: dict[str, Callable[[Document], Document]] = {
    "resnetexperiments": experiment,
    **{target.plural: partial(job, target) for target in TARGETS.values()},
    "pods": pod,
}
"""Plural of a kind -> what is kept of its documents."""


def experiment_of(document: Document) -> Key | None:
    """The experiment that a job or a pod belongs to by its label."""
    metadata = document["metadata"]
    name = (metadata.get("labels") or {}).get(LABEL_EXPERIMENT)
    return (metadata["namespace"], name) if name else None


def _metadata(document: Document) -> Document:
    metadata = document["metadata"]
    labels = metadata.get("labels") or {}
    owners = [{"uid": owner["uid"]} for owner in metadata.get("ownerReferences") or ()]
    return _some(metadata, *_METADATA) | {"labels": _some(labels, *_LABELS), "ownerReferences": owners}


def _container(container: Document) -> Document:
    limits = (container.get("resources") or {}).get("limits") or {}
    ports = [_some(port, "name", "containerPort") for port in container.get("ports") or () if port.get("name")]
    return {"name": container["name"], "ports": ports, "resources": {"limits": _some(limits, "memory")}}


def _some(document: Document, *names: str) -> Document:
    return {name: document[name] for name in names if document.get(name) is not None}
