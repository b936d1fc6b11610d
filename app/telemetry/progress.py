"""The /progress document and the termination message. Pure: a beat and an identity in, a document out."""

from __future__ import annotations

import json
import math
from typing import Any

from app.resilience.heartbeat import Beat, phase_name
from app.telemetry.identity import Identity

TERMINATION_LIMIT = 4096
"""Bytes that the kubelet keeps of a termination message (Kubernetes, "Determine the Reason for Pod Failure")."""

_CUT_FIRST = ("message", "export_error", "exception")
_MARK = "…"


def document(
    identity: Identity,
    beat: Beat | None,
    *,
    since: float,
    exported: str | None = None,
    export_error: str | None = None,
) -> dict[str, Any]:
    """How far the run is, as JSON can say it: numbers that are not finite are null.

    Args:
        identity: whose run it is.
        beat: the last beat of this node's first rank, None before there is one.
        since: unix seconds, shown as `updated` while there is no beat.
        exported: path of the ONNX file, once it is written.
        export_error: why there is none.
    """
    seen = beat or Beat()
    unfit = math.isinf(seen.loss) or (math.isnan(seen.loss) and seen.nonfinite_steps > 0)
    return {
        "namespace": identity.namespace,
        "experiment": identity.experiment,
        "attempt": identity.attempt,
        "pod": identity.pod,
        "phase": phase_name(seen.phase),
        "epoch": seen.epoch,
        "epochs": seen.epochs,
        "step": seen.step,
        "steps": seen.steps,
        "loss": _finite(seen.loss),
        "loss_reason": "non-finite" if unfit else None,
        "learning_rate": _finite(seen.learning_rate),
        "top1": _finite(seen.top1),
        "top5": _finite(seen.top5),
        "best_top1": _finite(seen.best_top1),
        "images_per_second": _finite(seen.images_per_second),
        "eta_seconds": _finite(seen.eta_seconds),
        "straggler_rank": None if seen.straggler_rank < 0 else seen.straggler_rank,
        "straggler_ratio": _finite(seen.straggler_ratio),
        "last_checkpoint": None if seen.checkpoint_step < 0 else seen.checkpoint_step,
        "exported": exported,
        "export_error": export_error,
        "updated": seen.updated_at or since,
    }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def encode(progress: dict[str, Any]) -> bytes:
    """The document as the JSON that the server sends."""
    return json.dumps(progress, allow_nan=False, ensure_ascii=False).encode("utf-8", "replace")


def termination(
    progress: dict[str, Any], *, code: int, reason: str, message: str, exception: str, limit: int = TERMINATION_LIMIT
) -> bytes:
    """The termination message: the last progress and how the pod ended, always JSON of at most `limit` bytes.

    What does not fit is cut from the message, then from export_error, then from the exception's name; a path that does
    not fit is left out, since half a path is wrong.
    """
    result = dict(progress, exit_code=code, reason=reason, message=message, exception=exception)
    for name in _CUT_FIRST:
        _cut(result, name, limit)
    if len(encode(result)) > limit:
        result["exported"] = None
    return encode(result)


def _cut(result: dict[str, Any], name: str, limit: int) -> None:
    text = result[name]
    if not text or len(encode(result)) <= limit:
        return
    low, high = 0, len(text)
    while low < high:  # the longest beginning of the text that fits
        middle = (low + high + 1) // 2
        result[name] = text[:middle] + _MARK
        low, high = (middle, high) if len(encode(result)) <= limit else (low, middle - 1)
    result[name] = text[:low] + _MARK if low else ""
