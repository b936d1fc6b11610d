"""One attempt, from its first pod to its end and what follows from that. PURE."""

from __future__ import annotations

from typing import Literal

from controller.api import HistoryEntry, Status
from controller.api.status import Ending
from controller.backoff import delay, jitter
from controller.figures import BEFORE_FIRST_STEP, WATCHED_BY_LAUNCHER, moved
from controller.observed import Document, Look, deleting, ended, running, started_at, uid_of
from controller.render import job_name
from controller.status import SUSPENDED, changed, with_condition
from controller.times import to_text, to_unix
from controller.verdict import Outcome, Verdict, from_status, judge, stands_at, to_status

STALLED = "Stalled"
GANG_INCOMPLETE = "GangIncomplete"
DEADLINE_EXCEEDED = "DeadlineExceeded"
MAX_RESTARTS_EXCEEDED = "MaxRestartsExceeded"
_HISTORY = 10
_UNCOUNTED_IN_A_ROW = 3


def follow(status: Status, look: Look) -> Status:
    """Follows the attempt that is claimed, up to its end."""
    pods = look.view.pods
    if status.job_name is None and (look.view.job is not None or pods):
        status = changed(status, job_name=job_name(look.experiment, status.attempt))
    verdict = None
    if look.queued:
        # Kueue stops and starts the pods of a queued job as it likes: those of the next admission are new ones.
        status = changed(status, pod_uids=[], ending=None)
    else:
        status = _note_pods(status, look)
        verdict = _verdict(status, look)
    end = _asked_to_end(status, look)
    if verdict is not None and (end is None or verdict.outcome is not Outcome.RETRY):
        since = look.now if status.ending is None else to_unix(status.ending.since)
        if end is not None or look.now >= verdict_stands_at(status, look, verdict, since or look.now):
            return _end(status, look, verdict)
        return changed(status, ending=Ending(since=to_text(since or look.now), verdict=to_status(verdict)))
    if end is None and not look.queued:
        end = _incomplete(status, look) or _stalled(status, look)
    return status if end is None else _end(status, look, end)


def _note_pods(status: Status, look: Look) -> Status:
    pods = look.pods(status.pod_uids)
    if status.start_time is None and any(started_at(pod) is not None or running(pod) for pod in pods):
        status = changed(status, start_time=to_text(look.now))
    there = [uid_of(pod) for pod in pods if not deleting(pod)]
    if not status.pod_uids and len(there) >= look.nodes:
        status = changed(status, pod_uids=there)
    return status


def _verdict(status: Status, look: Look) -> Verdict | None:
    """The strongest verdict of the pods, now or since the attempt began to end."""
    job = look.view.job
    verdict = judge(
        look.pods(status.pod_uids),
        replicas=look.nodes,
        uids=status.pod_uids,
        job_gone=status.job_name is not None and (job is None or deleting(job)),
        history=status.history,
    )
    if status.ending is None:
        return verdict
    kept = from_status(status.ending.verdict)
    return kept if verdict is None or kept.strength < verdict.strength else verdict


def verdict_stands_at(status: Status, look: Look, verdict: Verdict, since: float) -> float:
    """From when on a verdict first seen at `since` is final."""
    return stands_at(
        verdict,
        look.pods(status.pod_uids),
        uids=status.pod_uids,
        since=since,
        settle=look.timing.settle,
        peer_wait=look.peer_wait,
    )


def _asked_to_end(status: Status, look: Look) -> Verdict | None:
    if look.experiment.spec.suspend:
        return Verdict(Outcome.RETRY, SUSPENDED, message="spec.suspend is true")
    until = deadline(status, look)
    if until is not None and look.now >= until:
        return Verdict(Outcome.FAILED, DEADLINE_EXCEEDED, message=deadline_message(look))
    return None


def deadline(status: Status, look: Look) -> float | None:
    """When spec.activeDeadlineSeconds has passed; None: there is none, or no pod has run yet."""
    limit, start = look.experiment.spec.active_deadline_seconds, to_unix(status.start_time)
    return None if limit is None or start is None else start + limit


def deadline_message(look: Look) -> str:
    """What is told when it has."""
    seconds = look.experiment.spec.active_deadline_seconds
    return f"{seconds} s have passed since the first pod ran (spec.activeDeadlineSeconds)"


def gang_deadline(status: Status, look: Look) -> float | None:
    """Until when all pods must run; None: none runs, or all do."""
    up = _up(status, look)
    starts = [at for pod in up if (at := started_at(pod)) is not None]
    if not starts or len(up) >= look.nodes:
        return None
    return min(starts) + look.experiment.spec.fault_tolerance.start_timeout_seconds


