"""The two images that those of the Dockerfile are built on in tests: a small Debian, and one with the locked wheels.

    python -m tests.cluster.images.make_bases DIRECTORY

base.py runs it in a mount namespace of its own, so that nothing stays mounted if it is killed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.cluster.images.cpu_torch import cut_down, split_lock
from tests.cluster.images.store import ImageError, Store

LOCKS = [Path(__file__).parents[3] / "requirements" / name for name in ("torch.txt", "app.txt")]
DEBIAN = "localhost/resnet-operator-test-debian:latest"
TORCH = "localhost/resnet-operator-test-torch:latest"
RELEASE, PYTHON = "bookworm", "3.11"
INCLUDED = "ca-certificates,python3,python3-pip,tini"
# As in images of a registry: what apt and dpkg can do without, and what nobody reads in a pod.
LEFT_OUT = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale", "usr/share/man")


def build(store: Store) -> None:
    """Make both images."""
    with store.container("scratch") as (container, root):
        _run("debootstrap", "--variant=minbase", f"--include={INCLUDED}", RELEASE, root)
        for directory in LEFT_OUT:
            shutil.rmtree(root / directory)
            (root / directory).mkdir()
        store.buildah("commit", "--quiet", container, DEBIAN)
    with store.container(DEBIAN) as (container, root), tempfile.TemporaryDirectory(dir=store.directory) as scratch:
        locks = [split_lock(path.read_text()) for path in LOCKS]
        packages = root / "usr/local/lib" / f"python{PYTHON}" / "dist-packages"
        _install("".join(cpu for cpu, _ in locks), packages, Path(scratch), "--link-mode=copy")
        gpu_packages = Path(scratch, "gpu")
        _install("".join(gpu for _, gpu in locks), gpu_packages, Path(scratch))
        cut_down(packages, gpu_packages)
        # As pip does; it too passes over what is for newer Pythons. Ranks may not write there: each would compile anew.
        compiler = ["python3", "-m", "compileall", "-q", "-j0", f"/{packages.relative_to(root)}"]
        subprocess.run(["chroot", str(root), *compiler], capture_output=True, check=False)
        store.buildah("commit", "--quiet", container, TORCH)


def _install(lock: str, target: Path, scratch: Path, *options: str) -> None:
    """Wheels for the bases' Python, by this machine's uv, from its cache where they are in it."""
    requirements = scratch / "requirements.txt"
    requirements.write_text(lock)
    fixed = ["--quiet", "--no-deps", "--require-hashes", "--python-version", PYTHON, "--python-platform", "linux"]
    uv = Path(sys.executable).with_name("uv")
    _run(uv, "pip", "install", *fixed, *options, "--target", target, "--requirement", requirements)


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise ImageError(f"{command[0]}: {done.stdout.strip()[-1000:]}")


if __name__ == "__main__":
    build(Store(Path(sys.argv[1])))
