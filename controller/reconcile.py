"""What is to be done next for an experiment. PURE: the same look always gives the same decision.

Everything that must outlive a look is in the experiment's status, so the controller may be killed between any two
writes. An attempt is claimed in status first and created in a later look; its end is written first and its job
deleted then. The newest attempt is over when the last entry of `status.history` is its own.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.api import Experiment, Status
from controller.attempt import (
    DEADLINE_EXCEEDED,
    GANG_INCOMPLETE,
    STALLED,
    deadline,
    deadline_message,
    finish,
    follow,
    gang_deadline,
    verdict_stands_at,
)
from controller.backoff import Timing
from controller.events import Event, transitions
from controller.figures import absorb
from controller.observed import (
    CreateError,
    Document,
    Look,
    Observed,
    deleting,
    ended,
    name_of,
    reporter,
    uid_of,
    view,
)
from controller.progress import Reading
from controller.situation import pick_up_until, picked_up, present
from controller.status import FINISHED, changed, find, over
from controller.times import to_text, to_unix
from controller.verdict import avoid_node, from_status

__all__ = ["CreateError", "Decision", "Event", "JobRef", "Observed", "Reading", "Timing", "reconcile", "reporter"]

# Ends that the controller decided while pods were running: nothing else would stop those.
_STOPPED_BY_US = {STALLED, GANG_INCOMPLETE, DEADLINE_EXCEEDED}


@dataclass(frozen=True)
class JobRef:
    """One job; the UID is a precondition of its deletion."""

    name: str
    uid: str


@dataclass(frozen=True)
class Decision:
    """What is to be done, in this order: write the status, delete, create, tell the events.

    Attributes:
        status: to be written, always with the experiment's resourceVersion as precondition, where it differs from the
            one that was looked at. After a conflict nothing else is done: look again.
        create: number of the attempt whose job is to be POSTed.
        avoid_node: node that this job should rather not use.
        delete: jobs to be deleted, their pods by garbage collection.
        events: to be told once the status is written.
        look_again_at: when to look again if nothing changes before; unix seconds.
        confirm: the look came from a cache and something irreversible would follow: do nothing of the above, look
            again with lists read directly (experiment first, then jobs, then pods).
    """

    status: Status
    create: int | None = None
    avoid_node: str | None = None
    delete: tuple[JobRef, ...] = ()
    events: tuple[Event, ...] = ()
    look_again_at: float | None = None
    confirm: bool = False

    @property
    def acts(self) -> bool:
        """Whether jobs are created or deleted."""
        return self.create is not None or bool(self.delete)


# Kueue has an opinion about a job a moment after it was made.
_REASON_SECONDS = 2.0
_DEFAULT_TIMING = Timing()


def reconcile(experiment: Experiment, observed: Observed, now: float, timing: Timing = _DEFAULT_TIMING) -> Decision:
    """Decides what is next.

    Args:
        experiment: as read from the API, its status included; not one that is being deleted.
        observed: its jobs and pods, and what they say.
        now: unix seconds.
        timing: the controller's own times.
    """
    old = experiment.status
    look = Look(experiment, observed, view(experiment, observed, old.attempt), now, timing)
    decision = _finished(old, look) if old.phase in FINISHED else _unfinished(old, look)
    if observed.cached and _irreversible(old, decision):
        return Decision(old, look_again_at=now, confirm=True)
    return decision


def _irreversible(old: Status, decision: Decision) -> bool:
    new = decision.status
    return decision.acts or (new.attempt, new.history, new.ending, new.phase in FINISHED) != (
        old.attempt,
        old.history,
        old.ending,
        old.phase in FINISHED,
    )


def _unfinished(old: Status, look: Look) -> Decision:
    status = absorb(old, look)
    if not over(status):
        status = follow(status, look)
    if over(status) and status.phase not in FINISHED:
        status = _next(status, look)
        look = look.at(status.attempt)
    status = present(status, look)
    events = transitions(old, status)
    if status.phase in FINISHED:
        delete, again = _clean_up(status, look)
        return Decision(status, delete=delete, events=events, look_again_at=again)
    claimed = old.attempt == status.attempt
    create = claimed and _may_create(status, look)
    last = status.last_verdict
    return Decision(
        status,
        create=status.attempt if create else None,
        avoid_node=avoid_node(last.reason, last.node) if create and last is not None else None,
        delete=tuple(_reference(job) for job in _unwanted_jobs(status, look)),
        events=events,
        look_again_at=_look_again(status, look) if claimed else look.now,
    )


# --- between attempts ----------------------------------------------------------------------------------------------


def _next(status: Status, look: Look) -> Status:
    """Claims the next attempt, once nothing of the earlier ones is left and it is time."""
    if look.experiment.spec.suspend:
        return changed(status, start_time=None, retry_at=None)
    until = deadline(status, look)
    if until is not None and look.now >= until:
        return finish(status, look, ("Failed", DEADLINE_EXCEEDED, deadline_message(look)))
    retry_at = to_unix(status.retry_at)
    if look.observed.refused:
        return changed(status, retry_at=None)
    if look.left() or _unwanted_jobs(status, look) or (retry_at is not None and look.now < retry_at):
        return status
    return changed(
        status,
        attempt=max(status.attempt, look.view.highest) + 1,
        attempts_without_progress=status.attempts_without_progress + 1,
        attempt_start_time=to_text(look.now),
        job_name=None,
        pod_uids=[],
        retry_at=None,
        training_phase=None,
    )


def _may_create(status: Status, look: Look) -> bool:
    if over(status) or status.job_name is not None or look.view.foreign is not None or look.observed.refused:
        return False
    if _unwanted_jobs(status, look) or look.left():
        return False
    error = look.observed.create_error
    return error is None or look.now >= error.at + look.timing.create_retry


def _unwanted_jobs(status: Status, look: Look) -> list[Document]:
    """Our jobs that should go and are not being deleted yet: all but that of an attempt that is under way."""
    own = () if look.view.job is None or not over(status) else (look.view.job,)
    return [job for job in (*own, *look.view.other_jobs) if not deleting(job)]


def _reference(job: Document) -> JobRef:
    return JobRef(name_of(job), uid_of(job))


# --- when it is over -----------------------------------------------------------------------------------------------


def _finished(old: Status, look: Look) -> Decision:
    """Final is final: only what is left is cleaned up."""
    status = changed(old, observed_generation=look.experiment.metadata.generation)
    delete, again = _clean_up(status, look)
    return Decision(status, delete=delete, look_again_at=again)


def _clean_up(status: Status, look: Look) -> tuple[tuple[JobRef, ...], float | None]:
    """The jobs to delete now, and when to look again. The last attempt's job stays for its logs, up to its TTL."""
    unwanted = [job for job in look.view.other_jobs if not deleting(job)]
    job, again = look.view.job, None
    if job is not None and not deleting(job):
        at = _last_job_until(status, look)
        if at is not None and look.now >= at:
            unwanted.append(job)
        else:
            again = at
    return tuple(_reference(job) for job in unwanted), again


