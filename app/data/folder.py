"""Image folders of the ImageNet layout: train/<class>/*.jpeg and val/<class>/*.jpeg. No torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import IO, NoReturn

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.data import index
from app.data.decode import read_image
from app.data.errors import shown, unreadable
from app.data.listing import EXTENSIONS, Listing, list_images
from app.data.samples import PARTS, Dataset
from app.resilience.exit_codes import ExitCode, TrainingError

_NAMED = 5


class FolderSamples:
    """The images of one of the two folders, sorted as torchvision's ImageFolder sorts them.

    The names are kept in one block of bytes: a list of a million strings would be copied into every worker by its
    reference counts.

    Args:
        folder: the path of train/ or val/.
        listing: what is in it.
    """

    def __init__(self, folder: str, listing: Listing) -> None:
        found = listing.found
        self._folder = folder
        self._classes = tuple(listing.classes)
        self._names = b"".join(each.names for each in found)
        self._ends = np.cumsum(np.concatenate([[0], *(each.sizes for each in found)]), dtype=np.int64)
        self._labels = np.repeat(np.arange(len(found), dtype=np.int64), [len(each.sizes) for each in found])

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


def open_folder(path: str, places: index.Places = index.Places()) -> Dataset:  # noqa: B008  it is immutable
    """Lists train/ and val/ under `path`, or finds what of it has not changed in an earlier listing.

    Raises:
        TrainingError: 66 a folder is missing or unreadable, 65 a class has no image or is only in one of the two,
            144 the volume failed.
    """
    found = index.listings(path, places, partial(_update, path, PARTS))
    train, val = (FolderSamples(os.path.join(path, part), found[part]) for part in PARTS)
    return Dataset(train, val, found["train"].classes)


def open_val_folder(path: str) -> tuple[FolderSamples, list[str]]:
    """Lists val/ alone: its images, and its class folders as the names of the classes.

    Raises:
        TrainingError: as `open_folder`.
    """
    found, _ = _update(path, ("val",), {})
    return FolderSamples(os.path.join(path, "val"), found["val"]), found["val"].classes


def _update(path: str, parts: tuple[str, ...], known: Mapping[str, Listing]) -> tuple[dict[str, Listing], int]:
    folders = {part: os.path.join(path, part) for part in parts}
    held = " and ".join(f"{part}/" for part in parts)
    if not os.path.isdir(path):
        _missing(path, f"--dataset_path: {shown(path)} {_absence(path)}; it must be a folder that holds {held}")
    for folder in folders.values():
        if not os.path.isdir(folder):
            _missing(
                folder, f"--dataset_path: {shown(folder)} {_absence(folder)}; it must hold a folder for each class"
            )
    classes = {part: _class_folders(folder) for part, folder in folders.items()}
    if len(parts) > 1:
        _require_same(path, classes["train"], classes["val"])
    try:
        found, new = list_images(folders, classes[parts[0]], known)
    except OSError as error:
        raise unreadable(error.filename or path, error) from None
    for part, listing in found.items():
        empty = [name for name, each in zip(listing.classes, listing.found, strict=True) if not len(each.sizes)]
        if empty:
            others = f" (nor do {len(empty) - 1} other classes)" if len(empty) > 1 else ""
            where = shown(os.path.join(folders[part], empty[0]))
            raise TrainingError(
                ExitCode.BAD_DATA, f"{where} holds no image{others}: no file there ends in {', '.join(EXTENSIONS)}"
            )
    return found, new


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
