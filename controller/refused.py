"""An experiment of the API that is not valid: what the API server can't check is refused here, in status. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.api import Experiment, SpecError, from_document
from controller.progress import one_line
from controller.status import MESSAGE
from controller.times import to_text

_ACCEPTED = "Accepted"


def as_experiment(document: Mapping[str, Any]) -> Experiment:
    """The experiment in a document of the API, trimmed or not.

    The kind may be that of a newer operator, which this one was put back from: its fields do not keep this one from
    looking after what trains.

    Raises:
        SpecError: it is not valid.
    """
    metadata = document["metadata"]
    kept = {
        name: metadata[name]
        for name in ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp")
        if name in metadata
    }
    return from_document({**document, "metadata": kept}, metadata["name"], may_be_newer=True)


def refused_status(document: Mapping[str, Any], error: SpecError, now: float) -> dict[str, Any]:
    """The status that says so. The rest of it stays: an attempt that is under way goes on, and is looked after again
    once the spec is valid."""
    old = document.get("status") or {}
    message = one_line("; ".join(error.problems), MESSAGE)
    generation = document["metadata"].get("generation")
    before: Mapping[str, Any] = next((each for each in old.get("conditions") or () if each["type"] == _ACCEPTED), {})
    since = before.get("lastTransitionTime") if before.get("status") == "False" else None
    condition = {
        "type": _ACCEPTED,
        "status": "False",
        "reason": "Invalid",
        "message": message,
        "lastTransitionTime": since or to_text(now),
        "observedGeneration": generation,
    }
    others = [each for each in old.get("conditions") or () if each["type"] != _ACCEPTED]
    return {
        **old,
        "phase": old.get("phase", "Pending"),
        "message": message,
        "observedGeneration": generation,
        "conditions": [condition, *others],
    }
