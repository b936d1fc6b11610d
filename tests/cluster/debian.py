"""Debian's packages that the cluster runs on, installed where they are missing.

Their names are pinned, their versions are those of the machine's release: Debian keeps no older ones, and within a
release it changes nothing but faults.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

# package: a program that it brings
API = {"etcd-server": "etcd", "openssl": "openssl"}
FULL = {
    **API,
    "conntrack": "conntrack",
    "containerd": "containerd",
    "containernetworking-plugins": "/usr/lib/cni/bridge",
    "iproute2": "ip",
    "iptables": "iptables",
    "mount": "mount",
    "nftables": "nft",
    "runc": "runc",
    "util-linux": "nsenter",
}
PATH = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"


def missing(packages: Mapping[str, str]) -> list[str]:
    """Which of `packages` ({package: a program of it}) this machine lacks."""
    return [package for package, program in packages.items() if shutil.which(program, path=PATH) is None]


def install(packages: Mapping[str, str]) -> None:
    """Install what is missing.

    Raises:
        RuntimeError: apt-get failed.
    """
    if not (names := missing(packages)):
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *names]):
        done = subprocess.run(
            ["apt-get", "--quiet", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"apt-get {command[0]}: {done.stdout.strip()[-1000:]}")
