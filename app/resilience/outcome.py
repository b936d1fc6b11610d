"""How a rank ended, in words: a small JSON file that the rank leaves for its launcher."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

ENV_OUTCOME = "RESNET_OUTCOME"
"""Environment variable: the path of the rank's outcome file."""


@dataclass(frozen=True)
class Outcome:
    """The end of one rank.

    Attributes:
        code: the exit code.
        message: one line for a person.
        reason: one word where it says more than the code's own.
        exported: path of the ONNX file, where this rank wrote one.
        export_error: why there is none.
        exception: type name of the error, where there was one ("RuntimeError"); the controller compares it.
    """

    code: int
    message: str = ""
    reason: str = ""
    exported: str | None = None
    export_error: str | None = None
    exception: str = ""


def write(path: Path, outcome: Outcome) -> None:
    """Writes the outcome in one piece."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(outcome)))
    os.replace(temporary, path)


def read(path: Path) -> Outcome | None:
    """The outcome, or None where the rank left none (it was killed)."""
    try:
        return Outcome(**json.loads(path.read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None
