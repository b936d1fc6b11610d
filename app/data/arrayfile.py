"""A file of arrays and a few facts about them (NumPy's .npz), written whole or not at all, and read with distrust."""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEFT_SECONDS = 3600.0
"""A temporary file that has not been written to for so long was left by a process that died."""


def save(
    path: str,
    facts: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    *,
    compressed: bool = False,
    left_seconds: float = LEFT_SECONDS,
) -> None:
    """Writes the file in one piece: others see the old one or the new one, also where two write at once.

    Args:
        path: the file; its folder must be there.
        facts: JSON values.
        arrays: by name, none of which is "facts".
        compressed: takes longer.
        left_seconds: temporary files of this file that are older than this are removed first.

    Raises:
        OSError: it can't be written.
    """
    folder, name = os.path.split(path)
    prefix = f".{name}-"
    _sweep(folder, prefix, left_seconds)
    text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder or ".", prefix=prefix, delete=False) as file:
            temporary = file.name
            (np.savez_compressed if compressed else np.savez)(file, facts=text, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # a temporary file is its owner's alone, but other users train
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise


def load(path: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The facts and the arrays of a file; their bytes are those that were written (a zip file keeps a CRC).

    Raises:
        OSError: it can't be read.
        ValueError: it is no such file, or is damaged.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            arrays = {name: held[name] for name in held.files}
        facts = json.loads(arrays.pop("facts").tobytes())
    except Exception as error:  # noqa: BLE001  a byte changed in a zip file makes Python's reader raise nearly every type
        raise ValueError(f"damaged: {error}") from None
    if not isinstance(facts, dict):
        raise ValueError("damaged: no facts")
    return facts, arrays


def _sweep(folder: str, prefix: str, seconds: float) -> None:
    with os.scandir(folder or ".") as entries:
        for entry in entries:
            if entry.name.startswith(prefix):
                with suppress(OSError):
                    if entry.stat().st_mtime < time.time() - seconds:
                        os.unlink(entry.path)
