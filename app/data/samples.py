"""What the loader needs of a set of images, whatever they are kept in. NumPy and Pillow only."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.resilience.exit_codes import ExitCode, TrainingError

PARTS = ("train", "val")
"""The two folders of a data set, and the two parts of an index of tars."""


class BadImage(Exception):
    """These bytes are no image that can be decoded.

    Args:
        name: which one, for a person.
        why: what the decoder said, one line.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(name, why)
        self.name = name
        self.why = why


class Samples(Protocol):
    """Labelled images that can be read one by one, in any order, from any process (they are pickled as a whole)."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class number of every image, shape (len,)."""

    def __len__(self) -> int: ...

    def load(self, index: int) -> Image.Image:
        """The image, mode RGB, any size.

        Raises:
            BadImage: there is no image in these bytes.
            TrainingError: they could not be read.
        """

    def name(self, index: int) -> str:
        """Where it lies, for a person."""


@dataclass(frozen=True)
class Dataset:
    """A training set and the images it is validated on.

    Attributes:
        train, val: the images; their labels are indices into `classes`.
        classes: name of every class, in the order of the network's outputs.
    """

    train: Samples
    val: Samples
    classes: list[str]

    @property
    def extent(self) -> Extent:
        """How much was found."""
        labels = zlib.crc32(self.val.labels.tobytes(), zlib.crc32(self.train.labels.tobytes()))
        return Extent(len(self.train), len(self.val), labels)


class Extent(NamedTuple):
    """What a file more or less in any class of a data set changes.

    Attributes:
        train, val: images.
        labels: CRC-32 of all labels in their order.
    """

    train: int
    val: int
    labels: int


def require_same(found: Sequence[Extent]) -> None:
    """Refuses a gang whose ranks, in their order, did not all find the same images.

    The position of an image in an epoch is all that they agree on: with other listings some would be trained on twice
    and others never, and nobody would notice.

    Raises:
        TrainingError: 144, since a volume that settles shows the same to all.
    """
    first = found[0]
    for rank, other in enumerate(found):
        if other != first:
            raise TrainingError(
                ExitCode.VOLUME_IO,
                f"--dataset_path: rank 0 found {first.train} images to train on and {first.val} to validate, rank "
                f"{rank} {other.train} and {other.val}, not the same ones: start again when no files come or go there",
            )
