"""Kubeflow's TrainJob (Trainer v2): a JobSet of one indexed Job, whose pods the Job controller makes.

What of a pod a TrainJob has no field for stands in the ClusterTrainingRuntime that it names: charts/resnet-operator
and manifests/trainer install it. There a failed pod is not replaced and does not end the others, so that all of them
can say how they ended (backoffLimitPerIndex 0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from controller.targets.base import Document, Target

if TYPE_CHECKING:
    from controller.api import Spec

_NO_FIELD = "a TrainJob has no field for it: leave it out, or use target PyTorchJob"
GRACE_SECONDS = 120
"""terminationGracePeriodSeconds of the runtime, which holds where the experiment has a queue. Kueue 0.19 knows the
TrainJob of Trainer 2.2, which lacks the field that 2.3 has for it, and would drop it as it admits the job; but the
JobSet that is there by then may not change like that. The launcher keeps to the experiment's own, which must not be
longer."""
_LONGER = f"must be at most {GRACE_SECONDS} for a TrainJob with queueName, whose pods have the runtime's"
POLICY = "IfNotPresent"
"""When the runtime pulls images."""


class TrainJob(Target):
    """It has less of a pod than a PyTorchJob has, and names of pods that nobody knows beforehand."""

    kind, group, version, plural = "TrainJob", "trainer.kubeflow.org", "v1alpha1", "trainjobs"
    template = "trainjob.yaml.j2"
    container = "node"
    index_label = "batch.kubernetes.io/job-completion-index"
    operator = "Kubeflow Trainer"
    missing = (
        "TrainerMissing",
        "this cluster has no TrainJobs (trainer.kubeflow.org/v1alpha1): install Kubeflow Trainer v2",
    )

    def suspended(self, job: Document) -> bool:
        """See `Target`."""
        return (job.get("spec") or {}).get("suspend") is True

    def picked_up(self, job: Document) -> bool:
        """See `Target`: one that runs has no condition, but the state of its Job."""
        status = job.get("status") or {}
        return bool(status.get("conditions") or status.get("jobsStatus"))

    def trimmed(self, job: Document) -> dict[str, Any]:
        """See `Target`."""
        status = job.get("status") or {}
        kept: dict[str, Any] = {name: [{}] for name in ("conditions", "jobsStatus") if status.get(name)}
        return {"spec": {"suspend": self.suspended(job)}, "status": kept}

    def pod_names(self, job: str, nodes: int) -> list[str] | None:  # noqa: ARG002
        """See `Target`: <job>-node-0-<index>-<five letters>."""
        return None

    def makers(self, job: str) -> list[tuple[str, str]]:
        """See `Target`: the Trainer tells of a JobSet that is refused, the Job controller of pods."""
        return [(self.kind, job), ("Job", f"{job}-node-0")]

    def cannot(self, spec: Spec) -> list[tuple[str, str]]:
        """See `Target`: TrainJob's PodSpecPatch is short; ports and pull policy are the runtime's."""
        pod = spec.pod_template
        asked = {
            "spec.priorityClassName": spec.priority_class_name is not None,
            "spec.imagePullPolicy": spec.image_pull_policy != POLICY,
            "spec.podTemplate.hostNetwork": pod.host_network,
            "spec.podTemplate.hostIPC": pod.host_ipc,
            "spec.podTemplate.ports": pod.ports != type(pod.ports)(),
        }
        found = [(path, _NO_FIELD) for path, given in asked.items() if given]
        if spec.queue_name is not None and pod.termination_grace_period_seconds > GRACE_SECONDS:
            found.append(("spec.podTemplate.terminationGracePeriodSeconds", _LONGER))
        return found
