"""Pods of the tests: small, and allowed where PodSecurity "restricted" is enforced."""

from __future__ import annotations

from tests.cluster.cluster import PROBE_IMAGE
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.waiting import wait_for

START_SECONDS = 90.0


def container(name: str, *arguments: str) -> Object:
    """One that runs a command of the probe: see tests/cluster/toolchain/probe/main.go."""
    return {
        "name": name,
        "image": PROBE_IMAGE,
        "args": list(arguments),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def spec(*containers: Object, node: str | None = None) -> Object:
    """The spec of a pod, on `node` or wherever the scheduler puts it."""
    return {
        "containers": list(containers),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {}),
    }


def pod(name: str, spec: Object, **labels: str) -> Object:
    """A pod of that spec."""
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def ready(kubectl: Kubectl, name: str) -> bool:
    """Whether a pod is Ready."""
    conditions = kubectl.get("pod", name)["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def start(kubectl: Kubectl, *pods: Object) -> list[Object]:
    """Create pods and wait until all are Ready; as the server has them then."""
    kubectl.apply(*pods)
    names = [each["metadata"]["name"] for each in pods]
    wait_for(lambda: all(ready(kubectl, name) for name in names), START_SECONDS, f"not Ready: {', '.join(names)}")
    return [kubectl.get("pod", name) for name in names]
