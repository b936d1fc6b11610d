"""Images on their way into a containerd: whole, by their missing layers, and out again."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest

from tests.cluster import debian
from tests.cluster.images.base import bases
from tests.cluster.images.containerd import load
from tests.cluster.images.make_bases import DEBIAN
from tests.cluster.images.store import ImageError, Store

NAME = "localhost/resnet-operator-test-load:latest"
CONFIGURATION = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{0}/sock"
"""
STARTED_SECONDS = 30.0


@pytest.fixture(scope="module")
def store() -> Store:
    return bases()


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """Where an empty containerd listens."""
    debian.install({"containerd": "containerd"})
    (tmp_path / "config.toml").write_text(CONFIGURATION.format(tmp_path))
    socket = tmp_path / "sock"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(["containerd", "--config", tmp_path / "config.toml"], stdout=log, stderr=log)
    try:
        late = time.monotonic() + STARTED_SECONDS
        while not socket.exists():
            assert time.monotonic() < late, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield socket
    finally:
        process.terminate()
        process.wait()


def version(store: Store, context: Path, number: int) -> None:
    """Build the image NAME anew: the Debian base, and one small layer that differs by `number`."""
    (context / "Dockerfile").write_text(f"FROM {DEBIAN}\nCOPY number /number\n")
    (context / "number").write_text(str(number))
    store.build(context, NAME)


def ctr(socket: Path, *arguments: str) -> str:
    command = ["ctr", "--address", str(socket), "--namespace", "k8s.io", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def stored_bytes(socket: Path) -> int:
    blobs = socket.parent / "root/io.containerd.content.v1.content/blobs"
    return sum(path.stat().st_size for path in blobs.rglob("*") if path.is_file())


@pytest.fixture
def context(store: Store, tmp_path: Path) -> Iterator[Path]:
    context = tmp_path / "context"
    context.mkdir()
    yield context
    store.buildah("rmi", NAME)


def test_a_changed_image_brings_its_new_layer_only_and_what_it_replaces_goes(
    store: Store, context: Path, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version(store, context, 1)
    load(store, [NAME], [socket])
    whole = stored_bytes(socket)
    assert whole > 100_000_000
    # A kubelet remembers what it has seen by its digest.
    first = json.loads(store.image(NAME).manifest)["config"]["digest"]
    ctr(socket, "images", "tag", NAME, first)

    version(store, context, 2)
    sent: list[str] = []
    read = store.layer

    def layer(name: str) -> AbstractContextManager[IO[bytes]]:
        sent.append(name)
        return read(name)

    monkeypatch.setattr(store, "layer", layer)
    load(store, [NAME], [socket])
    assert len(sent) == 1
    assert first not in ctr(socket, "images", "ls", "--quiet").split()
    assert stored_bytes(socket) - whole < 100_000
    ctr(socket, "run", "--rm", NAME, "x", "grep", "2", "/number")


def test_an_image_that_was_not_built_is_named(store: Store, socket: Path) -> None:
    with pytest.raises(ImageError, match="there is no image localhost/none:1: `make image` builds it"):
        load(store, ["localhost/none:1"], [socket])


def test_an_image_in_use_can_be_built_anew_and_a_killed_process_leaves_nothing(store: Store, context: Path) -> None:
    version(store, context, 1)
    killed = f"{2**31 - 1}-killed"
    store.buildah("from", f"--name={killed}", NAME)
    store.buildah("mount", killed)
    with store.container(NAME) as (_, root):
        version(store, context, 2)
        assert (root / "number").read_text() == "1"
    assert killed not in store.buildah("containers")
    with store.container(NAME) as (_, root):
        assert (root / "number").read_text() == "2"