def _last_job_until(status: Status, look: Look) -> float | None:
    end = to_unix(status.completion_time)
    since = look.now if end is None else end
    until = []
    failed, last = find(status, "Failed"), status.last_verdict
    if failed is not None and {failed.reason, last.reason if last is not None else ""} & _STOPPED_BY_US:
        until.append(since)
    ttl = look.experiment.spec.ttl_seconds_after_finished
    if ttl is not None:
        until.append(since + ttl)
    if not all(ended(pod) for pod in look.view.pods):
        until.append(since + look.peer_wait)  # pods that outlive the verdict hold their devices no longer than this
    return min(until, default=None)


# --- when to look again --------------------------------------------------------------------------------------------


def _look_again(status: Status, look: Look) -> float | None:
    """When something will be due although nothing changes."""
    now, timing = look.now, look.timing
    due: list[float | None] = [deadline(status, look)]
    if over(status):
        if status.phase == "Suspended":
            return None
        due += [to_unix(status.retry_at), now + timing.resync]
    elif status.ending is not None:
        verdict = from_status(status.ending.verdict)
        due.append(verdict_stands_at(status, look, verdict, to_unix(status.ending.since) or now))
    else:
        error = look.observed.create_error
        due += [
            now + timing.resync,  # a new reading of its progress is a reason by itself
            error.at + timing.create_retry if error is not None else None,
            None if picked_up(look) else pick_up_until(look),
            now + _REASON_SECONDS if look.queued and not look.observed.queue_message else None,
            gang_deadline(status, look),
        ]
    return min((at for at in due if at is not None and at > now), default=now + timing.resync)
