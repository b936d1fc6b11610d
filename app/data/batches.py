"""Reading one batch: what a loader worker does, and the rank itself with `--num_workers 0`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset as TorchDataset

from app.data.datasets import DatasetFacts
from app.data.decode import DRAWS, augment, evaluation_transform
from app.data.sampler import Purpose, uniforms
from app.data.samples import BadImage, Dataset, Samples
from app.resilience.exit_codes import ExitCode, TrainingError


@dataclass(frozen=True)
class Key:
    """Which images make a batch.

    Attributes:
        indices: int64, shape (batch,).
        epoch: of the training, from 0; None: validation.
        first: position of the first one in its epoch; the others follow.
    """

    indices: NDArray[np.int64]
    epoch: int | None = None
    first: int = 0


class Found(NamedTuple):
    """A batch as it travels from worker to rank: uint8 (batch, size, size, 3), int64 (batch,), and the bad files."""

    images: torch.Tensor
    labels: torch.Tensor
    bad: list[tuple[int, str, str]]  # index, name, why: each file that was found to hold no image


@dataclass(frozen=True)
class Failure:
    """A TrainingError on its way to the rank: an exception would lose its code and arrive with a traceback."""

    code: ExitCode
    message: str


class Reader(TorchDataset[Found | Failure]):
    """Key -> batch. It is copied into every worker.

    Args:
        dataset: the images.
        facts, size, evaluation_size, seed: how they become pixels; the sizes are those of training and validation.
    """

    def __init__(self, dataset: Dataset, facts: DatasetFacts, size: int, evaluation_size: int, seed: int) -> None:
        self._dataset = dataset
        self._facts = facts
        self._size = size
        self._evaluation_size = evaluation_size
        self._seed = seed
        self._evaluate = evaluation_transform(evaluation_size, facts)

    def __getitem__(self, key: Key) -> Found | Failure:
        """The batch, or why there is none."""
        try:
            return self._validation(key) if key.epoch is None else self._training(key, key.epoch)
        except TrainingError as error:
            return Failure(error.code, error.message)

    def _validation(self, key: Key) -> Found:
        samples = self._dataset.val
        pixels = _empty(key, self._evaluation_size)
        for row, index in enumerate(key.indices):
            try:
                pixels[row] = self._evaluate(samples.load(index)).permute(1, 2, 0).numpy()
            except BadImage as bad:
                message = f"{bad.name} is no image that can be decoded ({bad.why}); replace it, validation needs it"
                raise TrainingError(ExitCode.BAD_DATA, message) from None
        return Found(torch.from_numpy(pixels), torch.from_numpy(samples.labels[key.indices]), [])

    def _training(self, key: Key, epoch: int) -> Found:
        samples = self._dataset.train
        pixels = _empty(key, self._size)
        found_bad: list[tuple[int, str, str]] = []
        for row, index in enumerate(key.indices):
            position = key.first + row
            try:
                image = samples.load(index)
            except BadImage as bad:
                found_bad.append((int(index), bad.name, bad.why))
                image = self._stand_in(samples, int(index), epoch, position, found_bad)
            draws = uniforms(self._seed, epoch, Purpose.AUGMENT, position, DRAWS)
            pixels[row] = augment(image, self._size, self._facts, draws)
        return Found(torch.from_numpy(pixels), torch.from_numpy(samples.labels[key.indices]), found_bad)

    def _stand_in(
        self, samples: Samples, index: int, epoch: int, position: int, found_bad: list[tuple[int, str, str]]
    ) -> Image.Image:
        """Another image of the same class, chosen by (seed, epoch, position)."""
        label = samples.labels[index]
        others = np.flatnonzero(samples.labels == label)
        others = others[others != index]
        start = int(uniforms(self._seed, epoch, Purpose.REPLACE, position, 1)[0] * len(others))
        for other in np.roll(others, -start):
            try:
                return samples.load(other)
            except BadImage as bad:
                found_bad.append((int(other), bad.name, bad.why))
        name, why = found_bad[-1 - len(others)][1:]
        message = (
            f"{name} is no image that can be decoded ({why}), nor is any other of class {self._dataset.classes[label]}"
        )
        raise TrainingError(ExitCode.BAD_DATA, message)


def _empty(key: Key, side: int) -> NDArray[np.uint8]:
    return np.empty((len(key.indices), side, side, 3), dtype=np.uint8)
