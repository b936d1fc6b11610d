"""The device plugin in the cluster, as a release of its chart, and the nodes' devices for it.

They are character devices that a container may not open unless the runtime is told so: fuse and loop-control, whose
opening does nothing. The resource's name is the tests' own: a kubelet that has known a device plugin for a name keeps
what other tests advertise by hand under that name at 0.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import cgroups
from tests.cluster.cluster import Cluster
from tests.cluster.helm import Helm
from tests.cluster.images.build import name
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.node import Node
from tests.cluster.waiting import wait_for
from tests.e2e import pods

NAME = "resnet-device-plugin"
"""Of release, chart, namespace and DaemonSet."""
SELECTOR = f"app.kubernetes.io/name={NAME}"
PRIVILEGED = {"pod-security.kubernetes.io/enforce": "privileged"}
RESOURCE = "tests.resnet-operator.io/tcaicard"
FOLDER = "/run/cards"
DEVICES, PER_CARD = 8, 4
MISC = 10
# Minor numbers, one for each card.
MINORS = (229, 237)
TABLE = f"{FOLDER}/table"
"""What the health command prints."""
VALUES: Object = {
    "resourceName": RESOURCE,
    "devices": {"path": f"{FOLDER}/tcaicard"},
    "health": {"command": f"cat /host{TABLE}", "intervalSeconds": 1},
    # Opening devices takes no memory; two cores carry the whole cluster.
    "resources": {"requests": {"cpu": "1m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
}
READY_SECONDS = 120.0
SOON = 60.0


def make_devices(node: Node, *numbers: int) -> None:
    """Make device files as a driver does: root's alone."""
    commands = [f"mkdir -p {FOLDER}"]
    for number in numbers:
        commands.append(f"mknod -m 600 {FOLDER}/tcaicard{number} c {MISC} {MINORS[number // PER_CARD]}")
    node.run(["sh", "-e", "-c", "; ".join(commands)])


def tell_health(node: Node, **sick: str) -> None:
    """Let the vendor's tool say so of each device: tell_health(node, d2="DEVICE_LOST")."""
    line = "|   {n}    TECO_AICARD_01         | 00000000:0{card}:00.0     | {word} 0% |"
    lines = [line.format(n=n, card=n // PER_CARD, word=sick.get(f"d{n}", "OK")) for n in range(DEVICES)]
    text = "\n".join(lines)
    node.run(["sh", "-e", "-c", f"printf '%s\\n' '{text}' >{TABLE}.new; mv {TABLE}.new {TABLE}"])


@dataclass(frozen=True)
class DevicePlugin:
    """The release. `kubectl` is in its namespace."""

    cluster: Cluster
    helm: Helm
    kubectl: Kubectl

    @classmethod
    def of(cls, cluster: Cluster) -> DevicePlugin:
        """That of a cluster, installed or not."""
        return cls(cluster, Helm(cluster.kubeconfig, NAME), cluster.kubectl.within(NAME))

    def install(self, **values: Any) -> None:
        """Make the devices of both nodes, install it or upgrade it to VALUES with these, and wait for all devices."""
        for node in self.cluster.nodes:
            node.run(["rm", "-rf", FOLDER])
            make_devices(node, *range(DEVICES))
            tell_health(node)
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME, "labels": PRIVILEGED}})
        self.helm.install(NAME, NAME, VALUES | values, "--wait", f"--timeout={READY_SECONDS:.0f}s")
        for node in self.cluster.nodes:
            self.wait(node.name, DEVICES)

    def remove(self) -> None:
        """Uninstall it."""
        self.helm.uninstall(NAME)
        self.kubectl.delete("namespace", NAME, timeout=READY_SECONDS)
        for node in self.cluster.nodes:
            node.run(["rm", "-rf", FOLDER])

    def pod(self, node: str) -> Object:
        """Its pod on a node."""
        (found,) = (each for each in self.kubectl.find("pods", SELECTOR) if each["spec"].get("nodeName") == node)
        return found

    def log(self, node: str) -> str:
        """What it printed there."""
        return self.kubectl.logs(self.pod(node)["metadata"]["name"])

    def metrics(self, node: str) -> list[str]:
        """Lines of its metrics there."""
        name = self.pod(node)["metadata"]["name"]
        return self.kubectl.run(
            "get", "--raw", f"/api/v1/namespaces/{NAME}/pods/{name}:9403/proxy/metrics"
        ).splitlines()

    def kill(self, node: str) -> None:
        """SIGKILL to the plugin's process on a node."""
        uid = self.pod(node)["metadata"]["uid"]
        for pid in cgroups.processes(node):
            proc = Path(f"/proc/{pid}")
            words = (proc / "cmdline").read_bytes().split(b"\0")
            # The pod's UID is in the path of its control group.
            if b"deviceplugin" in words and uid in (proc / "cgroup").read_text():
                os.kill(pid, signal.SIGKILL)
                return
        raise RuntimeError(f"no plugin runs on {node}")

    def free(self, node: str) -> tuple[int, int]:
        """(allocatable, capacity) of a node."""
        status = self.cluster.kubectl.get("node", node)["status"]
        return int(status["allocatable"].get(RESOURCE, 0)), int(status["capacity"].get(RESOURCE, 0))

    def wait(self, node: str, allocatable: int) -> None:
        """Until a node has so many to give."""
        wait_for(
            lambda: self.free(node)[0] == allocatable, SOON,
            f"{node} has not {allocatable} devices to give: {self.free(node)}",
        )  # fmt: skip

    def events(self, reason: str, since: str) -> list[str]:
        """What the nodes' Events of that reason say, of those told since then (RFC 3339)."""
        found = self.cluster.kubectl.within("default").find("events")
        return [each["message"] for each in found if each["reason"] == reason and each["lastTimestamp"] >= since]


def holder(node: str | None, count: int) -> Object:
    """The spec of a pod that holds devices and has Python, as a user who may nothing."""
    container = pods.container("main")
    container |= {
        "image": name("device-plugin"),
        "command": ["python3", "-c", "import signal; signal.pause()"],
        "args": [],
        "resources": {"limits": {RESOURCE: str(count)}} if count else {},
    }
    return pods.spec(container, node=node)
