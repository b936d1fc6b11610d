"""What the development kit says: which classes there are, and which of them every validation image shows.

`data/meta.mat` (MATLAB 5) holds the struct array `synsets` with a row for each of 1,860 synsets. Those without children
are the 1,000 classes; their `ILSVRC2012_ID` is what the lines of `data/ILSVRC2012_validation_ground_truth.txt` are:
line i is for ILSVRC2012_val_<i>.JPEG (the kit's readme.txt).
"""

from __future__ import annotations

import importlib.util
import io
import re
import tarfile
import zlib
from dataclasses import dataclass

import numpy as np

from app.data.errors import shown, unreadable
from app.resilience.exit_codes import ExitCode, TrainingError
from app.version import installing

META = "data/meta.mat"
TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
LARGEST = 16 << 20
"""Bytes that one of the two may have; the real ones have less than 1 MiB."""
WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Devkit:
    """The labels.

    Attributes:
        classes: WordNet ID of every class, sorted: the order of the network's outputs.
        val: WordNet ID of every validation image, the first one being ILSVRC2012_val_00000001.JPEG.
    """

    classes: list[str]
    val: list[str]


def read_devkit(path: str) -> Devkit:
    """Reads ILSVRC2012_devkit_t12.tar.gz; nothing of it is unpacked to the disk.

    Raises:
        TrainingError: 65 it is not the development kit, 66 it is missing, 69 there is no SciPy, 144 the volume failed.
    """
    if importlib.util.find_spec("scipy") is None:
        message = f"reading {META} of the devkit needs scipy: {installing('dataset')}"
        raise TrainingError(ExitCode.FRAMEWORK_MISSING, message)
    content = _files(path)
    for name in (META, TRUTH):
        if name not in content:
            raise _wrong(path, f"it holds no {name}")
    wnids = _classes(path, content[META])
    val = []
    for number, line in enumerate(content[TRUTH].split(), 1):
        wnid = wnids.get(int(line)) if line.isdigit() and len(line) < 10 else None
        if wnid is None:
            raise _wrong(path, f"line {number} of {TRUTH} is no class of {META}: {line[:20]!r}")
        val.append(wnid)
    return Devkit(sorted(wnids.values()), val)


def _files(path: str) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:*") as tar:
            for info in tar:
                name = next((name for name in (META, TRUTH) if f"/{info.name}".endswith(f"/{name}")), None)
                if name is None or not info.isreg():
                    continue
                if info.size > LARGEST:
                    raise _wrong(path, f"{name} has {info.size} bytes")
                file = tar.extractfile(info)
                assert file is not None
                found[name] = file.read()
    except OSError as error:
        if error.errno is None:  # gzip's own error
            raise _wrong(path, str(error)) from None
        raise unreadable(path, error) from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _wrong(path, " ".join(str(error).split()) or "it was cut") from None
    return found


def _classes(path: str, content: bytes) -> dict[int, str]:
    """ILSVRC2012_ID -> WordNet ID of the synsets without children."""
    from scipy.io import loadmat  # noqa: PLC0415

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(content), squeeze_me=True, variable_names=["synsets"])["synsets"])
        rows = [
            (int(number), str(wnid))
            for number, wnid, children in zip(
                synsets["ILSVRC2012_ID"], synsets["WNID"], synsets["num_children"], strict=True
            )
            if int(children) == 0
        ]
    except Exception as error:  # noqa: BLE001  SciPy's reader raises nearly every type for broken bytes
        raise _wrong(
            path, f"{META} holds no synsets ({' '.join(str(error).split()) or type(error).__name__})"
        ) from None
    wnids = dict(rows)
    odd = next((wnid for wnid in wnids.values() if not WNID.fullmatch(wnid)), None)
    if odd is not None:
        raise _wrong(path, f"{META} names a class {shown(odd)!r}, not n and eight digits")
    if not rows or len(set(wnids.values())) < len(rows):
        raise _wrong(path, f"{META} names {'a class twice' if rows else 'no class'}")
    return wnids


def _wrong(path: str, why: str) -> TrainingError:
    return TrainingError(ExitCode.BAD_DATA, f"{shown(path)} is not the ILSVRC2012 development kit: {why}")
