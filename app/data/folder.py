"""Image folders of the ImageNet layout: train/<class>/*.jpeg and val/<class>/*.jpeg. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.data.decode import read_image
from app.data.errors import shown, unreadable
from app.data.samples import Dataset
from app.resilience.exit_codes import ExitCode, TrainingError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""File names that count as images, in any case: torchvision's IMG_EXTENSIONS (a test compares them)."""
SCAN_THREADS = 16
"""Listing a folder on a network volume is a wait, not work: many classes are listed at a time."""
_NAMED = 5


class FolderSamples:
    """The images of one of the two folders, sorted as torchvision's ImageFolder sorts them.

    The names are kept in one block of bytes: a list of a million strings would be copied into every worker by its
    reference counts.

    Args:
        folder: the path of train/ or val/.
        classes: the class folders, sorted.
        files: for each class its files, relative to the class folder, sorted.
    """

    def __init__(self, folder: str, classes: Sequence[str], files: Sequence[Sequence[str]]) -> None:
        names = [os.fsencode(name) for of_class in files for name in of_class]
        self._folder = folder
        self._classes = tuple(classes)
        self._names = b"".join(names)
        self._ends = np.fromiter(accumulate(map(len, names), initial=0), np.int64, len(names) + 1)
        self._labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(of_class) for of_class in files])

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Samples`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def path(self, index: int) -> str:
        """The file of an image."""
        name = os.fsdecode(self._names[self._ends[index] : self._ends[index + 1]])
        return os.path.join(self._folder, self._classes[self._labels[index]], name)

    def load(self, index: int) -> Image.Image:
        """See `Samples`."""
        return read_image(self.path(index))

    def open(self, index: int) -> IO[bytes]:
        """The file of an image, of which only what is asked for is read.

        Raises:
            TrainingError: 66 or 144, it can't be opened.
        """
        path = self.path(index)
        try:
            return open(path, "rb", buffering=0)
        except OSError as error:
            raise unreadable(path, error) from None

    def name(self, index: int) -> str:
        """See `Samples`."""
        return shown(self.path(index))


def open_folder(path: str) -> Dataset:
    """Lists train/ and val/ under `path`.

    Raises:
        TrainingError: 66 a folder is missing or unreadable, 65 a class has no image or is only in one of the two,
            144 the volume failed.
    """
    if not os.path.isdir(path):
        _missing(
            path, f"--dataset_path: {shown(path)} {_absence(path)}; it must be a folder that holds train/ and val/"
        )
    train, val = os.path.join(path, "train"), os.path.join(path, "val")
    for folder in (train, val):
        if not os.path.isdir(folder):
            _missing(
                folder, f"--dataset_path: {shown(folder)} {_absence(folder)}; it must hold a folder for each class"
            )
    classes, val_classes = _class_folders(train), _class_folders(val)
    _require_same(path, classes, val_classes)
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        files = list(pool.map(_images, [os.path.join(folder, name) for folder in (train, val) for name in classes]))
    for folder, of_folder in ((train, files[: len(classes)]), (val, files[len(classes) :])):
        empty = [name for name, found in zip(classes, of_folder, strict=True) if not found]
        if empty:
            others = f" (nor do {len(empty) - 1} other classes)" if len(empty) > 1 else ""
            where = shown(os.path.join(folder, empty[0]))
            raise TrainingError(
                ExitCode.BAD_DATA, f"{where} holds no image{others}: no file there ends in {', '.join(EXTENSIONS)}"
            )
    return Dataset(
        FolderSamples(train, classes, files[: len(classes)]),
        FolderSamples(val, classes, files[len(classes) :]),
        classes,
    )


def _missing(path: str, message: str) -> NoReturn:
    try:
        os.stat(path)  # a sick volume must not be called missing data
    except FileNotFoundError:
        pass
    except OSError as error:
        raise unreadable(path, error) from None
    raise TrainingError(ExitCode.DATA_MISSING, message)


def _absence(path: str) -> str:
    return "is no folder" if os.path.lexists(path) else "does not exist"


def _class_folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise unreadable(folder, error) from None
    if not classes:
        raise TrainingError(
            ExitCode.BAD_DATA, f"{shown(folder)} holds no class folder; it must hold one for each class"
        )
    return classes


def _require_same(path: str, train: list[str], val: list[str]) -> None:
    problems = [_lost("train/", train, "val/", val), _lost("val/", val, "train/", train)]
    if any(problems):
        raise TrainingError(ExitCode.BAD_DATA, f"--dataset_path: {shown(path)}: {'; '.join(filter(None, problems))}")


def _lost(here: str, ours: list[str], there: str, theirs: list[str]) -> str:
    lost = sorted(set(ours) - set(theirs))
    if not lost:
        return ""
    what = "1 class in {} is" if len(lost) == 1 else f"{len(lost)} classes in {{}} are"
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return f"{what.format(here)} missing in {there}: {', '.join(map(shown, lost[:_NAMED]))}{more}"


def _images(class_folder: str) -> list[str]:
    def fail(error: OSError) -> NoReturn:
        raise error

    try:
        # Sub-folders count, links are followed and the order is that of torchvision's make_dataset.
        return [
            os.path.relpath(os.path.join(root, name), class_folder) if root != class_folder else name
            for root, _, names in sorted(os.walk(class_folder, onerror=fail, followlinks=True))
            for name in sorted(names)
            if name.lower().endswith(EXTENSIONS)
        ]
    except OSError as error:
        raise unreadable(error.filename or class_folder, error) from None
