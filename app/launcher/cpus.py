"""Which CPUs each rank of this node gets. `usable` reads /sys; all else is pure.

A rank that stays on one NUMA node keeps its memory near, and its loader workers inherit the binding. Two pods of one
node must not both bind their first rank to the first core: so single cores are given out only where this pod has CPUs
of its own, which shows in its affinity mask (the kubelet's static CPU manager, `docker --cpuset-cpus`). A pod that
shares all CPUs with others binds to whole NUMA nodes only, where the scheduler still chooses among many cores.

Which NUMA node a device hangs on is not asked: /proc and /sys order devices by bus address, the frameworks by speed or
by an environment variable. Kubernetes' Topology Manager gives a pod the CPUs of its devices' node.

Sources: Linux Documentation/admin-guide/cputopology.rst, Documentation/ABI/stable/sysfs-devices-node.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from app.launcher.cgroup import ROOT, cpu_quota

CpuSet = frozenset[int]


@dataclass(frozen=True)
class Cpus:
    """The CPUs that this process may run on.

    Attributes:
        cores: for each physical core the usable CPUs of it, sorted by NUMA node, then by number.
        nodes: for each NUMA node that has some the usable CPUs of it, in the order of the nodes.
        exclusive: they were given to this pod alone, as far as that can be told.
        quota: CPUs' worth of time that the cgroup allows, infinite without a limit.
    """

    cores: tuple[CpuSet, ...]
    nodes: tuple[CpuSet, ...]
    exclusive: bool
    quota: float = math.inf

    @property
    def all(self) -> CpuSet:
        """All of them."""
        return CpuSet().union(*self.nodes)

    @property
    def count(self) -> int:
        """How many can work at a time, at least 1."""
        return max(1, math.floor(min(len(self.all), self.quota)))


def usable(root: Path = ROOT) -> Cpus:
    """What this process may use, as /sys and its cgroup tell; where /sys is silent, one node of cores of one CPU."""
    allowed = CpuSet(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))
    system = root / "sys/devices/system"
    nodes = [(int(path.name[4:]), _listed(path / "cpulist") & allowed) for path in system.glob("node/node[0-9]*")]
    known = [cpus for _, cpus in sorted(nodes) if cpus]
    if CpuSet().union(*known) != allowed:
        known = [allowed]
    cores = []
    for node in known:
        siblings = {
            _listed(system / f"cpu/cpu{cpu}/topology/thread_siblings_list") & node or frozenset({cpu}) for cpu in node
        }
        cores += sorted(siblings, key=min)
    quota = cpu_quota(root)
    # A container in the kubelet's shared pool sees a part of the machine as well; a limit below it gives that away.
    exclusive = bool(_listed(system / "cpu/online") - allowed) and quota >= len(allowed)
    return Cpus(tuple(cores), tuple(known), exclusive, quota)


def ranks_at_full_speed(cpus: Cpus) -> int:
    """What `--nproc_per_node auto` means on the CPU: a rank for each NUMA node, unless the quota is less than that.

    torch's own threads use the cores of a node well; more ranks there would only add gradients to exchange, fewer would
    read their memory from afar.
    """
    return min(len(cpus.nodes), cpus.count)


def bind(cpus: Cpus, ranks: int) -> list[CpuSet] | None:
    """The CPUs of each local rank, None where binding gains nothing or would be unfair.

    Exclusive CPUs are dealt out whole, in pieces that differ by at most one core (by one CPU, where the ranks outnumber
    the cores). Of shared ones each rank gets a NUMA node, or several, or its share of the ranks of one, provided
    that comes out even: in synchronous training all ranks wait for the one with the least.
    """
    units: Sequence[CpuSet]
    if cpus.exclusive:
        singles = [CpuSet({cpu}) for core in cpus.cores for cpu in sorted(core)]
        units = cpus.cores if len(cpus.cores) >= ranks else singles
        if len(units) < ranks:
            return None
    else:
        units = cpus.nodes
        if len(units) % ranks and ranks % len(units):
            return None
        if len(units) < ranks:
            units = [node for node in units for _ in range(ranks // len(units))]
    bounds = [len(units) * rank // ranks for rank in range(ranks + 1)]
    sets = [CpuSet().union(*units[low:high]) for low, high in pairwise(bounds)]
    return sets if len(set(sets)) > 1 else None


def threads(cpus: Cpus, ranks: int, sets: Sequence[CpuSet] | None) -> int:
    """Compute threads of each rank, the same for all: at most its share of its CPUs, and of the quota."""
    sharers = Counter(sets or [cpus.all] * ranks)
    share = min(len(cpu_set) / number for cpu_set, number in sharers.items())
    return max(1, math.floor(min(share, cpus.quota / ranks)))


def shown(cpus: Collection[int]) -> str:
    """A CPU set as Linux writes it: 0-3,8."""
    spans: list[list[int]] = []
    for cpu in sorted(cpus):
        if spans and spans[-1][1] == cpu - 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if low < high else str(low) for low, high in spans)


def parsed(text: str) -> CpuSet:
    """The CPU set that Linux wrote.

    Raises:
        ValueError: it is none.
    """
    spans = [span.partition("-") for span in text.strip().split(",") if span]
    return CpuSet(cpu for low, _, high in spans for cpu in range(int(low), int(high or low) + 1))


def _listed(path: Path) -> CpuSet:
    try:
        return parsed(path.read_text())
    except (OSError, ValueError):
        return CpuSet()
