"""What runs inside a pod, as this machine sees it: the same processes, with ids of the host's own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl

LAUNCHER, RANK = b"app.run_resnet", b"app.train"
PERIOD_MICROSECONDS = 100_000


def launcher(cluster: Cluster, kubectl: Kubectl, pod: str) -> int:
    """The process of a training pod's launcher."""
    (found,) = _processes(cluster, kubectl, pod, LAUNCHER)
    return found


def ranks(cluster: Cluster, kubectl: Kubectl, pod: str) -> dict[int, int]:
    """{global rank: process} of a training pod."""
    return {int(_environment(pid)[b"RANK"]): pid for pid in _processes(cluster, kubectl, pod, RANK)}


def strike(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process of a pod."""
    os.kill(pid, number)


def throttle(pid: int, share: float | None) -> None:
    """Let the container of a process have at most so much of one CPU; None: as much as it wants."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        path = line.split(":", 2)[2].lstrip("/")
        for hierarchy in cgroups.mounted():
            group = hierarchy / path
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(PERIOD_MICROSECONDS))
                (group / "cpu.cfs_quota_us").write_text(str(-1 if share is None else int(share * PERIOD_MICROSECONDS)))
                return
            if (group / "cpu.max").exists():
                quota = "max" if share is None else str(int(share * PERIOD_MICROSECONDS))
                (group / "cpu.max").write_text(f"{quota} {PERIOD_MICROSECONDS}")
                return
    raise RuntimeError(f"process {pid} is in no cgroup that limits its CPU")


def _processes(cluster: Cluster, kubectl: Kubectl, pod: str, module: bytes) -> Iterator[int]:
    """The Python processes of a pod that run a module."""
    node = kubectl.get("pod", pod)["spec"]["nodeName"]
    for pid in cgroups.processes(cluster.node(node).name):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            where = _environment(pid)
        except OSError:
            continue
        if b"-m" not in words or words[words.index(b"-m") + 1] != module or words[0].endswith(b"tini"):
            continue
        if (where.get(b"RESNET_NAMESPACE"), where.get(b"RESNET_POD")) == (kubectl.namespace.encode(), pod.encode()):
            yield pid


def _environment(pid: int) -> dict[bytes, bytes]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(pair.split(b"=", 1) for pair in pairs if b"=" in pair)
