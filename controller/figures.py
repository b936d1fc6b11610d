"""The numbers in status, from what the newest attempt says of its progress. PURE."""

from __future__ import annotations

from typing import Any

from controller.api import Status
from controller.observed import Look, index_of, last_words, uid_of
from controller.progress import Identity, Progress
from controller.status import changed, find, over, with_condition
from controller.times import to_text, to_unix

BEFORE_FIRST_STEP = ("start", "scan", "first_step")
"""Words of /progress that come before the numbers of an attempt mean anything."""


WATCHED_BY_LAUNCHER = ("validate", "export")
"""Words for work without steps: /progress shows no movement, but the launcher sees it, and ends it if it hangs."""


def absorb(status: Status, look: Look) -> Status:
    """Takes over what the newest attempt says of its progress, from /progress or from node 0's last words."""
    metadata = look.experiment.metadata
    own = Identity(metadata.namespace, metadata.name, status.attempt)
    for pod in look.view.pods:
        if index_of(pod) == 0 and (not status.pod_uids or uid_of(pod) in status.pod_uids):
            words = last_words(pod, own)
            if words is not None:
                return _take(status, look, words, final=True)
    reading = look.observed.progress
    if reading is not None and reading.answered and reading.document is not None and not over(status):
        return _take(status, look, reading.document, final=False)
    return status


def moved(status: Status, document: Progress) -> bool:
    """Whether step or phase differ from those in status; a step means nothing before the first one is done."""
    if document.phase in BEFORE_FIRST_STEP:
        return document.phase != status.training_phase
    return (document.step, document.phase) != (status.step, status.training_phase)


def _take(status: Status, look: Look, document: Progress, *, final: bool) -> Status:
    newer = document.last_checkpoint is not None and document.last_checkpoint > _or(status.last_checkpoint, -1)
    last = to_unix(status.last_progress_time)
    due = (
        final
        or newer
        or last is None
        or look.now - last >= look.timing.progress_interval
        or status.training_phase is None
        or (_exported(document) and find(status, "Exported") is None)
        or (document.epoch != status.epoch and document.phase not in BEFORE_FIRST_STEP)
    )
    if not due:
        return status
    changes: dict[str, Any] = {}
    if moved(status, document):
        changes |= {"training_phase": document.phase, "last_progress_time": to_text(look.now)}
    if newer:
        changes |= {"last_checkpoint": document.last_checkpoint, "faults": 0, "attempts_without_progress": 0}
    if document.phase not in BEFORE_FIRST_STEP and (changes or final):
        changes |= _numbers(status, document)
        if not over(status):
            eta, rate = document.eta_seconds, document.images_per_second
            changes |= {
                "images_per_second": _rounded(rate, 1),
                "eta": None if eta is None else duration(eta),
            }
    status = changed(status, **changes) if changes else status
    if document.exported is not None:
        return with_condition(status, look, "Exported", ("True", "Exported", document.exported))
    if document.export_error is not None:
        return with_condition(status, look, "Exported", ("False", "ExportFailed", document.export_error))
    return status


def _exported(document: Progress) -> bool:
    return document.exported is not None or document.export_error is not None


def _numbers(status: Status, document: Progress) -> dict[str, Any]:
    """Numbers of the run, short enough for a column; what a resumed attempt does not know yet stays as it was."""
    return {
        "epoch": document.epoch,
        "epochs": document.epochs,
        "step": document.step,
        "loss": None if document.loss_reason else _or(_rounded(document.loss, 4), status.loss),
        # One of ImageNet's 50,000 images is 0.00002.
        "top1": _or(_rounded(document.top1, 5), status.top1),
        "best_top1": _or(_rounded(document.best_top1, 5), status.best_top1),
        "progress": f"{document.epoch}/{document.epochs}",
        "top1_percent": status.top1_percent if document.top1 is None else f"{100 * document.top1:.2f}",
    }


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value


def duration(seconds: float) -> str:
    """A duration as the ETA column shows it: 45s, 12m30s, 3h12m, 2d4h."""
    whole = round(seconds)
    minutes, hours, days = whole // 60, whole // 3600, whole // 86_400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    return f"{minutes}m{whole % 60:02d}s" if minutes else f"{whole}s"
