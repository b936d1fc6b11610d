"""The listing of an image folder, kept: over the starts of a run, and shared by the ranks of one pod. No torch.

The first rank of a pod that comes lists the folders, or brings the listing of an earlier start up to date; the others
read what it found. So the folders are listed once in a pod, and all its ranks see the same images even where files come
and go meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.data import arrayfile
from app.data.errors import shown
from app.data.listing import ClassListing, Listing

_FORMAT = "resnet-operator folder index 1"
Update = Callable[[Mapping[str, Listing]], tuple[dict[str, Listing], int]]
"""Earlier listings by part -> those of now, and how many classes in them are new and worth being kept."""


class Places(NamedTuple):
    """Where listings lie.

    Attributes:
        kept: a folder that outlives this process; made where absent. "": none.
        shared: a folder that the ranks of this pod, and no others, have for the time they run. "": none.
    """

    kept: str = ""
    shared: str = ""


def listings(path: str, places: Places, update: Update) -> dict[str, Listing]:
    """The listings of train/ and val/ under `path`.

    A file that can't be read or written is one line on stderr, and work that is done again; never an error.

    Args:
        path: of the data set.
        places: where listings lie.
        update: makes them; what it raises is raised.
    """
    itself = os.path.realpath(path)
    name = f"{hashlib.sha256(os.fsencode(itself)).hexdigest()[:16]}.npz"
    shared = places.shared and os.path.join(places.shared, name)
    kept = places.kept and os.path.join(places.kept, name)
    with _one_at_a_time(shared):
        there = _read(shared, itself)
        if there:
            return there
        found, new = update(_read(kept, itself))
        if new:
            _write(kept, itself, found)
        _write(shared, itself, found)
        return found


@contextmanager
def _one_at_a_time(shared: str) -> Iterator[None]:
    if not shared:
        yield
        return
    with open(f"{shared}.lock", "w") as lock:  # a lock goes with its process, however that ends
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(file: str, path: str) -> dict[str, Listing]:
    """What the file says of the data set; nothing where it is not there or no good."""
    if not file:
        return {}
    try:
        facts, arrays = arrayfile.load(file)
        return _unpacked(path, facts, arrays)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        _say(f"the index {shown(file)} can't be used ({why}): all folders are listed again")
        return {}


def _write(file: str, path: str, found: Mapping[str, Listing]) -> None:
    if not file:
        return
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        arrayfile.save(file, *_packed(path, found))
    except OSError as error:
        _say(f"the index {shown(file)} can't be written ({error.strerror}): the folders will be listed again")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _packed(path: str, found: Mapping[str, Listing]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    facts: dict[str, Any] = {"format": _FORMAT, "path": path, "parts": {}}
    arrays: dict[str, NDArray[Any]] = {}
    for part, (classes, listed) in found.items():
        facts["parts"][part] = {"classes": classes, "folders": [each.folders for each in listed]}
        arrays[f"{part}_counts"] = np.array([len(each.sizes) for each in listed], np.int64)
        arrays[f"{part}_sizes"] = np.concatenate([each.sizes for each in listed])
        arrays[f"{part}_stamps"] = np.concatenate([each.stamps for each in listed])
        arrays[f"{part}_names"] = np.frombuffer(b"".join(each.names for each in listed), np.uint8)
    return facts, arrays


def _unpacked(path: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Listing]:
    """The reverse of `_packed`.

    Raises:
        ValueError: these did not come from it.
    """
    try:
        if (facts["format"], facts["path"]) != (_FORMAT, path):
            return {}
        return {part: _part(part, held, arrays) for part, held in facts["parts"].items()}
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from None


def _part(part: str, facts: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Listing:
    classes, folders = list(facts["classes"]), [tuple(each) for each in facts["folders"]]
    sizes, stamps, names = arrays[f"{part}_sizes"], arrays[f"{part}_stamps"], arrays[f"{part}_names"].tobytes()
    images = _bounds(arrays[f"{part}_counts"])
    of_folders = _bounds([len(each) for each in folders])
    letters = _bounds(sizes)[images]
    if (images[-1], of_folders[-1], letters[-1]) != (len(sizes), len(stamps), len(names)):
        raise ValueError(part)
    found = [
        ClassListing(
            names[letters[i] : letters[i + 1]], sizes[images[i] : images[i + 1]], each,
            stamps[of_folders[i] : of_folders[i + 1]],
        )
        for i, each in enumerate(folders)
    ]  # fmt: skip
    if not len(classes) == len(found) == len(images) - 1:
        raise ValueError(part)
    return Listing(classes, found)


def _bounds(lengths: Sequence[int] | NDArray[Any]) -> NDArray[np.int64]:
    """Where each of these begins, laid one after the other, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
