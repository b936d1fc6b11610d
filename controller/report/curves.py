"""PURE: the events of a run -> the curves of its report.

A run may have several starts, and each goes on from a checkpoint of an earlier one: what the earlier start did after
that checkpoint was done again. Such points are kept apart ("redone"): the later start is what the result is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Point:
    """One value of a curve.

    Attributes:
        step: optimizer steps done in the whole run.
        epoch: epoch in progress, from 1.
        value: NaN where it was not finite.
        start: which start of the training it comes from, from 0.
        redone: a later start went back behind this step, or had a value of its own at it.
    """

    step: int
    epoch: int
    value: float
    start: int
    redone: bool


@dataclass(frozen=True)
class Start:
    """One start of the training.

    Attributes:
        attempt: number of the controller's attempt.
        step: the step that it began or went on from.
        time: unix seconds.
    """

    attempt: int
    step: int
    time: float


@dataclass(frozen=True)
class EpochRow:
    """The numbers of one epoch as the training that counts had them; None where there is none."""

    epoch: int
    step: int
    train_loss: float | None
    validation_loss: float | None
    top1: float | None
    learning_rate: float | None
    images_per_second: float | None


@dataclass(frozen=True)
class Curves:
    """All curves of a run, each in the order of its starts and steps.

    Attributes:
        confused: of the last validation: class, what it was taken for, how often, images of the class.
    """

    starts: tuple[Start, ...] = ()
    train_loss: tuple[Point, ...] = ()
    validation_loss: tuple[Point, ...] = ()
    top1: tuple[Point, ...] = ()
    learning_rate: tuple[Point, ...] = ()
    images_per_second: tuple[Point, ...] = ()
    confused: tuple[tuple[str, str, int, int], ...] = ()
    epochs: tuple[EpochRow, ...] = field(default=())


def curves(events: Iterable[Event]) -> Curves:
    """The curves of the joined events of all starts, in the order of the starts; what is no number is left out."""
    starts, dated = _by_start(events)
    # A start's step is a boundary for all that came before it.
    boundary = [min((later.step for later in starts[i + 1 :]), default=math.inf) for i in range(len(starts))]

    def points(kind: str, key: str) -> tuple[Point, ...]:
        found = []
        for start, event in dated:
            if event.get("kind") == kind and key in event and isinstance(event.get("step"), int):
                value = event[key]
                number = float(value) if isinstance(value, (int, float)) else math.nan
                epoch = event.get("epoch")
                redone = event["step"] > boundary[start]
                found.append(Point(event["step"], epoch if isinstance(epoch, int) else 0, number, start, redone))
        # At the boundary itself both may have a value: an epoch is validated again where its checkpoint was older.
        newest = {point.step: point.start for point in found}
        return tuple(replace(point, redone=point.redone or newest[point.step] > point.start) for point in found)

    result = Curves(
        starts=tuple(starts),
        train_loss=points("train", "loss"),
        validation_loss=points("validate", "loss"),
        top1=points("validate", "top1"),
        learning_rate=points("train", "learning_rate"),
        images_per_second=points("train", "images_per_second"),
        confused=_confused([event for _, event in dated if event.get("kind") == "validate"][-1:]),
    )
    return Curves(**{**result.__dict__, "epochs": _epoch_rows(result)})


def counted(points: Sequence[Point]) -> list[Point]:
    """The points of the training that counts, those without a value left out."""
    return [point for point in points if not point.redone and math.isfinite(point.value)]


def _by_start(events: Iterable[Event]) -> tuple[list[Start], list[tuple[int, Event]]]:
    """The starts, and every event with the number of its start. Events before the first "start" are a start's too."""
    starts: list[Start] = []
    dated: list[tuple[int, Event]] = []
    for event in events:
        if event.get("kind") == "start" or not starts:
            starts.append(
                Start(_int(event.get("attempt")), _int(event.get("step")), float(event.get("time") or 0.0))
                if event.get("kind") == "start"
                else Start(_int(event.get("attempt")), 0, float(event.get("time") or 0.0))
            )
        dated.append((len(starts) - 1, event))
    return starts, dated


def _confused(last: Sequence[Event]) -> tuple[tuple[str, str, int, int], ...]:
    found = last[0].get("confused") if last else None
    rows = found if isinstance(found, list) else []
    wanted = [str, str, int, int]
    return tuple(tuple(row) for row in rows if isinstance(row, list) and [type(cell) for cell in row] == wanted)


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _epoch_rows(found: Curves) -> tuple[EpochRow, ...]:
    def last(points: Sequence[Point], summarize: Callable[[list[float]], float] = lambda values: values[-1]) -> Any:
        by_epoch: dict[int, list[float]] = {}
        for point in counted(points):
            by_epoch.setdefault(point.epoch, []).append(point.value)
        return {epoch: summarize(values) for epoch, values in by_epoch.items()}

    kept = [p for p in (*found.train_loss, *found.top1) if not p.redone]
    steps: dict[int, int] = {}
    for point in kept:
        steps[point.epoch] = max(point.step, steps.get(point.epoch, 0))
    columns = [
        last(found.train_loss),
        last(found.validation_loss),
        last(found.top1),
        last(found.learning_rate),
        last(found.images_per_second, lambda values: sum(values) / len(values)),
    ]
    return tuple(EpochRow(epoch, steps[epoch], *(column.get(epoch) for column in columns)) for epoch in sorted(steps))
