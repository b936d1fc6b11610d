"""From the storage into containerd: a stream of what it lacks, no archive on the disk."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.cluster.images.store import Image, ImageError, Store

# Where kubelets look.
NAMESPACE = "k8s.io"
# The kubelet's own name for an image that a tag stands for, or stood for.
BY_DIGEST = "sha256:"
# containerd keeps a layer as it came and unpacked.
COPIES = 2
SPARE_BYTES = 1_000_000_000
# It may collect a layer just as it builds on it, since nothing but the image that is being replaced holds that layer.
TRIES = 3
COLLECTED = re.compile("parent snapshot .* does not exist")


def load(store: Store, images: Sequence[str], sockets: Iterable[Path]) -> None:
    """Put `images` into the containerd of each socket, and drop what their names stood for there before.

    Raises:
        ImageError: an image is not in the storage, or containerd did not take it.
    """
    known = {name: store.image(name) for name in images}
    for socket in sockets:
        there = _names(socket)
        for name, image in known.items():
            if there.get(name) != _digest(image.manifest):
                _load(store, name, image, socket)
        _prune(socket)


def _load(store: Store, name: str, image: Image, socket: Path) -> None:
    for left in reversed(range(TRIES)):
        said = _import(store, name, image, socket)
        if not said:
            return
        if not left or not COLLECTED.search(said):
            raise ImageError(f"containerd at {socket} did not take {name}: {said}")


def _import(store: Store, name: str, image: Image, socket: Path) -> str:
    """What containerd says if it does not take the image; empty: it did."""
    present = set(_ctr(socket, "content", "ls", "--quiet").split())
    missing = sum(layer["size"] for layer in json.loads(image.manifest)["layers"] if layer["digest"] not in present)
    free = shutil.disk_usage(socket.parent).free
    if free < COPIES * missing + SPARE_BYTES:
        wanted = (COPIES * missing + SPARE_BYTES) / 1e9
        raise ImageError(f"{name} needs {wanted:.1f} GB of disk at {socket.parent}, and {free / 1e9:.1f} GB are free")
    process = subprocess.Popen(
        _command(socket, "images", "import", "-"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            _write(store, name, image, present, process.stdin)
            process.stdin.close()
        except BrokenPipeError:  # it has said why
            with suppress(BrokenPipeError):
                process.stdin.close()
        said = process.stdout.read().decode().strip()
    return (said or f"exit code {process.returncode}") if process.returncode else ""


def _write(store: Store, name: str, image: Image, present: set[str], stream: IO[bytes]) -> None:
    """An OCI archive of the image less the layers that are `present`."""
    manifest = json.loads(image.manifest)
    described = {
        "mediaType": manifest["mediaType"],
        "digest": _digest(image.manifest),
        "size": len(image.manifest),
        "annotations": {"io.containerd.image.name": name},
    }
    index = {"schemaVersion": 2, "manifests": [described]}
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        for path, content in (
            ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
            ("index.json", json.dumps(index).encode()),
            (_path(_digest(image.manifest)), image.manifest),
            (_path(_digest(image.config)), image.config),
        ):
            _add(archive, path, len(content), io.BytesIO(content))
        for layer in manifest["layers"]:
            if layer["digest"] not in present:
                with store.layer(image.layers[layer["digest"]]) as tar:
                    _add(archive, _path(layer["digest"]), layer["size"], tar)


def _add(archive: tarfile.TarFile, path: str, size: int, content: IO[bytes]) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = size
    archive.addfile(entry, content)


def _path(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _digest(content: bytes) -> str:
    return BY_DIGEST + hashlib.sha256(content).hexdigest()


def _names(socket: Path) -> dict[str, str]:
    """The digest of the manifest of each name."""
    rows = _ctr(socket, "images", "ls").splitlines()[1:]
    return {row.split()[0]: re.findall(r"sha256:[0-9a-f]{64}", row)[-1] for row in rows}


def _prune(socket: Path) -> None:
    """Forget images that no tag stands for; containerd removes their layers by itself."""
    names = _names(socket)
    tagged = {digest for name, digest in names.items() if not name.startswith(BY_DIGEST)}
    for name, digest in names.items():
        if name.startswith(BY_DIGEST) and digest not in tagged:
            _ctr(socket, "images", "rm", name)


def _ctr(socket: Path, *arguments: str) -> str:
    done = subprocess.run(_command(socket, *arguments), capture_output=True, text=True, check=False)
    if done.returncode:
        raise ImageError(f"ctr {' '.join(arguments)} at {socket}: {done.stderr.strip()}")
    return done.stdout


def _command(socket: Path, *arguments: str) -> list[str]:
    return ["ctr", "--address", str(socket), "--namespace", NAMESPACE, *arguments]
