"""Random images without files, to measure the training alone and to try a set-up without data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.data.sampler import Purpose, uniforms, words
from app.data.samples import Dataset

TRAIN_IMAGES = 12_800
VAL_IMAGES = 500
_POOL = 16
"""Different images per set: they are there to be carried, not to be learnt."""


class SyntheticSamples:
    """`images` images of `side` x `side` random pixels with random labels, all a function of (seed, part)."""

    def __init__(self, seed: int, part: int, images: int, classes: int, side: int) -> None:
        draws = uniforms(seed, part, Purpose.SYNTHETIC, 0, images)
        self._labels = (np.asarray(draws) * classes).astype(np.int64)
        pixels = words(seed, part, Purpose.SYNTHETIC, 1, _POOL * side * side * 3 // 8).view(np.uint8)
        self._pool = pixels.reshape(_POOL, side, side, 3)

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Samples`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, index: int) -> Image.Image:
        """See `Samples`."""
        return Image.fromarray(self._pool[index % _POOL])

    def name(self, index: int) -> str:
        """See `Samples`."""
        return f"synthetic image {index}"


def open_synthetic(seed: int, classes: int, side: int) -> Dataset:
    """12,800 random images to train on and 500 to validate."""
    return Dataset(
        SyntheticSamples(seed, 0, TRAIN_IMAGES, classes, side),
        SyntheticSamples(seed, 1, VAL_IMAGES, classes, side),
        [str(number) for number in range(classes)],
    )
