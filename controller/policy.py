"""What this controller allows of what the API has. PURE.

The API is a positive list already: of volumes claims and emptyDirs, of variables literal values, and neither service
accounts nor further containers, privileges, host paths or node names. What is left that reaches beyond the pod is
refused unless whoever runs the controller allows it, so that the right to edit experiments gives no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.api import Spec

_SYSTEM_PRIORITY = "system-"


@dataclass(frozen=True)
class Policy:
    """What is allowed besides.

    Attributes:
        host_network: podTemplate.hostNetwork: the pods share the node's addresses and ports.
        host_ipc: podTemplate.hostIPC: the pods share the node's shared memory and semaphores.
    """

    host_network: bool = False
    host_ipc: bool = False


def refusal(spec: Spec, policy: Policy) -> str:
    """What of the spec is not allowed, in one line; empty: all of it is."""
    pod, found = spec.pod_template, []
    if pod.host_network and not policy.host_network:
        found.append("spec.podTemplate.hostNetwork: this controller runs without --allow-host-network")
    if pod.host_ipc and not policy.host_ipc:
        found.append("spec.podTemplate.hostIPC: this controller runs without --allow-host-ipc")
    if spec.priority_class_name is not None and spec.priority_class_name.startswith(_SYSTEM_PRIORITY):
        found.append(f"spec.priorityClassName: {spec.priority_class_name} is for the cluster's own pods")
    return "; ".join(found)
