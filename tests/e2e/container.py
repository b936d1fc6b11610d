"""One image run as a container engine runs it: runc, from the image's own configuration, with a PID 1 of its own."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import debian
from tests.cluster.images.store import Store

# What every engine mounts, as runc's `spec` has it; the root is read-only, so /tmp is a file system of its own.
MOUNTS = (
    ("/proc", "proc", "proc", ()),
    ("/dev", "tmpfs", "tmpfs", ("nosuid", "mode=755", "size=65536k")),
    ("/dev/pts", "devpts", "devpts", ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620")),
    ("/dev/shm", "tmpfs", "shm", ("nosuid", "nodev", "mode=1777", "size=1g")),
    ("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", "ro")),
    ("/tmp", "tmpfs", "tmp", ("nosuid", "nodev", "mode=1777")),
)


@dataclass(frozen=True)
class Container:
    """A container that is not started yet; `bundle` is what runc reads."""

    name: str
    bundle: Path

    def run(self, typed: str = "", timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run it to its end, with `typed` as its standard input."""
        return subprocess.run(
            self._runc("run", "--bundle", str(self.bundle), self.name),
            input=typed, capture_output=True, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Start it; what it prints goes to `log`. The process ends as the container does, with its code."""
        with log.open("wb") as output:
            return subprocess.Popen(
                self._runc("run", "--bundle", str(self.bundle), self.name),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def signal(self, name: str) -> None:
        """Send a signal to its PID 1."""
        subprocess.run(self._runc("kill", self.name, name), check=True)

    def delete(self) -> None:
        """End what runs of it."""
        subprocess.run(self._runc("delete", "--force", self.name), capture_output=True, check=False)

    def _runc(self, *arguments: str) -> list[str]:
        return ["runc", "--root", str(self.bundle / "state"), *arguments]


@contextmanager
def container(
    store: Store,
    image: str,
    scratch: Path,
    command: Sequence[str] = (),
    volumes: Mapping[Path, str] | None = None,
    entrypoint: Sequence[str] = (),
) -> Iterator[Container]:
    """A container of `image`: its user, its working directory, no rights, no network, a read-only root.

    Args:
        store: where the image is.
        image: its name.
        scratch: an empty directory.
        command: in place of the image's own.
        volumes: directories of this machine, and where the container finds them.
        entrypoint: in place of the image's own.
    """
    debian.install({"runc": "runc"})
    with store.container(image) as (_, root):
        configuration = json.loads(store.image(image).config)["config"]
        arguments = [*(entrypoint or configuration["Entrypoint"]), *(command or configuration.get("Cmd", ()))]
        (scratch / "config.json").write_text(json.dumps(_runtime(configuration, root, arguments, volumes or {})))
        made = Container(f"test-{uuid.uuid4().hex[:12]}", scratch)
        try:
            yield made
        finally:
            made.delete()


def _runtime(
    image: Mapping[str, Any], root: Path, arguments: Sequence[str], volumes: Mapping[Path, str]
) -> dict[str, Any]:
    user, _, group = image["User"].partition(":")
    mounts = [{"destination": to, "type": kind, "source": of, "options": list(how)} for to, kind, of, how in MOUNTS]
    mounts += [
        {"destination": to, "type": "bind", "source": str(of), "options": ["bind", "rw"]} for of, to in volumes.items()
    ]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": int(user), "gid": int(group)},
            "args": arguments,
            "env": image["Env"],
            "cwd": image["WorkingDir"],
            "noNewPrivileges": True,
        },
        "root": {"path": str(root), "readonly": True},
        "mounts": mounts,
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }
