"""How an attempt ended, and whose fault that was. PURE.

The pods are the verdict, never the job's conditions: training-operator makes a missing pod anew even with
restartPolicy Never, and a TrainJob's say nothing of single pods. The strongest finding over all pods wins, in the
order of `Row`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from app.resilience.exit_codes import OOM_KILLED, PORT_IN_USE, REASONS, ExitCode, permanent
from app.resilience.exit_codes import reason as reason_of
from controller.api import HistoryEntry, LastVerdict
from controller.observed import (
    Document,
    deleting,
    disrupted,
    ended,
    exit_code,
    finished_at,
    last_words,
    name_of,
    node_of,
    state,
    status_of,
    uid_of,
)
from controller.progress import one_line
from controller.targets import CONTAINERS

SUCCEEDED = "Succeeded"
START_ERROR = "StartError"
DISK_LIMIT = "DiskLimitExceeded"
REPEATED = "RepeatedError"
NOT_STARTED = "NotStarted"
POD_GONE = "PodGone"
JOB_DELETED = "JobDeleted"


class Outcome(Enum):
    """What follows from a verdict."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    RETRY = "Retry"


class Row(IntEnum):
    """The rows of the fault table that pods decide, the strongest first."""

    SUCCEEDED = 0
    PERMANENT = 1
    OUT_OF_MEMORY = 2
    DISRUPTED = 3
    FAULT = 4
    NOT_STARTED = 5
    GONE = 6


_OUTCOMES = {
    Row.SUCCEEDED: Outcome.SUCCEEDED,
    Row.PERMANENT: Outcome.FAILED,
    Row.OUT_OF_MEMORY: Outcome.FAILED,
}
# Inside a row the first one names the verdict: a cause goes before what follows from it.
_ORDER: dict[Row, tuple[str, ...]] = {
    Row.DISRUPTED: ("NodeLost", "NodeShutdown", "Preempted", "Evicted", "Disrupted", REASONS[ExitCode.STOPPED]),
    Row.FAULT: (
        *(REASONS[ExitCode.DEVICE], PORT_IN_USE),
        *(REASONS[code] for code in (ExitCode.VOLUME_IO, ExitCode.UNCLASSIFIED, ExitCode.HUNG)),
    ),
    Row.GONE: (JOB_DELETED, POD_GONE),
}
_LOST_PEER = REASONS[ExitCode.LOST_PEER]
RETRIED = (
    *(reason for row in (Row.DISRUPTED, Row.FAULT, Row.GONE) for reason in _ORDER[row]),
    *(REASONS[ExitCode.KILLED], _LOST_PEER, NOT_STARTED),
)
"""Reasons of a verdict that another attempt follows; `Signal<n>` is one too."""

# Why the API server and its controllers disrupt a pod (reasons of the condition DisruptionTarget).
_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
}
# status.reason of a pod that the kubelet or the node controller has ended.
_POD_REASONS = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",
    "NodeLost": "NodeLost",
    "Terminated": "NodeShutdown",
    "Shutdown": "NodeShutdown",
    "NodeShutdown": "NodeShutdown",
}
# The kubelet's words for a limit of the pod itself (pkg/kubelet/eviction/helpers.go); a node that ran low says
# "The node was low on resource", which is nobody's fault in particular.
_OWN_DISK = re.compile(
    r"exceeded its local ephemeral storage limit"
    r"|Pod ephemeral local storage usage exceeds the total limit"
    r"|Usage of EmptyDir volume .* exceeds the limit"
)
_START_ERRORS = ("StartError", "ContainerCannotRun")
# containerd's 255/Unknown and the kubelet's ContainerStatusUnknown: the node was restarted under the container.
_LOST_CONTAINER = ("ContainerStatusUnknown", "Unknown")


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended.

    Attributes:
        outcome: what follows.
        reason: one CamelCase word.
        counted: whether it counts against maxRestarts by itself.
        exit_code, pod, node: of the pod that decided, where one did.
        message: one line that a user can act on.
        exception: type of the error that the training named.
        step: the step at which it ended, where the training said it.
    """

    outcome: Outcome
    reason: str
    counted: bool = False
    exit_code: int | None = None
    pod: str = ""
    node: str = ""
    message: str = ""
    exception: str = ""
    step: int | None = None

    @property
    def row(self) -> Row:
        """Its row of the fault table."""
        return row_of(self.reason)

    @property
    def strength(self) -> tuple[int, int]:
        """Sorts verdicts, the strongest first."""
        order = _ORDER.get(self.row, ())
        last = len(order) + (self.reason == _LOST_PEER)
        return self.row, order.index(self.reason) if self.reason in order else last


def avoid_node(reason: str, node: str | None) -> str | None:
    """The node to avoid after an end for that reason: the one that lost a device, or where a port is taken."""
    return node if node and reason in (REASONS[ExitCode.DEVICE], PORT_IN_USE) else None


def row_of(reason: str) -> Row:
    """The row of the fault table that a verdict's reason belongs to."""
    if reason == SUCCEEDED:
        return Row.SUCCEEDED
    if reason == OOM_KILLED:
        return Row.OUT_OF_MEMORY
    if reason == NOT_STARTED:
        return Row.NOT_STARTED
    if reason in _ORDER[Row.GONE]:
        return Row.GONE
    if reason in _ORDER[Row.DISRUPTED]:
        return Row.DISRUPTED
    retryable = {REASONS[code] for code in ExitCode if code >= 128} | {PORT_IN_USE, "Exit128"}
    return Row.FAULT if reason in retryable or re.fullmatch(r"Signal[0-9]+", reason) else Row.PERMANENT


