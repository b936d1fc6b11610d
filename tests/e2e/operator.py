"""The operator in the cluster, as a release of its chart."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import cgroups
from tests.cluster.cluster import Cluster
from tests.cluster.fixtures import RESTRICTED
from tests.cluster.helm import Helm
from tests.cluster.kubectl import Kubectl, Object

NAME = "resnet-operator"
"""Of release, chart, namespace, Deployment and Lease."""
CRD = "resnetexperiments.resnet-operator.io"
SELECTOR = f"app.kubernetes.io/name={NAME}"
READY_SECONDS = 120.0
# The controller's own times, shorter than its defaults, and long enough for kubelets.
TIMES = (
    "backoff_base=1", "backoff_max=5", "settle=10", "peer_extra=10", "reachable_after=10", "create_retry=2",
    "dead_node=5", "resync=5",
)  # fmt: skip
VALUES = {"extraArgs": [*(f"--timing={each}" for each in TIMES), "--progress-seconds=1"], "allowHostNetwork": True}
"""What it is installed with here."""


@dataclass(frozen=True)
class Operator:
    """The release. `kubectl` is in its namespace."""

    helm: Helm
    kubectl: Kubectl

    @classmethod
    def of(cls, cluster: Cluster) -> Operator:
        """That of a cluster, installed or not."""
        return cls(Helm(cluster.kubeconfig, NAME), cluster.kubectl.within(NAME))

    def install(self, **values: Any) -> None:
        """Install it, or upgrade it to VALUES with these, and wait until it is ready."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "labels": RESTRICTED}}
        self.kubectl.apply(namespace)
        self.helm.install(NAME, NAME, VALUES | values, "--wait", f"--timeout={READY_SECONDS:.0f}s")

    def remove(self) -> None:
        """Uninstall it, and delete what that leaves: experiments with their kind, and the namespace."""
        self.helm.uninstall(NAME)
        self.kubectl.delete("crd", CRD)
        # Its name is needed again, so it is waited for.
        self.kubectl.delete("namespace", NAME, timeout=READY_SECONDS)

    def pods(self) -> list[Object]:
        """Its pods."""
        return self.kubectl.find("pods", SELECTOR)

    def holder(self) -> str:
        """Who holds the Lease: a process, of which a pod may have several one after another; empty: none does."""
        return str(self.kubectl.get("lease", NAME)["spec"].get("holderIdentity") or "")

    def leader(self) -> str:
        """The name of the pod that holds the Lease; empty: none does."""
        return self.holder().rpartition("_")[0]

    def process(self, cluster: Cluster) -> int:
        """The process that leads, as this machine sees it.

        Raises:
            LookupError: there is none.
        """
        leader = self.leader()
        node = self.kubectl.get("pod", leader)["spec"]["nodeName"]
        for pid in cgroups.processes(node):
            about = Path(f"/proc/{pid}")
            try:
                words, variables = (about / "cmdline").read_bytes(), (about / "environ").read_bytes()
            except OSError:
                continue  # it has ended
            if b"\0controller\0" in words and f"HOSTNAME={leader}".encode() in variables.split(b"\0"):
                return pid
        raise LookupError(f"{leader} has no process on {node}")