def _up(status: Status, look: Look) -> list[Document]:
    return [pod for pod in look.pods(status.pod_uids) if running(pod) or ended(pod)]


def _incomplete(status: Status, look: Look) -> Verdict | None:
    until = gang_deadline(status, look)
    if until is None or look.now < until:
        return None
    up = len(_up(status, look))
    seconds = look.experiment.spec.fault_tolerance.start_timeout_seconds
    message = f"only {up} of {look.nodes} pods ran {seconds} s after the first one (faultTolerance.startTimeoutSeconds)"
    return Verdict(Outcome.RETRY, GANG_INCOMPLETE, message=message)


def _stalled(status: Status, look: Look) -> Verdict | None:
    reading, since = look.observed.progress, to_unix(status.last_progress_time)
    document = reading.document if reading is not None and reading.answered else None
    if document is None or since is None or moved(status, document):
        return None
    if document.phase in (*BEFORE_FIRST_STEP, *WATCHED_BY_LAUNCHER):
        return None
    seconds = look.experiment.spec.fault_tolerance.stall_timeout_seconds
    if look.now < since + seconds:
        return None
    message = f"no step and no change of phase in {seconds} s (faultTolerance.stallTimeoutSeconds)"
    return Verdict(
        Outcome.RETRY,
        STALLED,
        counted=True,
        message=f"{message}: step {document.step}, phase {document.phase}",
        step=document.step,
    )


def _end(status: Status, look: Look, verdict: Verdict) -> Status:
    """Writes the attempt's end down, and what follows from it."""
    counted = verdict.counted or (verdict.outcome is Outcome.RETRY and _one_too_many(status, verdict))
    entry = HistoryEntry(
        attempt=status.attempt,
        start=status.attempt_start_time,
        end=to_text(look.now),
        reason=verdict.reason,
        counted=counted,
        step=status.step if verdict.step is None else verdict.step,
        exception=verdict.exception,
    )
    status = changed(status, history=[*status.history, entry][-_HISTORY:], ending=None, eta=None)
    if verdict.outcome is Outcome.SUCCEEDED:
        reached = f"; top-1 {status.top1_percent} %" if status.top1_percent else ""
        status = changed(status, last_verdict=to_status(verdict))
        return finish(status, look, ("Succeeded", verdict.reason, f"{verdict.message}{reached}"))
    status = changed(status, images_per_second=None)
    if verdict.reason == SUSPENDED:
        # Asked for, so neither a fault nor an attempt in vain.
        return changed(status, attempts_without_progress=max(0, status.attempts_without_progress - 1))
    faults = status.faults + counted
    status = changed(status, last_verdict=to_status(verdict), faults=faults)
    if verdict.outcome is Outcome.FAILED:
        return finish(status, look, ("Failed", verdict.reason, verdict.message))
    allowed = look.experiment.spec.fault_tolerance.max_restarts
    if counted and faults > allowed:
        message = f"{faults} faults without progress, maxRestarts is {allowed}; the last one: {verdict.message}"
        return finish(status, look, ("Failed", MAX_RESTARTS_EXCEEDED, message))
    wait = delay(status.attempts_without_progress, look.timing)
    if verdict.reason == GANG_INCOMPLETE:
        wait += jitter(look.experiment.metadata.uid or "", status.attempt) * max(wait, look.timing.backoff_base)
    return changed(status, restarts=status.restarts + counted, retry_at=to_text(look.now + wait) if wait else None)


def _one_too_many(status: Status, verdict: Verdict) -> bool:
    """Whether an end that does not count by itself is the third such in a row without progress."""
    if verdict.reason == SUSPENDED or status.attempts_without_progress < _UNCOUNTED_IN_A_ROW:
        return False
    before = [entry.counted for entry in status.history if entry.reason != SUSPENDED]
    return before[1 - _UNCOUNTED_IN_A_ROW :] == [False] * (_UNCOUNTED_IN_A_ROW - 1)


def finish(status: Status, look: Look, end: tuple[Literal["Succeeded", "Failed"], str, str]) -> Status:
    """Ends the experiment for good: with a phase, a reason and a message."""
    phase, reason, message = end
    status = changed(status, phase=phase, completion_time=to_text(look.now), retry_at=None, eta=None, message=message)
    return with_condition(status, look, phase, ("True", reason, message))
