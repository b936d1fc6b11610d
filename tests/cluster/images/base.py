"""The storage with the images that those of the Dockerfile are built on in tests, made once for the locks' contents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import debian
from tests.cluster.cache import built, entry
from tests.cluster.images.make_bases import LOCKS
from tests.cluster.images.store import ImageError, Store

REPOSITORY = Path(__file__).parents[3]
PACKAGES = {
    "buildah": "buildah",
    "containers-storage": "containers-storage",
    "debootstrap": "debootstrap",
    "gcc": "gcc",
    "util-linux": "unshare",
}
PART = "images"
RECIPE = ("cpu_torch.py", "elf.py", "make_bases.py")
# The bases are 1.3 GB, twice that and the wheels while they are made; the rest is for the images on them.
DISK_BYTES = 8_000_000_000
# Nothing that it mounts or starts outlives it, and it does not outlive this process.
ALONE = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def bases() -> Store:
    """The storage, made if it is not there yet (minutes); one for other locks is removed then.

    Raises:
        ImageError: this is not root, a program or room on the disk is missing, or a tool failed.
        RuntimeError: a package could not be installed.
    """
    if os.geteuid() != 0:
        raise ImageError("images can be built by root only")
    if (names := debian.missing(PACKAGES)) and shutil.which("apt-get") is None:
        raise ImageError(f"programs are missing, and there is no apt-get to install them: {' '.join(names)}")
    debian.install(PACKAGES)
    place = entry(PART, [*LOCKS, *(Path(__file__).with_name(name) for name in RECIPE)])
    if not place.exists():
        built(place, _build)
        for other in place.parent.glob(f"{PART}-*"):
            if other.is_dir() and other != place:
                shutil.rmtree(other, ignore_errors=True)
    return Store(place)


def _build(directory: Path) -> None:
    free = shutil.disk_usage(directory).free
    if free < DISK_BYTES:
        wanted, there = DISK_BYTES / 1e9, free / 1e9
        raise ImageError(f"the images need {wanted:.0f} GB of disk at {directory.parent}, and {there:.1f} GB are free")
    command = [*ALONE, sys.executable, "-m", "tests.cluster.images.make_bases", str(directory)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"building the base images: {done.stderr.strip()}")
