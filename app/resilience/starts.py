"""The starts of a run: their numbers, their claims, and the line of training that the claims make.

Every gang that starts claims a number, ``<root>/starts/<n>``, and writes under ``<root>/<n>/`` alone. The claim records
the checkpoint it continues from, its parent. Following the parents back gives the one line of training; what an older
start writes after a newer one recorded its parent is never on that line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from app.resilience.checkpoint import sync_directory

STARTS = "starts"

_INSIDE = re.compile(r"(\d{1,18})/step-(\d{1,18})(?:\.replaced)?")


@dataclass(frozen=True)
class Record:
    """What a start wrote into its claim.

    Attributes:
        parent: the checkpoint it continued from, "<start>/step-<k>" or the absolute path of one outside; None: none.
    """

    parent: str | None


@dataclass(frozen=True)
class Link:
    """A stretch of the line of training: the checkpoints of `start`, up to step `limit` (None: all of them)."""

    start: int
    limit: int | None


def line(records: Mapping[int, Record | None], newest: int) -> Iterator[Link | Path]:
    """The line of training back from a start: stretches, newest first, and at most one checkpoint outside, at the end.

    Args:
        records: start -> its claim; None for a claim without content, by a start that died before it recorded its
            parent. Such a start trained nothing, so the one before it is next.
        newest: the start to go back from.
    """
    start, limit = newest, None
    while start > 0:
        yield Link(start, limit)
        record = records.get(start)
        if record is None and limit is None:
            start = max((n for n in records if n < start), default=0)
        elif record is None or record.parent is None:
            return
        elif inside := _INSIDE.fullmatch(record.parent):
            if int(inside[1]) >= start:  # no claim of ours says this
                return
            # The parent's start may have gone on writing, as a zombie: what it wrote above the parent is not ours.
            start, limit = int(inside[1]), int(inside[2])
        else:
            yield Path(record.parent)
            return


def claim(root: Path) -> tuple[int, int]:
    """Claims the next start number; returns it and the open claim."""
    while True:
        number = max([*numbers(root / STARTS), *numbers(root)], default=0) + 1
        try:
            fd = os.open(root / STARTS / str(number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:  # another gang was quicker: after it, then
            continue
        sync_directory(root / STARTS)
        return number, fd


def numbers(directory: Path) -> list[int]:
    """The names in a directory that are numbers."""
    return [int(name) for name in os.listdir(directory) if name.isdecimal()]


def read_records(root: Path) -> dict[int, Record | None]:
    """Start -> its claim, as `line` takes it."""
    records: dict[int, Record | None] = dict.fromkeys(numbers(root))
    return {**records, **{number: _record(root / STARTS / str(number)) for number in numbers(root / STARTS)}}


def _record(path: Path) -> Record | None:
    try:
        parent = json.loads(path.read_bytes())["parent"]
    except (ValueError, KeyError, TypeError):
        return None
    known = parent is None or (isinstance(parent, str) and (_INSIDE.fullmatch(parent) or Path(parent).is_absolute()))
    return Record(parent) if known else None


def parent_name(path: Path, root: Path) -> str:
    """How a claim names its parent: relative where it lies under the same root, so that the whole may be moved."""
    real = Path(os.path.realpath(path))
    try:
        inside = str(real.relative_to(os.path.realpath(root)))
    except ValueError:
        return str(real)
    return inside if _INSIDE.fullmatch(inside) else str(real)
