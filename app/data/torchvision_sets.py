"""CIFAR-10 and Oxford Flowers 102, as torchvision's own readers find them on disk. Nothing is downloaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.data.decode import read_image
from app.data.errors import shown, unreadable
from app.data.samples import Dataset
from app.resilience.exit_codes import ExitCode, TrainingError


class ArraySamples:
    """Images that are held in memory: `pixels` uint8 (N, height, width, 3), `labels` int64 (N,)."""

    def __init__(self, name: str, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
        self._name = name
        self._pixels = pixels
        self._labels = labels

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Samples`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, index: int) -> Image.Image:
        """See `Samples`."""
        return Image.fromarray(self._pixels[index])

    def name(self, index: int) -> str:
        """See `Samples`."""
        return f"{self._name} image {index}"


class FileSamples:
    """Images in files that are listed one by one."""

    def __init__(self, files: Sequence[str], labels: NDArray[np.int64]) -> None:
        self._files = tuple(files)
        self._labels = labels

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Samples`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def load(self, index: int) -> Image.Image:
        """See `Samples`."""
        return read_image(self._files[index])

    def name(self, index: int) -> str:
        """See `Samples`."""
        return shown(self._files[index])


def open_cifar10(path: str) -> Dataset:
    """`cifar-10-batches-py` in `path`: 50,000 images to train on, the 10,000 test images as val.

    Raises:
        TrainingError: 66 files are missing, 65 they are not the published ones.
    """
    from torchvision.datasets import CIFAR10  # noqa: PLC0415

    folder = os.path.join(path, CIFAR10.base_folder)
    files = [name for name, _ in (*CIFAR10.train_list, *CIFAR10.test_list)] + [CIFAR10.meta["filename"]]
    parts = _published("CIFAR-10", folder, files, lambda: [CIFAR10(path, train=t) for t in (True, False)])
    train, val = (
        ArraySamples(f"{shown(folder)} {name}", part.data, np.asarray(part.targets, np.int64))
        for name, part in zip(("train", "test"), parts, strict=True)
    )
    return Dataset(train, val, list(parts[0].classes))


def open_flowers(path: str) -> Dataset:
    """`flowers-102` in `path`: its own train and val splits, 1,020 images each.

    Raises:
        TrainingError: 66 files are missing, 65 they are not the published ones, 69 there is no SciPy to read them.
    """
    if importlib.util.find_spec("scipy") is None:
        raise TrainingError(
            ExitCode.FRAMEWORK_MISSING, "--dataset flowers: its labels are MATLAB files, install scipy to read them"
        )
    from torchvision.datasets import Flowers102  # noqa: PLC0415

    folder = os.path.join(path, "flowers-102")
    files = ["jpg", "imagelabels.mat", "setid.mat"]
    parts = _published("Flowers-102", folder, files, lambda: [Flowers102(path, split=s) for s in ("train", "val")])
    # Its only public way to a label is to decode the image first.
    train, val = (
        FileSamples([os.fspath(file) for file in part._image_files], np.asarray(part._labels, np.int64))
        for part in parts
    )
    # Numbers, as the data set has them: its files name no flower, and old torchvisions neither.
    return Dataset(train, val, [str(number) for number in range(1, 103)])


def _published(title: str, folder: str, files: Sequence[str], read: Callable[[], list[Any]]) -> list[Any]:
    """What `read` gives; torchvision has one error for files that are missing and for files that are others."""
    for name in files:
        file = os.path.join(folder, name)
        try:
            os.stat(file)
        except FileNotFoundError:
            message = f"--dataset_path: {title} is not in {shown(folder)}: there is no {name}"
            raise TrainingError(ExitCode.DATA_MISSING, message) from None
        except OSError as error:
            raise unreadable(file, error) from None
    try:
        return read()
    except OSError as error:
        raise unreadable(error.filename or folder, error) from None
    except RuntimeError:
        message = f"--dataset_path: a file of {title} in {shown(folder)} is not the published one (its MD5 differs)"
        raise TrainingError(ExitCode.BAD_DATA, message) from None
