"""Training from tars that are never unpacked: one index file says where every image lies in them. No torch.

A million small files are what a network volume is slowest at; two large ones, read at known places, are what it is
best at. `resnetctl dataset prepare-imagenet --index-only` writes the index.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import chain
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.data import arrayfile
from app.data.decode import decode
from app.data.errors import shown, unreadable, unwritable
from app.data.pread import OpenFile, Window
from app.data.samples import PARTS, Dataset
from app.resilience.exit_codes import ExitCode, TrainingError

INDEX = "imagenet.tarindex"
"""Name of the index file in the folder that `--dataset_path` names."""
_FORMAT = "resnet-operator tar index 1"
_AGAIN = "write it again: resnetctl dataset prepare-imagenet --index-only"


class Member(NamedTuple):
    """A file inside a tar: its name, and where its bytes lie in the outermost tar."""

    name: str
    offset: int
    size: int


class TarSamples:
    """The images of one tar, in the order that the same images have in folders.

    Args:
        tar: the tar.
        labels: int64, shape (N,): class number of each image.
        offsets, sizes: int64, shape (N,): where each lies in the tar.
        names: all names, one after the other, ASCII.
        name_sizes: shape (N,): how long each is.
    """

    def __init__(
        self,
        tar: OpenFile,
        *,
        labels: NDArray[np.int64],
        offsets: NDArray[np.int64],
        sizes: NDArray[np.int64],
        names: bytes,
        name_sizes: NDArray[np.int64],
    ) -> None:
        self._tar = tar
        self._labels = labels
        self._offsets = offsets
        self._sizes = sizes
        self._names = names
        self._ends = np.cumsum(name_sizes, dtype=np.int64)

    @property
    def labels(self) -> NDArray[np.int64]:
        """See `Samples`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> bytes:
        """The bytes of an image, as they lie in the tar.

        Raises:
            TrainingError: see `OpenFile.read`.
        """
        return self._tar.read(int(self._offsets[index]), int(self._sizes[index]))

    def open(self, index: int) -> IO[bytes]:
        """The image as a file, of which only what is asked for is read."""
        window: Any = Window(self._tar, int(self._offsets[index]), int(self._sizes[index]))
        return window  # type: ignore[no-any-return]

    def load(self, index: int) -> Image.Image:
        """See `Samples`."""
        return decode(self.read(index), self.name(index))

    def file_name(self, index: int) -> str:
        """The image's name inside the tar."""
        end = int(self._ends[index])
        begin = int(self._ends[index - 1]) if index else 0
        return self._names[begin:end].decode("ascii")

    def name(self, index: int) -> str:
        """See `Samples`."""
        return f"{shown(self._tar.path)}: {self.file_name(index)}"


class Part(NamedTuple):
    """What goes into the index for train or val: the tar, and for each class its images."""

    tar: OpenFile
    images: Sequence[Sequence[Member]]


def write_index(folder: str, classes: Sequence[str], parts: dict[str, Part]) -> str:
    """Writes the index, whole or not at all, and returns its path. Only one process may do so at a time.

    Args:
        folder: there, as `INDEX`.
        classes: the names of the classes, sorted.
        parts: `train` and `val`; in each, the images of every class, sorted by name.

    Raises:
        TrainingError: 64 or 144, it can't be written.
    """
    facts: dict[str, Any] = {"format": _FORMAT, "classes": list(classes)}
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        members = list(chain.from_iterable(part.images))
        facts[name] = {"tar": os.path.abspath(part.tar.path), "size": part.tar.size, "modified": part.tar.modified}
        arrays[f"{name}_counts"] = np.array([len(images) for images in part.images], np.int64)
        arrays[f"{name}_offsets"] = np.array([member.offset for member in members], np.int64)
        arrays[f"{name}_sizes"] = np.array([member.size for member in members], np.int64)
        arrays[f"{name}_name_sizes"] = np.array([len(member.name) for member in members], np.int64)
        arrays[f"{name}_names"] = np.frombuffer("".join(m.name for m in members).encode("ascii"), np.uint8)
    path = os.path.join(folder, INDEX)
    try:
        arrayfile.save(path, facts, arrays, compressed=True, left_seconds=0)
    except OSError as error:
        raise unwritable(path, error, "name a folder that can be with --out") from None
    return path


