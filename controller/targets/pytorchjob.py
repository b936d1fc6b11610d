"""Kubeflow's PyTorchJob (training-operator v1)."""

from __future__ import annotations

from typing import Any

from controller.targets.base import Document, Target


class PyTorchJob(Target):
    """Its pods have names that are known beforehand, and every field of a pod can be set."""

    kind, group, version, plural = "PyTorchJob", "kubeflow.org", "v1", "pytorchjobs"
    template = "pytorchjob.yaml.j2"
    container = "pytorch"
    index_label = "training.kubeflow.org/replica-index"
    operator = "training-operator"
    missing = (
        "TrainingOperatorMissing",
        "this cluster has no PyTorchJobs (kubeflow.org/v1): install Kubeflow's training-operator v1",
    )

    def suspended(self, job: Document) -> bool:
        """See `Target`."""
        return ((job.get("spec") or {}).get("runPolicy") or {}).get("suspend") is True

    def picked_up(self, job: Document) -> bool:
        """See `Target`: training-operator says Created at once."""
        return bool((job.get("status") or {}).get("conditions"))

    def trimmed(self, job: Document) -> dict[str, Any]:
        """See `Target`."""
        policy = {"suspend": True} if self.suspended(job) else {}
        conditions = (job.get("status") or {}).get("conditions") or []
        return {
            "spec": {"runPolicy": policy},
            "status": {"conditions": [{k: each[k] for k in ("type", "status")} for each in conditions[:1]]},
        }

    def pod_names(self, job: str, nodes: int) -> list[str] | None:
        """See `Target`."""
        return [f"{job}-worker-{index}" for index in range(nodes)]

    def makers(self, job: str) -> list[tuple[str, str]]:
        """See `Target`."""
        return [(self.kind, job)]
