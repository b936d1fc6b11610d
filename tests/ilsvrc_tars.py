"""Small files of the published structure: a tar of tars, a flat tar, and a devkit with a MATLAB meta.mat."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from app.data import digits

FIELDS = (
    "ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images",
)  # fmt: skip


@dataclass(frozen=True)
class Published:
    """The three files, and how many images and classes they hold."""

    train_tar: Path
    val_tar: Path
    devkit: Path
    classes: int
    train: int
    val: int

    def args(self) -> list[str]:
        """The options of prepare-imagenet that name and count them."""
        return [
            f"--train-tar={self.train_tar}", f"--val-tar={self.val_tar}", f"--devkit={self.devkit}",
            f"--classes={self.classes}", f"--train-images={self.train}", f"--val-images={self.val}",
        ]  # fmt: skip


def tar_of(files: Sequence[tuple[str, bytes]]) -> bytes:
    """A tar of these files, as GNU tar writes it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def meta_mat(wnids: Sequence[str], images: int) -> bytes:
    """`synsets` as in the real devkit: an n x 1 struct array, first the classes, then the synsets above them."""
    synsets = np.zeros((len(wnids) + 1, 1), dtype=[(field, object) for field in FIELDS])
    for row, wnid in enumerate((*wnids, "n90000000")):
        above = row == len(wnids)
        values: tuple[Any, ...] = (
            float(row + 1), wnid, f"{wnid}, in words", "what it is", float(len(wnids) * above),
            np.arange(1.0, len(wnids) + 1) if above else np.zeros((1, 0)), float(above),
            0.0 if above else float(images),
        )  # fmt: skip
        for field, value in zip(FIELDS, values, strict=True):
            synsets[field][row, 0] = value
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": synsets})
    return buffer.getvalue()


def devkit_of(meta: bytes, labels: Sequence[int]) -> bytes:
    """A devkit whose validation labels are these ILSVRC2012_IDs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        truth = "".join(f"{label}\n" for label in labels).encode()
        for name, content in (
            ("readme.txt", b"read me"),
            ("data/meta.mat", meta),
            ("data/ILSVRC2012_validation_ground_truth.txt", truth),
        ):
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def publish(
    root: Path, train: Mapping[str, Sequence[tuple[str, bytes]]], val: Sequence[tuple[str, bytes]]
) -> Published:
    """Writes the three files.

    Args:
        root: there.
        train: for each class its files; the order is that of the ILSVRC2012_IDs.
        val: the class and the content of every validation image.
    """
    root.mkdir(parents=True, exist_ok=True)
    wnids = list(train)
    result = Published(
        root / "ILSVRC2012_img_train.tar", root / "ILSVRC2012_img_val.tar", root / "ILSVRC2012_devkit_t12.tar.gz",
        len(wnids), sum(map(len, train.values())), len(val),
    )  # fmt: skip
    result.train_tar.write_bytes(tar_of([(f"{wnid}.tar", tar_of(files)) for wnid, files in train.items()]))
    result.val_tar.write_bytes(
        tar_of([(f"ILSVRC2012_val_{i:08d}.JPEG", content) for i, (_, content) in enumerate(val, 1)])
    )
    meta = meta_mat(wnids, result.train // max(1, len(wnids)))
    result.devkit.write_bytes(devkit_of(meta, [wnids.index(wnid) + 1 for wnid, _ in val]))
    return result


def publish_digits(root: Path, classes: int = 10, train: int = 200, val: int = 40) -> Published:
    """Real JPEGs: of each of the first digits at most so many. IDs, names and label order are all mixed."""
    wnids = {str(digit): f"n{(7 * digit) % 10:08d}" for digit in range(classes)}
    files = {
        part: {digit: [file for name, file in written().items() if name[:2] == (part, digit)][:most] for digit in wnids}
        for part, most in (("train", train), ("val", val))
    }
    # Not in the order of their names, as in the real tars.
    of_train = {
        wnids[digit]: [(f"{wnids[digit]}_{i}.JPEG", content) for i, content in enumerate(found[::-1], 8)]
        for digit, found in files["train"].items()
    }
    of_val = [(wnids[digit], content) for digit, found in files["val"].items() for content in found]
    of_val = [of_val[i] for i in np.random.default_rng(0).permutation(len(of_val))]
    return publish(root / "published", of_train, of_val)


@cache
def written() -> dict[tuple[str, str, str], bytes]:
    """Part, class and name of every digit -> its JPEG."""
    with tempfile.TemporaryDirectory() as folder:
        digits.write(Path(folder))
        return {file.parts[-3:]: file.read_bytes() for file in sorted(Path(folder).rglob("*.jpeg"))}  # type: ignore[misc]


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below train/ and val/, and what is in it."""
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for part in ("train", "val")
        for file in (folder / part).rglob("*")
        if file.is_file()
    }
