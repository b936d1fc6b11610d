"""What strikes a training from outside: its processes, its pods, its job."""

from __future__ import annotations

from signal import SIGKILL, SIGSTOP

from tests.cluster.cluster import Cluster
from tests.e2e import inside
from tests.e2e.experiments import Experiment


def kill_rank(cluster: Cluster, struck: Experiment, index: int) -> None:
    """kill -9."""
    for pid in inside.ranks(cluster, struck.kubectl, struck.pod(index)).values():
        inside.strike(pid, SIGKILL)


def stop_rank(cluster: Cluster, struck: Experiment, index: int) -> None:
    """It stands still."""
    for pid in inside.ranks(cluster, struck.kubectl, struck.pod(index)).values():
        inside.strike(pid, SIGSTOP)


def kill_launcher(cluster: Cluster, struck: Experiment, index: int) -> None:
    """kill -9."""
    inside.strike(inside.launcher(cluster, struck.kubectl, struck.pod(index)), SIGKILL)


def delete_pod(cluster: Cluster, struck: Experiment, index: int) -> None:
    """By hand."""
    struck.kubectl.delete("pod", struck.pod(index), wait=False)


def delete_job(cluster: Cluster, struck: Experiment, index: int) -> None:
    """By hand."""
    struck.kubectl.delete("pytorchjob", f"{struck.name}-{struck.status['attempt']}", wait=False)