def make(reason: str, message: str, **facts: object) -> Verdict:
    """The verdict that a reason means; `facts` are its further attributes."""
    row = row_of(reason)
    return Verdict(_OUTCOMES.get(row, Outcome.RETRY), reason, row is Row.FAULT, message=message, **facts)  # type: ignore[arg-type]


def to_status(verdict: Verdict) -> LastVerdict:
    """The verdict as status keeps it."""
    return LastVerdict(
        reason=verdict.reason,
        exit_code=verdict.exit_code,
        pod=verdict.pod or None,
        node=verdict.node or None,
        message=verdict.message,
        exception=verdict.exception,
    )


def from_status(kept: LastVerdict) -> Verdict:
    """The verdict that status has kept."""
    return make(
        kept.reason,
        kept.message,
        exit_code=kept.exit_code,
        pod=kept.pod or "",
        node=kept.node or "",
        exception=kept.exception,
    )


def judge(
    pods: Sequence[Document],
    *,
    replicas: int,
    uids: Collection[str] = (),
    job_gone: bool = False,
    history: Sequence[HistoryEntry] = (),
) -> Verdict | None:
    """The verdict of an attempt's pods as they are now; None: nothing has ended it.

    It stands only once the others have had time to end: see `stands_at`.

    Args:
        pods: the attempt's pods.
        replicas: how many there must be.
        uids: of its pods, once all were there. Pods with other UIDs are replacements, and are not asked.
        job_gone: its job is deleted, or being deleted.
        history: earlier ends, for the error that repeats.
    """
    own = _own(pods, uids)
    if len(own) >= replicas and all(exit_code(pod) == 0 for pod in own):
        return make(SUCCEEDED, f"all {replicas} pods ended well" if replicas > 1 else "its pod ended well", exit_code=0)
    found = [(finished_at(pod), finding) for pod in own if (finding := _finding(pod, history)) is not None]
    if job_gone:
        found.append((math.inf, make(JOB_DELETED, "its job was deleted")))
    if missing := len(set(uids) - {uid_of(pod) for pod in own}):
        found.append((math.inf, make(POD_GONE, f"{missing} of {replicas} pods are gone")))
    elif len(own) < len(pods):
        found.append((math.inf, make(POD_GONE, "a pod was replaced by another one")))
    return min(found, key=lambda f: (f[1].strength, f[0], f[1].pod))[1] if found else None


def stands_at(
    verdict: Verdict,
    pods: Sequence[Document],
    *,
    uids: Collection[str],
    since: float,
    settle: float,
    peer_wait: float,
) -> float:
    """From when on a verdict first seen at `since` stands, although other pods might still say something stronger.

    At once, where nothing stronger can come. Else after `settle` seconds; but after `peer_wait` where all that ended
    say that they lost a peer and one has not ended: its node may be lost, which is only known later.
    """
    own = _own(pods, uids)
    open_ = [pod for pod in own if not ended(pod)]
    if not open_ or verdict.row in (Row.SUCCEEDED, Row.PERMANENT):
        return since
    silent = any(not deleting(pod) and disrupted(pod) is None for pod in open_)
    complete = len(own) >= len(set(uids))
    lost_peer = all(exit_code(pod) == ExitCode.LOST_PEER for pod in own if ended(pod))
    waits_for_peer = verdict.reason == _LOST_PEER and lost_peer and silent and complete
    return since + (max(settle, peer_wait) if waits_for_peer else settle)


def _own(pods: Sequence[Document], uids: Collection[str]) -> list[Document]:
    return [pod for pod in pods if not uids or uid_of(pod) in uids]


