"""Events: what changed between two statuses, for `kubectl describe`. PURE.

They follow from the change alone, so a look that changes nothing says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from controller.api import ConditionType, Status
from controller.progress import one_line
from controller.status import FINISHED, SUSPENDED, find

NORMAL, WARNING = "Normal", "Warning"
_MESSAGE = 1024  # the API refuses longer ones
# Reasons of a False condition that are the ordinary course of things.
_QUIET = {
    "AttemptEnding", "CreatingJob", "Finished", "NotRunning", "Pending", "PodsNotScheduled", "PodsStarting", "Queued",
    "Restarting", "Suspended", "Suspending", "WaitingForPods",
}  # fmt: skip
_WATCHED: tuple[ConditionType, ...] = ("Accepted", "PodsScheduled", "Running", "ProgressReachable", "Exported")


@dataclass(frozen=True)
class Event:
    """One event of the experiment; `type` is Normal or Warning."""

    type: str
    reason: str
    message: str


def transitions(old: Status, new: Status) -> tuple[Event, ...]:
    """The events of a change of status, in the order in which things happened."""
    return tuple(Event(e.type, e.reason, one_line(e.message, _MESSAGE)) for e in _transitions(old, new))


def _transitions(old: Status, new: Status) -> Iterator[Event]:
    finished = new.phase in FINISHED and old.phase != new.phase
    if new.history[-1:] != old.history[-1:] and not finished:
        yield from _ended(new)
    if new.attempt > old.attempt:
        after = f" from the checkpoint of step {new.last_checkpoint}" if new.last_checkpoint is not None else ""
        yield Event(NORMAL, "AttemptStarting", f"attempt {new.attempt} begins{after}")
    for kind in _WATCHED:
        yield from _condition(old, new, kind)
    if new.phase != old.phase:
        yield from _phase(new)


def _ended(new: Status) -> Iterator[Event]:
    last = new.history[-1]
    if last.reason == SUSPENDED:
        yield Event(NORMAL, "Suspending", f"attempt {last.attempt} is stopped after a checkpoint")
    elif new.last_verdict is not None:
        counts = "" if last.counted else " (does not count as a fault)"
        yield Event(WARNING, last.reason, f"attempt {last.attempt} ended{counts}: {new.last_verdict.message}")


def _condition(old: Status, new: Status, kind: ConditionType) -> Iterator[Event]:
    before, now = find(old, kind), find(new, kind)
    if now is None or (before is not None and (before.status, before.reason) == (now.status, now.reason)):
        return
    if now.status == "False" and now.reason not in _QUIET:
        yield Event(WARNING, now.reason, now.message or now.reason)
    elif kind == "Exported" and now.status == "True":
        yield Event(NORMAL, now.reason, now.message)
    elif kind == "ProgressReachable" and now.status == "True" and before is not None and before.status == "False":
        yield Event(NORMAL, "ProgressReachable", "/progress answers again")


def _phase(new: Status) -> Iterator[Event]:
    message = new.message or new.phase
    if new.phase == "Running":
        yield Event(NORMAL, "Running", f"attempt {new.attempt}: all pods run")
    elif new.phase in ("Queued", "Suspended"):
        yield Event(NORMAL, new.phase, message)
    elif new.phase == "Succeeded":
        yield Event(NORMAL, "Succeeded", message)
    elif new.phase == "Failed":
        failed = find(new, "Failed")
        yield Event(WARNING, failed.reason if failed is not None else "Failed", message)
