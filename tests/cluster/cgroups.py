"""The control groups of a node, below which its kubelet keeps those of the pods; cgroup v1 and v2."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = "resnet-operator"
REMOVAL_SECONDS = 20.0
# A new cpuset of cgroup v1 has none of either, and no process can enter it.
INHERITED = ("cpuset.cpus", "cpuset.mems")


def hierarchies(mountinfo: str) -> list[Path]:
    """Where control groups are mounted, of the text of /proc/self/mountinfo (see proc(5))."""
    found = []
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        if filesystem.split(" ")[0] in ("cgroup", "cgroup2"):
            found.append(Path(mount.split(" ")[4]))
    return found


def make(node: str) -> str:
    """Make the groups of a node in every hierarchy; the path that its kubelet takes as cgroupRoot."""
    for hierarchy in mounted():
        parent = hierarchy
        for name in (ROOT, node):
            _pass_controllers_down(parent)
            group = parent / name
            group.mkdir(exist_ok=True)
            for setting in INHERITED:
                if (group / setting).exists() and not (group / setting).read_text().strip():
                    (group / setting).write_text((parent / setting).read_text())
            parent = group
        _pass_controllers_down(parent)
    return f"/{ROOT}/{node}"


def processes(node: str) -> set[int]:
    """All processes in the groups of a node."""
    found: set[int] = set()
    for hierarchy in mounted():
        for file in (hierarchy / ROOT / node).glob("**/cgroup.procs"):
            found.update(map(int, file.read_text().split()))
    return found


def remove(nodes: Iterable[str]) -> None:
    """Remove the groups of `nodes`, in which nothing runs any more, and the one above them if it is empty.

    Raises:
        RuntimeError: something still runs in them after REMOVAL_SECONDS.
    """
    for hierarchy in mounted():
        for node in nodes:
            top = hierarchy / ROOT / node
            groups = sorted((path for path in top.glob("**/") if path != top), key=lambda path: -len(path.parts))
            for group in (*groups, top):
                _remove(group)
        if (hierarchy / ROOT).exists() and not any(path.is_dir() for path in (hierarchy / ROOT).iterdir()):
            _remove(hierarchy / ROOT)


def mounted() -> list[Path]:
    """Where this machine's control groups are mounted."""
    return hierarchies(Path("/proc/self/mountinfo").read_text())


def _remove(group: Path) -> None:
    late = time.monotonic() + REMOVAL_SECONDS
    while True:
        try:
            return group.rmdir()
        except FileNotFoundError:
            return None
        except OSError as error:
            # A killed process is in its group until the kernel has let go of its memory.
            if error.errno != errno.EBUSY or time.monotonic() > late:
                raise RuntimeError(f"{group} can't be removed: {error.strerror}") from error
        time.sleep(0.02)


def _pass_controllers_down(group: Path) -> None:
    """cgroup v2 only: a group has the controllers that its parent passes down."""
    control = group / "cgroup.subtree_control"
    if control.exists():
        available = (group / "cgroup.controllers").read_text().split()
        control.write_text(" ".join(f"+{name}" for name in available))