def _finding(pod: Document, history: Sequence[HistoryEntry]) -> Verdict | None:
    """The strongest that one pod says; None: it runs, waits, or has ended well."""
    found = [f for f in (_of_pod(pod), _of_container(pod, history), _of_deletion(pod)) if f is not None]
    return min(found, key=lambda f: f.strength, default=None)


def _of_pod(pod: Document) -> Verdict | None:
    """What the kubelet or a controller has done to the pod."""
    status = status_of(pod)
    reason, message = str(status.get("reason") or ""), one_line(str(status.get("message") or ""))
    if reason == "Evicted" and _OWN_DISK.search(message):
        return _made(DISK_LIMIT, f"pod {name_of(pod)} was evicted: {message}", pod)
    if reason in _POD_REASONS:
        return _made(_POD_REASONS[reason], _colon(f"pod {name_of(pod)}: {reason}", message), pod)
    target = disrupted(pod)
    if target is not None:
        word = _DISRUPTIONS.get(str(target.get("reason")), "Disrupted")
        why = one_line(str(target.get("message") or target.get("reason") or ""))
        return _made(word, _colon(f"pod {name_of(pod)} was disrupted", why), pod)
    if status.get("phase") == "Failed" and state(pod, "terminated") is None:
        return _made(NOT_STARTED, _colon(f"pod {name_of(pod)} never started: {reason or 'Failed'}", message), pod)
    return None


def _of_container(pod: Document, history: Sequence[HistoryEntry]) -> Verdict | None:
    """What its training container ended with."""
    end = state(pod, "terminated")
    code = exit_code(pod)
    if end is None or code is None:
        return None
    words = last_words(pod)
    runtime = str(end.get("reason") or "")
    said = words.message if words is not None else _end_of_log(str(end.get("message") or ""))
    facts = {"exception": words.exception, "step": words.step} if words is not None else {}
    if runtime == OOM_KILLED or (words is not None and words.reason == OOM_KILLED):
        return _made(OOM_KILLED, _colon(f"OOMKilled in pod {name_of(pod)} ({_memory_limit(pod)})", said), pod)
    if runtime in _START_ERRORS:
        return _made(START_ERROR, _colon(f"pod {name_of(pod)} could not start", said), pod)
    if code == 0:
        return None
    if runtime in _LOST_CONTAINER and code in (137, 255):
        if deleting(pod):
            return None  # the kubelet's words for a container that had not started when its pod was deleted
        return _made("NodeLost", f"pod {name_of(pod)}: its node lost the container ({runtime})", pod)
    in_use = code == ExitCode.DEVICE and words is not None and words.reason == PORT_IN_USE
    reason = PORT_IN_USE if in_use else reason_of(code)
    if code == ExitCode.UNCLASSIFIED and words is not None and _repeats(words.step, words.exception, history):
        return _made(
            REPEATED, _colon(f"{words.exception} at step {words.step} again, in pod {name_of(pod)}", said), pod, **facts
        )
    if permanent(code) and said:
        return _made(reason, f"{said} (pod {name_of(pod)}, exit code {code})", pod, **facts)
    return _made(reason, _colon(f"pod {name_of(pod)} ended with exit code {code} ({reason})", said), pod, **facts)


def _end_of_log(text: str) -> str:
    """Where a launcher left no last words the kubelet gives the end of its log: of that, the last line."""
    lines = [line for line in map(one_line, text.splitlines()) if line]
    if not lines:
        return ""
    return lines[-1] if len(lines) == 1 else f"its log ends with: {lines[-1]}"


def _of_deletion(pod: Document) -> Verdict | None:
    return _made(POD_GONE, f"pod {name_of(pod)} was deleted", pod) if deleting(pod) else None


def _made(reason: str, message: str, pod: Document, **facts: object) -> Verdict:
    return make(reason, message, exit_code=exit_code(pod), pod=name_of(pod), node=node_of(pod), **facts)


def _colon(text: str, detail: str) -> str:
    return f"{text}: {detail}" if detail else text


def _memory_limit(pod: Document) -> str:
    for container in pod.get("spec", {}).get("containers") or ():
        if container.get("name") in CONTAINERS:
            limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
            return f"limit {limit}" if limit else "no memory limit: its node ran out"
    return "limit unknown"


def _repeats(step: int, exception: str, history: Sequence[HistoryEntry]) -> bool:
    """Whether an unclassified error has ended an earlier attempt at this very step with this very exception."""
    return bool(exception) and any(
        entry.reason == REASONS[ExitCode.UNCLASSIFIED] and entry.step == step and entry.exception == exception
        for entry in history
    )
