"""Images for the test cluster: those of the Dockerfiles, on small bases that are made once and kept.

The disk they take, measured: the storage 1.5 GB, each containerd that holds both images 2.9 GB (their layers as
they came, and unpacked). Two nodes with everything stay under 8 GB; what is missing is told before anything starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.cluster.images import containerd
from tests.cluster.images.base import bases
from tests.cluster.images.build import DOCKERFILES, build_images, name
from tests.cluster.images.store import ImageError

__all__ = ["ImageError", "build_images", "load", "load_built", "name"]


def load(images: Sequence[str], sockets: Iterable[Path]) -> None:
    """Put images that were built here into the containerd behind each socket, and drop what they replace there.

    Raises:
        ImageError: one was not built, or a containerd did not take it.
    """
    containerd.load(bases(), images, sockets)


def load_built(sockets: Iterable[Path]) -> None:
    """Put the images of the Dockerfiles, as the working tree has them, into the containerd behind each socket.

    Raises:
        ImageError: one can't be built, or a containerd did not take it.
    """
    containerd.load(build_images(), [name(part) for part in DOCKERFILES], sockets)
