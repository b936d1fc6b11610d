"""Changes of a status, each of them checked. PURE."""

from __future__ import annotations

from typing import Any, Literal, get_args

from controller.api import Condition, ConditionType, Phase, Status
from controller.observed import Look
from controller.progress import one_line
from controller.times import to_text

FINISHED: tuple[Phase, ...] = ("Succeeded", "Failed")
"""Phases that are never left."""
SUSPENDED = "Suspended"
"""Why an attempt ended that spec.suspend stopped."""
MESSAGE = 4096
"""Most characters of a message in status."""
_SHORT = 253
_TYPES: tuple[ConditionType, ...] = get_args(ConditionType)

Says = tuple[Literal["True", "False", "Unknown"], str, str]
"""What a condition says: its status, its reason and its message."""


def changed(status: Status, **changes: Any) -> Status:
    """The status with some fields replaced, checked as a whole: what is written is always valid."""
    return Status.model_validate({**{name: getattr(status, name) for name in Status.model_fields}, **changes})


def over(status: Status) -> bool:
    """Whether the newest attempt has ended, or there is none yet."""
    return status.attempt == 0 or any(entry.attempt == status.attempt for entry in status.history[-1:])


def find(status: Status, kind: ConditionType) -> Condition | None:
    """The condition of that type."""
    return next((c for c in status.conditions if c.type == kind), None)


def with_condition(status: Status, look: Look, kind: ConditionType, says: Says) -> Status:
    """The status with one condition set. Its transition time changes only with its status."""
    truth, reason, message = says
    before = find(status, kind)
    since = before.last_transition_time if before is not None and before.status == truth else to_text(look.now)
    new = Condition(
        type=kind,
        status=truth,
        reason=one_line(reason, _SHORT),
        message=one_line(message, MESSAGE),
        last_transition_time=since,
        observed_generation=look.experiment.metadata.generation,
    )
    kept = {c.type: c for c in status.conditions} | {kind: new}
    return changed(status, conditions=[kept[t] for t in _TYPES if t in kept])
