"""What the loader needs of a set of images, whatever they are kept in. NumPy and Pillow only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image


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
