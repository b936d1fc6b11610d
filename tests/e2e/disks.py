"""A file system of one node that is small, and can be filled: for what a full checkpoint volume does."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.cluster import Cluster

NODE = "node-a"
# Two checkpoints of 90 MB and the one that is being written.
DISK = "360m"
ALONE = {"nodes": 1, "podTemplate": {"nodeSelector": {"kubernetes.io/hostname": NODE}}}
"""Of a spec: all of the experiment runs on NODE."""


@contextmanager
def small_disk(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """On NODE a file system of DISK lies at `folder` meanwhile; where this machine sees it."""
    pid = cluster.node(NODE).init_pid()
    # umount reads /proc/self, which is empty for a process of another PID namespace than that /proc's.
    enter = ["nsenter", f"--target={pid}", "--mount", "--pid"]
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0777", "tmpfs", str(folder)]
    subprocess.run([*enter, *mount], check=True)
    try:
        yield Path(f"/proc/{pid}/root{folder}")
    finally:
        subprocess.run([*enter, "umount", "--lazy", str(folder)], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """No byte is free there meanwhile."""
    filler = disk / "filler"
    done = subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=64k"], capture_output=True, text=True, check=False)
    assert "No space left" in done.stderr
    try:
        yield
    finally:
        filler.unlink()
