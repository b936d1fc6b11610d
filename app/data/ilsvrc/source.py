"""The three published files as one: which images every class has, and where they lie."""

from __future__ import annotations

import re
from dataclasses import dataclass

from app.data.errors import shown
from app.data.ilsvrc.devkit import Devkit, read_devkit
from app.data.ilsvrc.tars import members
from app.data.pread import OpenFile
from app.data.tarindex import Member
from app.resilience.exit_codes import ExitCode, TrainingError

_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_TRAIN_IMAGE = re.compile(r".+\.JPEG")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")
_NAMED = 5


@dataclass(frozen=True)
class Counts:
    """How many there are, or must be. The defaults are those of ILSVRC2012 (the development kit's readme.txt)."""

    classes: int = 1000
    train: int = 1_281_167
    val: int = 50_000


class Source:
    """The train tar, the val tar and the labels.

    What is checked here, before anything is written: the number of classes of the devkit and of its validation labels
    against `expected`; the class tars in the train tar against the devkit's classes; the images of the val tar against
    the devkit's labels, one each. The number of training images is known only when all class tars have been read:
    `require_train`.

    Args:
        train_tar, val_tar, devkit: paths of the published files.
        expected: the counts that there must be.

    Attributes:
        classes: WordNet IDs, sorted.
        train, val: the open tars.

    Raises:
        TrainingError: 65, 66, 69 or 144, naming file and member.
    """

    def __init__(self, train_tar: str, val_tar: str, devkit: str, expected: Counts) -> None:
        self._expected = expected
        labels = read_devkit(devkit)
        self.classes = labels.classes
        self.train, self.val = OpenFile(train_tar), OpenFile(val_tar)
        _require(devkit, "classes", len(labels.classes), expected.classes)
        _require(devkit, "validation labels", len(labels.val), expected.val)
        self._class_tars = self._find_class_tars()
        self._val = self._sort_val(labels)

    @property
    def tars(self) -> dict[str, OpenFile]:
        """The tars by the name of the folder that their images belong in."""
        return {"train": self.train, "val": self.val}

    def images(self, part: str, wnid: str) -> list[Member]:
        """The images of a class in train or val, sorted by name; for train its tar is read now.

        Raises:
            TrainingError: 65, 66 or 144, naming file and member.
        """
        if part == "val":
            return self._val[wnid]
        tar = self._class_tars[wnid]
        found = sorted(members(self.train, tar))
        where = f"{shown(self.train.path)}: {tar.name}"
        if not found:
            raise TrainingError(ExitCode.BAD_DATA, f"{where} holds no image")
        for member in found:
            if not _TRAIN_IMAGE.fullmatch(member.name):
                raise _stranger(where, member, "an image <name>.JPEG")
        return found

    def require_train(self, images: int) -> None:
        """Compares the number of training images with what there must be.

        Raises:
            TrainingError: 65, another number.
        """
        _require(self.train.path, "training images", images, self._expected.train)

    def _find_class_tars(self) -> dict[str, Member]:
        path = self.train.path
        found = {}
        for member in members(self.train):
            name = _CLASS_TAR.fullmatch(member.name)
            if name is None:
                raise _stranger(shown(path), member, "the tar of a class, n and eight digits.tar")
            found[name[1]] = member
        lost = sorted(set(self.classes) - set(found))
        if lost:
            more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            message = f"{shown(path)} lacks the tars of {len(lost)} classes: {', '.join(lost[:_NAMED])}{more}"
            raise TrainingError(ExitCode.BAD_DATA, message)
        strange = sorted(set(found) - set(self.classes))
        if strange:
            message = f"{shown(path)} holds {strange[0]}.tar, which is no class of the development kit"
            raise TrainingError(ExitCode.BAD_DATA, message)
        return found

    def _sort_val(self, labels: Devkit) -> dict[str, list[Member]]:
        path = shown(self.val.path)
        result: dict[str, list[Member]] = {wnid: [] for wnid in self.classes}
        images = 0
        for member in members(self.val):
            name = _VAL_IMAGE.fullmatch(member.name)
            if name is None:
                raise _stranger(path, member, "an image ILSVRC2012_val_<eight digits>.JPEG")
            if not 1 <= int(name[1]) <= len(labels.val):
                message = f"{path}: its member {member.name} has no label: the devkit has {len(labels.val)}"
                raise TrainingError(ExitCode.BAD_DATA, message)
            result[labels.val[int(name[1]) - 1]].append(member)
            images += 1
        _require(self.val.path, "images", images, len(labels.val))
        for found in result.values():
            found.sort()
        empty = next((wnid for wnid, found in result.items() if not found), None)
        if empty is not None:
            raise TrainingError(ExitCode.BAD_DATA, f"{path} holds no image of class {empty}, by the devkit's labels")
        return result


def _require(path: str, what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise TrainingError(ExitCode.BAD_DATA, f"{shown(path)} holds {found} {what} where {wanted} are expected")


def _stranger(where: str, member: Member, wanted: str) -> TrainingError:
    return TrainingError(ExitCode.BAD_DATA, f"{where}: its member {member.name} is not {wanted}")
