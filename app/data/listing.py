"""The image files below a folder of class folders: listed in parallel, and listed again only where something changed.

A folder on disk changes its times when an entry is added, renamed or removed. So a listing that is kept with the times
of every folder is still true where they are the same: for ImageNet that is 2,000 folders to ask for their times, in
place of 1,331,167 entries to list. No torch.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""File names that count as images, in any case: torchvision's IMG_EXTENSIONS (a test compares them)."""
SCAN_THREADS = 16
"""Listing a folder on a network volume is a wait, not work: many classes are listed at a time."""
SETTLED_SECONDS = 60.0
"""A folder that changed so short a time before it was listed may change again without new times: file systems count
in ticks of up to 2 s, and the clock of a volume's server is not ours."""
_UNSETTLED = (0, 0, 0)


class ClassListing(NamedTuple):
    """The images of one class.

    Attributes:
        names: file names relative to the class folder, one after the other, in the order of the images.
        sizes: uint16 (images,): bytes of each name.
        folders: the class folder ("") and every folder below it, relative.
        stamps: uint64 (folders, 3): time of last change and of last change of status in nanoseconds, and inode; zeros
            where they do not prove anything. The device's number is not among them: it changes with every mount.
    """

    names: bytes
    sizes: NDArray[np.uint16]
    folders: tuple[str, ...]
    stamps: NDArray[np.uint64]

    @property
    def settled(self) -> bool:
        """Whether the stamps can prove that this is still true."""
        return bool(self.stamps[:, 0].all())


class Listing(NamedTuple):
    """The images of train/ or val/: the sorted names of the class folders, and what is in each."""

    classes: list[str]
    found: list[ClassListing]


def list_images(
    folders: Mapping[str, str], classes: Sequence[str], known: Mapping[str, Listing]
) -> tuple[dict[str, Listing], int]:
    """Lists the images of every class in every folder.

    Args:
        folders: name ("train", "val") -> the folder that holds the class folders.
        classes: their names, sorted.
        known: earlier listings by the same names, as far as there are any.

    Returns:
        The listings, and how many classes were listed anew that the next call need not list again.

    Raises:
        OSError: a folder can't be read.
    """
    places = [(part, name) for part in folders for name in classes]
    before = {
        (part, name): found for part, old in known.items() for name, found in zip(old.classes, old.found, strict=True)
    }

    def current(place: tuple[str, str]) -> ClassListing:
        folder, was = os.path.join(folders[place[0]], place[1]), before.get(place)
        return was if was is not None and is_current(folder, was) else list_class(folder)

    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        found = dict(zip(places, pool.map(current, places), strict=True))
    anew = sum(listing.settled and listing is not before.get(place) for place, listing in found.items())
    return {part: Listing(list(classes), [found[part, name] for name in classes]) for part in folders}, anew


def is_current(folder: str, known: ClassListing) -> bool:
    """Whether a class folder and all below it are as they were when they were listed.

    Raises:
        OSError: their times can't be read.
    """
    if not known.settled:
        return False
    try:
        now = [_stamp(os.stat(os.path.join(folder, below))) for below in known.folders]
    except (FileNotFoundError, NotADirectoryError):
        return False
    return bool((known.stamps == np.array(now, np.uint64)).all())


def list_class(folder: str) -> ClassListing:
    """The images of a class, in the order of torchvision's make_dataset: sub-folders count and links are followed.

    Raises:
        OSError: a folder can't be read, or a link leads back to a folder that it lies in.
    """
    began = time.time()
    found = sorted(_walk(folder, "", began, ()))
    names = [
        os.fsencode(os.path.join(below, name))
        for below, _, files in found
        for name in sorted(files)
        if name.lower().endswith(EXTENSIONS)
    ]
    stamps = np.array([stamp for _, stamp, _ in found], np.uint64)
    sizes = np.fromiter(map(len, names), np.uint16, len(names))
    return ClassListing(b"".join(names), sizes, tuple(below for below, _, _ in found), stamps)


def _walk(
    top: str, below: str, began: float, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[str, tuple[int, int, int], list[str]]]:
    """Each folder: its path relative to `top`, its stamp, and the names in it that are no folders."""
    folder = os.path.join(top, below) if below else top
    status = os.stat(folder)  # before the listing: what changes meanwhile is found by the next start
    itself = (status.st_dev, status.st_ino)
    if itself in above:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), folder)
    settled = status.st_mtime > 0 and max(status.st_mtime, status.st_ctime) < began - SETTLED_SECONDS
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry.name)
                continue
            files.append(entry.name)
            if entry.is_symlink() and not entry.name.lower().endswith(EXTENSIONS):
                settled = False  # a link to nothing may come to lead to a folder, and no time here would change
    yield below, _stamp(status) if settled else _UNSETTLED, files
    for name in folders:
        yield from _walk(top, os.path.join(below, name), began, (*above, itself))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself
            return False
        raise


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_mtime_ns % 2**64, status.st_ctime_ns % 2**64, status.st_ino % 2**64
