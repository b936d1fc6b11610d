"""Where an experiment is, in words: phase, conditions, columns and one line for people. PURE."""

from __future__ import annotations

from dataclasses import dataclass

from controller.api import Phase, Status
from controller.observed import (
    Document,
    Look,
    condition,
    created_at,
    ended,
    name_of,
    running,
    scheduled,
    state,
    status_of,
)
from controller.progress import one_line
from controller.render import target_of
from controller.status import FINISHED, MESSAGE, SUSPENDED, Says, changed, find, over, with_condition
from controller.times import to_unix

# A waiting container that only needs time.
_PLAIN_WAITS = ("", "ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class _Situation:
    """Where the experiment is, in the words of phase, message and two conditions."""

    phase: Phase
    message: str
    scheduled: Says | None = None  # None: as it was
    running: Says = ("False", "NotRunning", "")


def present(status: Status, look: Look) -> Status:
    """The status with everything that follows from the rest of it and from what was seen."""
    experiment, spec = look.experiment, look.experiment.spec
    situation = _situation(status, look)
    status = changed(
        status,
        phase=situation.phase,
        message=one_line(situation.message, MESSAGE),
        observed_generation=experiment.metadata.generation,
        devices=f"{spec.nodes}x{spec.devices_per_node} {spec.accelerator.type}",
    )
    status = with_condition(status, look, "Accepted", _accepted(look))
    if situation.scheduled is not None:
        status = with_condition(status, look, "PodsScheduled", situation.scheduled)
    status = with_condition(status, look, "Running", situation.running)
    status = _reachable(status, look)
    if status.phase == "Suspended":
        return with_condition(status, look, "Suspended", ("True", SUSPENDED, "spec.suspend is true"))
    if find(status, "Suspended") is not None and not spec.suspend:
        return with_condition(status, look, "Suspended", ("False", "Resumed", ""))
    return status


def _accepted(look: Look) -> Says:
    if look.observed.refused:
        return "False", "NotAllowed", look.observed.refused
    volume = look.experiment.spec.checkpoint.volume
    if volume is None or volume.empty_dir is not None:
        return "True", "CheckpointsNotKept", "spec.checkpoint.volume is no claim: a restart begins at step 0"
    return "True", "Valid", "the spec is valid"


def _reachable(status: Status, look: Look) -> Status:
    reading, run = look.observed.progress, find(status, "Running")
    if status.phase != "Running" or run is None:
        if find(status, "ProgressReachable") is None:
            return status
        return with_condition(status, look, "ProgressReachable", ("Unknown", "NotRunning", ""))
    if reading is None:
        return status
    if reading.answered:
        return with_condition(status, look, "ProgressReachable", ("True", "Answers", ""))
    since = to_unix(run.last_transition_time)
    if reading.silent < look.timing.reachable_after or (
        since is not None and look.now - since < look.timing.reachable_after
    ):
        return status  # the launcher may not serve yet, has just ended, or is busy
    return with_condition(status, look, "ProgressReachable", ("False", "Unreachable", reading.why))


def _situation(status: Status, look: Look) -> _Situation:
    if status.phase in FINISHED:
        return _Situation(status.phase, status.message or "", None, ("False", "Finished", ""))
    return _between(status, look) if over(status) else _in_attempt(status, look)


def _between(status: Status, look: Look) -> _Situation:
    left = look.left()
    unfinished: Says
    if look.experiment.spec.suspend:
        if left:
            message = f"suspending: waits for {names(left)} to write a checkpoint and end"
            return _Situation(status.phase, message, None, ("False", "Suspending", ""))
        unfinished = ("False", SUSPENDED, "")
        return _Situation("Suspended", "suspended by spec.suspend", unfinished, unfinished)
    phase = _waiting_phase(status)
    last = status.last_verdict if _retried(status) else None
    ended_by = "" if last is None else f"attempt {status.attempt} ended: {last.message}; "
    if look.observed.refused:
        message = f"{ended_by}not allowed here: {look.observed.refused}"
    elif left:
        message = f"{ended_by}waits for {names(left)} of earlier attempts to go"
    elif status.retry_at is not None:
        message = f"{ended_by}the next attempt begins at {status.retry_at}"
    else:
        message = f"{ended_by}the next attempt is about to begin"
    unfinished = ("False", phase, message)
    return _Situation(phase, message, unfinished, unfinished)


def _retried(status: Status) -> bool:
    return bool(status.history) and status.history[-1].reason != SUSPENDED and status.last_verdict is not None


def _waiting_phase(status: Status) -> Phase:
    """Before its pods have nodes, an attempt is Pending; if it follows a fault, Restarting."""
    return "Restarting" if _retried(status) else "Pending"


def _in_attempt(status: Status, look: Look) -> _Situation:
    if status.ending is not None:
        message = f"attempt {status.attempt} is ending: {status.ending.verdict.message}"
        return _Situation(status.phase, message, None, ("False", "AttemptEnding", message))
    waits = _waits_for_pods(status, look)
    if waits is not None:
        phase: Phase = "Queued" if look.queued else _waiting_phase(status)
        return _Situation(phase, waits[1], ("False", *waits), ("False", "PodsNotScheduled", ""))
    are_scheduled: Says = ("True", "Scheduled", "")
    pods = look.pods(status.pod_uids)
    started = [pod for pod in pods if running(pod) or ended(pod)]
    if len(started) >= look.nodes:
        return _Situation("Running", _running_message(status, look), are_scheduled, ("True", "AllPodsRun", ""))
    stuck = _stuck(pods)
    if stuck is not None:
        return _Situation("Starting", stuck[1], are_scheduled, ("False", *stuck))
    message = f"attempt {status.attempt}: {len(started)} of {look.nodes} pods run"
    return _Situation("Starting", message, are_scheduled, ("False", "PodsStarting", message))


def _running_message(status: Status, look: Look) -> str:
    reading = look.observed.progress
    if reading is None and status.phase == "Running" and status.message:
        return status.message
    text = f"attempt {status.attempt}: {status.training_phase or 'started'}"
    document = reading.document if reading is not None else None
    if document is not None and document.loss_reason:
        text += f"; no loss: {document.loss_reason}"
    if document is not None and document.straggler_rank is not None:
        text += f"; rank {document.straggler_rank} is slow, and the others wait for it"
    return text


def _waits_for_pods(status: Status, look: Look) -> tuple[str, str] | None:
    """Why not all pods have a node yet: a reason and a line; None: all have."""
    seen, pods, target = look.view, look.pods(status.pod_uids), target_of(look.experiment)
    if not pods and seen.job is None:
        if look.observed.refused:
            return "NotAllowed", look.observed.refused
        if look.observed.create_error is not None:
            return look.observed.create_error.reason, look.observed.create_error.message
        if seen.foreign is not None:
            name = name_of(seen.foreign)
            said = f"a {target.kind} named {name} is not this experiment's: delete it, or rename this one"
            return "JobNameTaken", said
        return "CreatingJob", f"attempt {status.attempt}: its {target.kind} is being created"
    if look.queued:
        return "Queued", look.observed.queue_message or f"waits in the queue {look.experiment.spec.queue_name}"
    unscheduled = [pod for pod in pods if not scheduled(pod)]
    for pod in unscheduled:
        why = condition(pod, "PodScheduled")
        if why is not None and why.get("reason"):
            return str(why["reason"]), f"pod {name_of(pod)}: {why.get('message') or why['reason']}"
    if look.observed.pods_refused and len(pods) < look.nodes:
        return "PodsRefused", look.observed.pods_refused
    until = pick_up_until(look)
    if not pods and not picked_up(look) and until is not None and look.now >= until:
        return "JobNotPickedUp", f"{target.operator} has not picked the {target.kind} up: is it running?"
    if unscheduled or len(pods) < look.nodes:
        made = len(pods) - len(unscheduled)
        return "WaitingForPods", f"attempt {status.attempt}: {made} of {look.nodes} pods have a node"
    return None


def picked_up(look: Look) -> bool:
    """Whether its operator has written into the job's status."""
    return look.view.job is not None and target_of(look.experiment).picked_up(look.view.job)


def pick_up_until(look: Look) -> float | None:
    """Until when its operator has time to pick the job up; None: the job's age is not known."""
    since = created_at(look.view.job) if look.view.job is not None else None
    return None if since is None else since + look.timing.pick_up


def _stuck(pods: tuple[Document, ...]) -> tuple[str, str] | None:
    """Why a scheduled pod can't start, where it needs more than time: its image, a missing secret."""
    for pod in pods:
        waiting = state(pod, "waiting")
        if waiting is not None and status_of(pod).get("phase") == "Pending":
            reason = str(waiting.get("reason") or "")
            if reason not in _PLAIN_WAITS:
                return reason, f"pod {name_of(pod)}: {waiting.get('message') or reason}"
    return None


def names(pods: list[Document]) -> str:
    """The pods' names, the first three of them."""
    shown = ", ".join(name_of(pod) for pod in pods[:3])
    return f"{shown} and {len(pods) - 3} more" if len(pods) > 3 else shown
