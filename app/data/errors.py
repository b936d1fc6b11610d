"""How errors of the file system become one clear line and an exit code. No torch."""

from __future__ import annotations

import os

from app.resilience.exit_codes import FULL_VOLUME, SICK_VOLUME, ExitCode, TrainingError


def shown(path: str | os.PathLike[str]) -> str:
    """The path as one printable line, whatever bytes its name holds."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def unreadable(path: str | os.PathLike[str], error: OSError) -> TrainingError:
    """The error to raise for a file or folder that could not be read: 144 for a sick volume, 66 for the rest."""
    why = error.strerror or str(error)
    if error.errno in SICK_VOLUME:
        return TrainingError(ExitCode.VOLUME_IO, f"{shown(path)}: the volume failed while it was read: {why}")
    return TrainingError(ExitCode.DATA_MISSING, f"{shown(path)} cannot be read: {why}")


def unwritable(path: str | os.PathLike[str], error: OSError, instead: str) -> TrainingError:
    """The error to raise for a folder that could not be written: 144 for a full or sick volume, 64 for the rest.

    Args:
        path: what was to be written.
        error: what the file system answered.
        instead: what the user can do, as the end of the sentence.
    """
    passing = error.errno in SICK_VOLUME | FULL_VOLUME
    code = ExitCode.VOLUME_IO if passing else ExitCode.BAD_OPTION
    return TrainingError(code, f"{shown(path)} cannot be written: {error.strerror or error}; {instead}")
