"""What the container's cgroup says: its limits of CPU time and memory, and how often the kernel killed for memory.

Sources: Linux Documentation/admin-guide/cgroup-v2.rst (memory.events, memory.max, cpu.max) and cgroup-v1/memory.rst
(memory.oom_control, memory.limit_in_bytes), scheduler/sched-bwc.rst (cpu.cfs_quota_us).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def _files(root: Path, controller: str, v1: str, v2: str) -> Iterator[tuple[Path, str]]:
    """The files of this process's cgroup that may exist, nearest first: (folder, file name).

    In a container without a cgroup namespace /proc/self/cgroup shows the host's path, which is mounted at the top.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        inside = path.lstrip("/")
        if number == "0" and not controllers:
            yield from ((mount / inside, v2), (mount / "unified" / inside, v2), (mount, v2))
        elif controller in controllers.split(","):
            yield from ((mount / controllers / inside, v1), (mount / controllers, v1), (mount / controller, v1))


def oom_kills(root: Path = ROOT) -> int:
    """How many processes of this cgroup the kernel has killed for memory so far; 0 where nothing says it."""
    for folder, name in _files(root, "memory", "memory.oom_control", "memory.events"):
        try:
            words = dict(line.split() for line in (folder / name).read_text().splitlines())
            return int(words["oom_kill"])
        except (OSError, ValueError, KeyError):
            continue
    return 0


def cpu_quota(root: Path = ROOT) -> float:
    """CPUs' worth of time that this process's cgroup may use, infinite without a limit."""
    for folder, name in _files(root, "cpu", "cpu.cfs_quota_us", "cpu.max"):
        try:
            words = (folder / name).read_text().split()
            if name == "cpu.cfs_quota_us":
                words.append((folder / "cpu.cfs_period_us").read_text().strip())
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return quota / period
    return math.inf


def memory_limit(root: Path = ROOT) -> float:
    """Bytes that this process's cgroup may hold, infinite without a limit."""
    for folder, name in _files(root, "memory", "memory.limit_in_bytes", "memory.max"):
        try:
            text = (folder / name).read_text().strip()
            # Version 1 has no word for "no limit": it shows the largest multiple of a page that fits.
            return math.inf if text == "max" or int(text) >= 1 << 62 else float(text)
        except (OSError, ValueError):
            continue
    return math.inf
