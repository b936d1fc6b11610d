"""The embedded data set: 1,797 handwritten digits, written as JPEG files in the ImageNet layout.

Origin: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository (1998),
https://doi.org/10.24432/C50P49, licence CC BY 4.0. `digits.npz` holds its test part as scikit-learn ships it
(`sklearn.datasets.load_digits`): `images` uint8 (1797, 8, 8) from 0 (white) to 16 (black ink), `targets` uint8 (1797,).

    python -m app.data.digits --out DIR

writes DIR/train/<class>/NNNN.jpeg (1,437 files) and DIR/val/<class>/NNNN.jpeg (360), NNNN being the image's number in
the set. NumPy and Pillow only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app import tools
from app.data.errors import shown, unwritable
from app.resilience.exit_codes import ExitCode, TrainingError

CLASSES = tuple("0123456789")
HELD_OUT = 360
"""Images of val/: 20 % of 1,797, rounded up."""
SIDE = 32
"""Pixels of a written image's side; the originals have 8."""
MANIFEST = "digits.json"
"""The file that is written last: where it stands, the tree is complete."""
_MANIFEST_TEXT = json.dumps({"data_set": "digits", "version": 1, "side": SIDE, "train": 1797 - HELD_OUT, "val": 360})
_WRITING = ".writing-"


def default_folder() -> Path:
    """Where the JPEGs lie unless `--dataset_path` names a folder: `digits` in the user's cache of this project.

    That is RESNET_OPERATOR_CACHE, else XDG_CACHE_HOME/resnet-operator, else ~/.cache/resnet-operator (in a pod, HOME
    is an emptyDir).
    """
    cache = os.environ.get("RESNET_OPERATOR_CACHE")
    if not cache:
        above = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        cache = os.path.join(above, "resnet-operator")
    return Path(cache, "digits")


def load() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The embedded images, uint8 (1797, 8, 8) from 0 to 16, and their digits, uint8 (1797,)."""
    with np.load(Path(__file__).with_name("digits.npz")) as data:
        return data["images"], data["targets"]


def held_out(targets: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which images are val/: the same 360 for ever, each class with its share (largest remainders).

    Within a class the images are taken in the order of the SHA-256 of their number, which no version of any library
    can change.
    """
    counts = np.bincount(targets, minlength=len(CLASSES))
    exact = counts * (HELD_OUT / len(targets))
    take = np.floor(exact).astype(np.int64)
    most_left = np.argsort(take - exact, kind="stable")
    take[most_left[: HELD_OUT - int(take.sum())]] += 1
    result = np.zeros(len(targets), dtype=np.bool_)
    for digit, number in enumerate(take):
        members = np.flatnonzero(targets == digit).tolist()
        members.sort(key=lambda i: hashlib.sha256(str(i).encode()).digest())
        result[members[:number]] = True
    return result


def complete(folder: Path) -> bool:
    """Whether the whole tree stands there."""
    try:
        return (folder / MANIFEST).read_text() == _MANIFEST_TEXT
    except (OSError, UnicodeDecodeError):
        return False


def write(folder: Path) -> bool:
    """Writes the tree, unless it is there; False where it was.

    Every file is moved into place whole and the manifest comes last, so an interrupted run is completed by the next
    one, and several processes may do this at once: they write the same bytes.

    Raises:
        TrainingError: the folder can't be written, or holds images that are not these.
    """
    if complete(folder):
        return False
    images, targets = load()
    parts = zip(targets, held_out(targets), strict=True)
    names = [f"{'val' if val else 'train'}/{CLASSES[digit]}/{i:04d}.jpeg" for i, (digit, val) in enumerate(parts)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_strangers(folder, set(names))
        temporary = Path(tempfile.mkdtemp(prefix=_WRITING, dir=folder))
        _fill(folder, temporary, images, names)
    except OSError as error:
        if complete(folder):  # another process was quicker and has swept our temporary folder away
            return False
        raise unwritable(folder, error, "name a folder that can be with --dataset_path") from None
    for left in folder.glob(f"{_WRITING}*"):  # ours, and those of processes that were killed
        shutil.rmtree(left, ignore_errors=True)
    return True


def _fill(folder: Path, temporary: Path, images: NDArray[np.uint8], names: Sequence[str]) -> None:
    for part in ("train", "val"):
        for name in CLASSES:
            (folder / part / name).mkdir(parents=True, exist_ok=True)
    for pixels, name in zip(images, names, strict=True):
        ink = Image.fromarray((pixels.astype(np.uint16) * 255 // 16).astype(np.uint8))
        ink.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(temporary / "image", format="JPEG", quality=95)
        os.replace(temporary / "image", folder / name)
    (temporary / MANIFEST).write_text(_MANIFEST_TEXT)
    os.replace(temporary / MANIFEST, folder / MANIFEST)


def _refuse_strangers(folder: Path, names: set[str]) -> None:
    """A wrong --out must not mix digits into another data set."""
    for part in ("train", "val"):
        for entry in sorted((folder / part).glob("*")) if (folder / part).is_dir() else ():
            for path in sorted(entry.glob("*")) if entry.name in CLASSES and entry.is_dir() else (entry,):
                if path.relative_to(folder).as_posix() not in names:
                    raise TrainingError(
                        ExitCode.BAD_OPTION,
                        f"{shown(path)} is not one of the digits; name an empty or a new folder for them",
                    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = tools.Parser("digits", "Writes the digits as JPEG files.")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="DIR", help=f"default: {default_folder()}".replace("%", "%%")
    )

    def work() -> int:
        out = parser.parse_args(argv).out or default_folder()
        did = "wrote" if write(out) else "found"
        print(f"{did} 1437 training and 360 validation images in {shown(out)}")
        return ExitCode.DONE

    return tools.run("digits", work)


if __name__ == "__main__":
    sys.exit(main())
