"""What a cluster needs of the machine, looked at before anything starts; each lack is one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import cgroups, debian, network
from tests.cluster.cache import cache_root
from tests.cluster.toolchain import COREDNS, KUBERNETES, PAUSE, PROBE, TRAINING_OPERATOR, Part
from tests.cluster.training_operator import manifests_entry

GIB = 1 << 30
# Disk, measured and rounded up: the sources and compiled packages that Go keeps of a part, and its programs.
BUILD_GIB = 3.0
# A part of ours that needs the standard library alone.
SMALL_BUILD_GIB = 0.1
# etcd, logs and the cluster's own small images; what tests load comes on top (tests/cluster/images has that budget).
STATE_GIB = {"api": 0.5, "full": 2.0}
# sun_path of unix(7) holds 108 bytes with the final zero; this much follows the state directory in the longest.
SOCKET_BYTES = 107
LONGEST_SOCKET = "/node-a/containerd.sock.ttrpc"
MANIFESTS = "training-operator's manifests"
PARTS = {"api": (KUBERNETES,), "full": (KUBERNETES, COREDNS, TRAINING_OPERATOR, PAUSE, PROBE)}
PACKAGES = {"api": debian.API, "full": debian.FULL}


@dataclass(frozen=True)
class Machine:
    """What was found."""

    root: bool
    apt: bool
    missing: Sequence[str]
    go: tuple[int, ...] | None
    go_needed: tuple[int, ...]
    to_build: Sequence[str]
    build_gib: float
    cache_gib: float
    state_gib: float
    same_disk: bool
    bridge: bool
    cgroups: bool


def look(profile: str, state: Path) -> Machine:
    """This machine, for a cluster of `profile` in the directory `state`."""
    parts = [part for part in PARTS[profile] if not part.entry().exists()]
    cache, home = _existing(cache_root()), _existing(state)
    return Machine(
        root=os.geteuid() == 0,
        apt=shutil.which("apt-get") is not None,
        missing=debian.missing(PACKAGES[profile]),
        go=_go(),
        go_needed=max(_version(_go_line(part)) for part in (*parts, TRAINING_OPERATOR)),
        to_build=[part.name for part in parts] + ([] if manifests_entry().exists() else [MANIFESTS]),
        build_gib=sum(BUILD_GIB if part.module else SMALL_BUILD_GIB for part in parts),
        cache_gib=shutil.disk_usage(cache).free / GIB,
        state_gib=shutil.disk_usage(home).free / GIB,
        same_disk=cache.stat().st_dev == home.stat().st_dev,
        bridge=network.exists(network.BRIDGE),
        cgroups=bool(cgroups.mounted()),
    )


def problems(machine: Machine, profile: str, state: Path) -> list[str]:
    """What stands in the way, in words; nothing if a cluster can start."""
    found = []
    if profile == "full" and not machine.root:
        found.append("nodes need root: run this as root, or use --profile api")
    if machine.missing and not (machine.root and machine.apt):
        names = " ".join(machine.missing)
        found.append(f"programs are missing; as root on Debian they are installed, elsewhere install by hand: {names}")
    if machine.to_build and (machine.go is None or machine.go < machine.go_needed):
        needed, has = ".".join(map(str, machine.go_needed)), machine.go and ".".join(map(str, machine.go))
        what = ", ".join(machine.to_build)
        found.append(f"Go {needed} or newer is needed on PATH to build {what}; found {has or 'none'}")
    own = STATE_GIB[profile]
    cache_needs = machine.build_gib + (own if machine.same_disk else 0)
    if machine.cache_gib < cache_needs:
        found.append(f"disk: {cache_needs:.1f} GiB are needed at {cache_root()}, {machine.cache_gib:.1f} GiB are free")
    elif not machine.same_disk and machine.state_gib < own:
        found.append(f"disk: {own:.1f} GiB are needed at {state}, {machine.state_gib:.1f} GiB are free")
    if len(f"{state}{LONGEST_SOCKET}".encode()) > SOCKET_BYTES:
        found.append(f"the path {state} is too long for the sockets in it: choose a shorter one with --state")
    if profile == "full" and machine.bridge:
        found.append(f"another cluster runs on this machine: its network device is {network.BRIDGE}")
    if profile == "full" and not machine.cgroups:
        found.append("no control groups are mounted: nodes need cgroup v1 or v2")
    return found


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


def _go_line(part: Part) -> str:
    return next(line for line in (part.directory / "go.mod").read_text().splitlines() if line.startswith("go "))


def _go() -> tuple[int, ...] | None:
    if shutil.which("go") is None:
        return None
    done = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False)
    return _version(done.stdout) or None
