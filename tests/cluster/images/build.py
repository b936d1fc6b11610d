"""The images of the repository's Dockerfiles, on the bases of the tests."""

from __future__ import annotations

from pathlib import Path

from app.version import version
from tests.cluster.images.base import REPOSITORY, bases
from tests.cluster.images.make_bases import DEBIAN, TORCH
from tests.cluster.images.store import Store

DOCKERFILES = {
    "training": "Dockerfile",
    "operator": "operator.Dockerfile",
    "device-plugin": "deviceplugin.Dockerfile",
}
CONDA = "localhost/resnet-operator-test-conda:latest"
CONDA_TRAINING = "localhost/resnet-operator-test-conda-training:latest"


def name(part: str) -> str:
    """What the image of a part is called."""
    return f"localhost/resnet-operator-{part}:{version()}"


def build_images() -> Store:
    """The storage with the images of DOCKERFILES, as the working tree has them; seconds after a change in app/.

    Raises:
        ImageError: a step failed.
    """
    store = bases()
    _dockerfile(store, "operator", name("operator"), f"OPERATOR_BASE_IMAGE={DEBIAN}")
    _dockerfile(store, "device-plugin", name("device-plugin"), f"DEVICE_PLUGIN_BASE_IMAGE={DEBIAN}")
    _dockerfile(store, "training", name("training"), f"BASE_IMAGE={TORCH}")
    return store


def build_conda_image() -> Store:
    """The storage with CONDA_TRAINING: the training image on a base with a conda environment.

    Raises:
        ImageError: a step failed.
    """
    store = bases()
    store.build(Path(__file__).parent / "conda", CONDA, f"--build-arg=BASE_IMAGE={TORCH}")
    _dockerfile(store, "training", CONDA_TRAINING, f"BASE_IMAGE={CONDA}")
    return store


def _dockerfile(store: Store, part: str, image: str, argument: str) -> None:
    store.build(REPOSITORY, image, f"--file={REPOSITORY / DOCKERFILES[part]}", f"--build-arg={argument}")
