"""The images of this machine: a storage directory, and buildah, which builds images in it without a Docker engine."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.cluster.cache import locked

# This machine's settings for package downloads, shown to the steps of a Dockerfile: an image holds no address.
PACKAGE_SETTINGS = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
# Nothing stays mounted in the directory between two commands.
DRIVER = ("--storage-driver", "overlay", "--storage-opt", "overlay.skip_mount_home=true")
ERROR_LINES = 20


class ImageError(RuntimeError):
    """An image could not be built, read or loaded; the message names it."""


@dataclass(frozen=True)
class Image:
    """An image as the storage holds it."""

    manifest: bytes
    config: bytes
    # The storage's name of each layer by the digest of its tar (sha256:<hex>).
    layers: dict[str, str]


class Store:
    """The images in `directory`; buildah is told `root`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root, self._run = directory / "root", directory / "run"

    def has(self, name: str) -> bool:
        """Whether there is an image of that name."""
        return self._storage("exists", name, check=False).returncode == 0

    def build(self, context: Path, name: str, *options: str) -> None:
        """Build the Dockerfile of `context`; a step whose inputs are those of a build before is not done again.

        Raises:
            ImageError: a step failed; the message ends with what it said.
        """
        volumes = [f"--volume={path}:{path}:ro" for path in PACKAGE_SETTINGS if os.path.exists(path)]
        # "chroot": the steps need neither a runtime nor rights beyond root's.
        fixed = ["--layers", "--isolation=chroot", "--network=host", "--pull=never", *volumes]
        with locked(self.directory / "build.lock"):
            self._sweep()
            self.buildah("build", *fixed, *options, f"--tag={name}", str(context))
            # What the name stood for before, less layers that a build can use again. If it is in use: the next time.
            with suppress(ImageError):
                self.buildah("rmi", "--prune")

    def _sweep(self) -> None:
        """Remove working containers whose process was killed, a build's too: builds wait for each other."""
        for name in self.buildah("containers", "--noheading", "--format={{.ContainerName}}").split():
            owner = name.partition("-")[0]
            if not (owner.isdigit() and Path("/proc", owner).exists()):
                self.buildah("rm", name)

    @contextmanager
    def container(self, image: str) -> Iterator[tuple[str, Path]]:
        """The name of a working container of `image` ("scratch": an empty one), and its root."""
        container = f"{os.getpid()}-{uuid.uuid4().hex}"
        self.buildah("from", "--pull=never", f"--name={container}", image)
        try:
            yield container, Path(self.buildah("mount", container).strip())
        finally:
            self.buildah("rm", container)

    def buildah(self, *arguments: str) -> str:
        """What a command of buildah prints.

        Raises:
            ImageError: it failed.
        """
        places = ["--root", str(self.root), "--runroot", str(self._run), *DRIVER]
        done = subprocess.run(["buildah", *places, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).strip().splitlines()[-ERROR_LINES:])
            raise ImageError(f"buildah {arguments[0]} {arguments[-1]}: {said}")
        return done.stdout

    def image(self, name: str) -> Image:
        """The image `name`.

        Raises:
            ImageError: there is none.
        """
        if not self.has(name):
            raise ImageError(f"there is no image {name}: `make image` builds it")
        top: str = json.loads(self._storage("image", "--json", name).stdout)[0]["layer"]
        known = {layer["id"]: layer for layer in json.loads(self._storage("layers", "--json").stdout)}
        manifest = self._storage("get-image-data", name, "manifest").stdout
        described: dict[str, Any] = json.loads(manifest)
        layers = {}
        while top:
            layers[known[top]["diff-digest"]] = top
            top = known[top].get("parent", "")
        if unknown := {layer["digest"] for layer in described["layers"]} - layers.keys():
            raise ImageError(f"{name}: layers are stored otherwise than they were built: {', '.join(unknown)}")
        return Image(manifest, self._storage("get-image-data", name, described["config"]["digest"]).stdout, layers)

    @contextmanager
    def layer(self, layer: str) -> Iterator[IO[bytes]]:
        """The tar of a layer of an Image, as it was when its digest was taken."""
        command = self._storage_command("diff", "--uncompressed", layer)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            yield process.stdout
        if process.returncode:
            raise ImageError(f"the layer {layer} can't be read")

    def _storage(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(self._storage_command(*arguments), capture_output=True, check=False)
        if check and done.returncode:
            raise ImageError(f"containers-storage {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done

    def _storage_command(self, *arguments: str) -> list[str]:
        places = ["--graph", str(self.root), "--run", str(self._run), *DRIVER]
        return ["containers-storage", *places, *arguments]
