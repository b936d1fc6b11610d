"""Kueue, JobSet and the Trainer, each as its module has it: installed for the tests that need them, and removed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.cluster import scratch_image
from tests.cluster.cluster import Cluster
from tests.cluster.gomodule import module_directory
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.toolchain import JOBSET, KUEUE, TRAINER, Part, tool
from tests.cluster.waiting import wait_for

READY_SECONDS = 180.0
# The released images have their program here.
PROGRAM = "/manager"
KINDS = {"kubeflow.org/pytorchjob": "pytorchjobs", "trainer.kubeflow.org/trainjob": "trainjobs"}
"""The integrations of Kueue that are on, and what they handle."""


@dataclass(frozen=True)
class Addition:
    """A controller with its kinds and webhooks.

    Attributes:
        part: what it is built from; its image holds that one program.
        objects: all that is installed of it, as kubectl makes it of the module's manifests.
        probe: what its webhook accepts once it answers.
        leftovers: kinds whose objects it has to let go of (finalizers) before it is removed.
    """

    part: Part
    objects: Callable[[Kubectl], list[Object]]
    probe: Object
    leftovers: Sequence[str] = ()

    @property
    def image(self) -> str:
        """The name under which its image is loaded."""
        return f"localhost/{self.part.name}:v{self.part.version()}"

    def install(self, cluster: Cluster) -> None:
        """Load its image, apply its manifests, and wait until its webhook answers."""
        archive = scratch_image.archive(self.image, tool(self.part.programs[0]), PROGRAM)
        for node in cluster.nodes:
            node.containerd.ctr("images", "import", "-", stdin=archive)
        cluster.kubectl.apply(*self._prepared(cluster.kubectl), timeout=READY_SECONDS)

        def accepts() -> bool:
            cluster.kubectl.run("create", "--dry-run=server", "--filename", "-", stdin=yaml.safe_dump(self.probe))
            return True

        wait_for(accepts, READY_SECONDS, f"the webhook of {self.part.name} does not answer")

    def remove(self, cluster: Cluster) -> None:
        """Delete all of it, its kinds with every object of theirs included."""
        kubectl = cluster.kubectl
        for kind in self.leftovers:
            kubectl.run("delete", kind, "--all", "--all-namespaces", "--wait", timeout=READY_SECONDS)
        # Webhooks first: nothing answers them any more once their Deployment is gone.
        objects = sorted(self._prepared(kubectl), key=lambda each: "Webhook" not in each["kind"])
        text = yaml.safe_dump_all(objects)
        kubectl.run("delete", "--ignore-not-found", "--filename", "-", stdin=text, timeout=READY_SECONDS)
        for node in cluster.nodes:
            node.containerd.ctr("images", "rm", self.image)

    def _prepared(self, kubectl: Kubectl) -> list[Object]:
        found = self.objects(kubectl)
        for each in found:
            if each["kind"] == "Deployment":
                (container,) = each["spec"]["template"]["spec"]["containers"]
                container.update(image=self.image, imagePullPolicy="Never", command=[PROGRAM])
                # Two cores carry everything, and the tests wait for it.
                container["resources"] = {}
                container["readinessProbe"].update(initialDelaySeconds=1, periodSeconds=1)
        return found


@contextmanager
def added(cluster: Cluster, *additions: Addition) -> Iterator[None]:
    """All of these, in this order, until the end."""
    try:
        for each in additions:
            each.install(cluster)
        yield
    finally:
        for each in reversed(additions):
            each.remove(cluster)


def _kustomized(kubectl: Kubectl, folder: Path) -> list[Object]:
    return [each for each in yaml.load_all(kubectl.run("kustomize", str(folder)), Loader=yaml.CSafeLoader) if each]


def _kueue(kubectl: Kubectl) -> list[Object]:
    found = _kustomized(kubectl, module_directory(KUEUE.name, KUEUE.module) / "config" / "default")
    # Its API for lists of what waits needs an API server that knows front proxies.
    found = [each for each in found if each["kind"] != "APIService"]
    for each in found:
        for name, text in each.get("data", {}).items() if each["kind"] == "ConfigMap" else ():
            config = yaml.safe_load(text)
            config["integrations"]["frameworks"] = list(KINDS)
            each["data"][name] = yaml.safe_dump(config)
        if "Webhook" in each["kind"]:
            # Others fail cluster-wide for every pod and every Deployment while Kueue is away.
            each["webhooks"] = [hook for hook in each["webhooks"] if _ours(hook)]
    return found


def _ours(hook: Object) -> bool:
    return all(
        group == "kueue.x-k8s.io" or set(rule["resources"]) <= set(KINDS.values())
        for rule in hook["rules"]
        for group in rule["apiGroups"]
    )


def _jobset(kubectl: Kubectl) -> list[Object]:
    return _kustomized(kubectl, module_directory(JOBSET.name, JOBSET.module) / "config" / "default")


def _trainer(kubectl: Kubectl) -> list[Object]:
    """Its own overlay brings a JobSet along, and an address outside for its image."""
    base = module_directory(TRAINER.name, TRAINER.module) / "manifests" / "base"
    namespace = "kubeflow-system"
    with tempfile.TemporaryDirectory() as folder:
        parts = [os.path.relpath(base / part, folder) for part in ("crds", "manager", "rbac", "webhook")]
        secret = {"name": "kubeflow-trainer-webhook-cert", "options": {"disableNameSuffixHash": True}}
        overlay = {"namespace": namespace, "resources": parts, "secretGenerator": [secret]}
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        found = _kustomized(kubectl, Path(folder))
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}, *found]


_CONTAINER = {"name": "node", "image": "none"}
_JOB = {"template": {"spec": {"restartPolicy": "Never", "containers": [_CONTAINER]}}}
QUEUES = Addition(
    KUEUE,
    _kueue,
    {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "ResourceFlavor", "metadata": {"name": "probe"}},
    ("clusterqueues", "resourceflavors"),
)
JOB_SETS = Addition(
    JOBSET,
    _jobset,
    {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "probe"},
        "spec": {"replicatedJobs": [{"name": "node", "template": {"spec": _JOB}}]},
    },
)
TRAINING_JOBS = Addition(
    TRAINER,
    _trainer,
    {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": "probe"},
        "spec": {"template": {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": _JOB}}]}}},
    },
    ("clustertrainingruntimes",),
)