def open_index(folder: str) -> Dataset:
    """The data set whose index lies in `folder`. The tars lie beside it, or else where they were when it was written.

    Raises:
        TrainingError: 65 the index is damaged or a tar is another one by now, 66 the index or a tar is missing, 144
            the volume failed.
    """
    path = os.path.join(folder, INDEX)
    facts, arrays = _read(path)
    train, val = (_opened(path, facts, arrays, part) for part in PARTS)
    return Dataset(train, val, facts["classes"])


def open_val_index(folder: str) -> tuple[TarSamples, list[str]]:
    """The validation images of the index in `folder`, and the classes; the tar of train is not needed.

    Raises:
        TrainingError: as `open_index`.
    """
    path = os.path.join(folder, INDEX)
    facts, arrays = _read(path)
    return _opened(path, facts, arrays, "val"), facts["classes"]


def _opened(path: str, facts: dict[str, Any], arrays: dict[str, NDArray[Any]], part: str) -> TarSamples:
    tar = _open_tar(path, facts[part])
    counts, offsets, sizes, name_sizes = (
        arrays[f"{part}_{what}"] for what in ("counts", "offsets", "sizes", "name_sizes")
    )
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return TarSamples(
        tar, labels=labels, offsets=offsets, sizes=sizes, names=arrays[f"{part}_names"].tobytes(),
        name_sizes=name_sizes,
    )  # fmt: skip


def is_current(folder: str, tars: dict[str, OpenFile]) -> bool:
    """Whether the index in `folder` is there and is one of these tars."""
    try:
        facts, _ = _read(os.path.join(folder, INDEX))
    except TrainingError:
        return False
    return all(
        (os.path.abspath(tar.path), tar.size, tar.modified)
        == (facts[part]["tar"], facts[part]["size"], facts[part]["modified"])
        for part, tar in tars.items()
    )


def _read(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    try:
        facts, arrays = arrayfile.load(path)
    except OSError as error:
        raise unreadable(path, error) from None
    except ValueError:
        raise _damaged(path) from None
    try:
        if facts["format"] != _FORMAT:
            raise ValueError(facts["format"])
        for part in PARTS:
            if not {"tar", "size", "modified"} <= facts[part].keys():
                raise ValueError(part)
            _check_shapes(len(facts["classes"]), {what: arrays[f"{part}_{what}"] for what in _ARRAYS})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise _damaged(path) from None
    return facts, arrays


_ARRAYS = ("counts", "offsets", "sizes", "name_sizes", "names")


def _check_shapes(classes: int, arrays: dict[str, NDArray[Any]]) -> None:
    images = int(arrays["counts"].sum())
    shapes = {
        "counts": (classes,), "offsets": (images,), "sizes": (images,), "name_sizes": (images,),
        "names": (int(arrays["name_sizes"].sum()),),
    }  # fmt: skip
    for name, array in arrays.items():
        if array.shape != shapes[name] or array.dtype != (np.uint8 if name == "names" else np.int64):
            raise ValueError(name)


def _damaged(path: str) -> TrainingError:
    return TrainingError(ExitCode.BAD_DATA, f"{shown(path)} is no index of tars, or is damaged; {_AGAIN}")


def _open_tar(index: str, facts: dict[str, Any]) -> OpenFile:
    beside = os.path.join(os.path.dirname(index), os.path.basename(facts["tar"]))
    path = beside if os.path.exists(beside) else facts["tar"]
    try:
        tar = OpenFile(path)
    except TrainingError as error:
        if error.code != ExitCode.DATA_MISSING:
            raise
        message = f"{error.message}; {shown(index)} says that the images are in it; put it beside the index"
        raise TrainingError(error.code, message) from None
    if (tar.size, tar.modified) != (facts["size"], facts["modified"]):
        what = "size" if tar.size != facts["size"] else "time"
        message = f"{shown(path)} has changed since {shown(index)} was written (its {what} is another); {_AGAIN}"
        raise TrainingError(ExitCode.BAD_DATA, message)
    return tar
