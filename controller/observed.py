"""What was seen of an experiment's jobs and pods, and the questions that are asked of it. PURE.

Jobs and pods are the API's own documents (plain dicts); only the functions here know their layout.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from controller.api import LABEL_ATTEMPT, LABEL_EXPERIMENT, Experiment
from controller.backoff import Timing
from controller.progress import Identity, Progress, Reading, from_termination
from controller.render import job_name, target_of
from controller.targets import CONTAINERS, INDEX_LABELS
from controller.times import to_unix

Document = Mapping[str, Any]


@dataclass(frozen=True)
class CreateError:
    """What the API said to the last POST of this attempt's job.

    Attributes:
        reason: one CamelCase word ("TrainingOperatorMissing", "Forbidden", "Invalid" …).
        message: one line for people.
        at: when, in unix seconds.
    """

    reason: str
    message: str
    at: float


@dataclass(frozen=True)
class Observed:
    """What was seen at one moment: the experiment was read first, then the jobs, then the pods.

    Attributes:
        jobs: jobs of its target's kind with the experiment's label, and the one named as the claimed attempt's, whoever
            owns it.
        pods: pods with the experiment's label.
        progress: /progress of the attempt's `reporter`; None: it was not asked.
        create_error: set while the job of the claimed attempt could not be created.
        queue_message: why Kueue holds the job, from its Workload.
        pods_refused: why the API server takes no pod of the job.
        refused: what of the spec this controller's policy does not allow; no attempt is begun then. One that is under
            way goes on: it was allowed when it began.
        cached: the lists come from a watch's cache and may lag behind. Nothing is ended, claimed, created or deleted
            on their word: `Decision.confirm` then asks for a direct read.
    """

    jobs: tuple[Document, ...] = ()
    pods: tuple[Document, ...] = ()
    progress: Reading | None = None
    create_error: CreateError | None = None
    queue_message: str = ""
    pods_refused: str = ""
    refused: str = ""
    cached: bool = False


@dataclass(frozen=True)
class View:
    """The lists, sorted by whose they are.

    Attributes:
        job: our job of the newest attempt.
        foreign: someone else's job that has that name.
        other_jobs: our jobs of other attempts.
        pods: pods of the newest attempt, in the order of their index.
        older_pods: pods of every other attempt, also of an earlier experiment of the same name.
        highest: the highest attempt number on any label, 0: none.
    """

    job: Document | None
    foreign: Document | None
    other_jobs: tuple[Document, ...]
    pods: tuple[Document, ...]
    older_pods: tuple[Document, ...]
    highest: int


def view(experiment: Experiment, observed: Observed, attempt: int) -> View:
    """Sorts what was seen; `attempt` is the newest one."""
    name = experiment.metadata.name
    job = foreign = None
    others = []
    for candidate in observed.jobs:
        number = attempt_of(candidate, name)
        if not _owned(candidate, experiment.metadata.uid or ""):
            if attempt and name_of(candidate) == job_name(experiment, attempt):
                foreign = candidate
        elif number == attempt:
            job = candidate
        elif number is not None:
            others.append(candidate)
    numbered = [(attempt_of(pod, name), pod) for pod in observed.pods]
    pods = sorted((pod for number, pod in numbered if number == attempt), key=lambda p: (index_of(p), uid_of(p)))
    older = tuple(pod for number, pod in numbered if number not in (None, attempt))
    labels = [attempt_of(document, name) or 0 for document in (*observed.jobs, *observed.pods)]
    return View(job, foreign, tuple(others), tuple(pods), older, max(labels, default=0))


@dataclass(frozen=True)
class Look:
    """One look at an experiment: all that a decision may depend on, besides its status."""

    experiment: Experiment
    observed: Observed
    view: View
    now: float
    timing: Timing

    def at(self, attempt: int) -> Look:
        """The same look, with that attempt as the newest one."""
        return replace(self, view=view(self.experiment, self.observed, attempt))

    @property
    def nodes(self) -> int:
        """Pods of one attempt."""
        return self.experiment.spec.nodes

    @property
    def peer_wait(self) -> float:
        """How long a pod that has not ended is waited for, where it may be on a lost node."""
        return self.experiment.spec.fault_tolerance.node_grace_period_seconds + self.timing.peer_extra

    @property
    def queued(self) -> bool:
        """Whether Kueue holds the job."""
        return self.experiment.spec.queue_name is not None and held(self.experiment, self.view.job)

    def pods(self, uids: Sequence[str]) -> tuple[Document, ...]:
        """The newest attempt's pods; `uids` are those on record.

        Before there are any, pods that are being deleted may be left over from an earlier admission by Kueue; they
        don't matter unless they are on a dead node, where they hold the names of the pods that should follow them.
        """
        if uids or self.experiment.spec.queue_name is None:
            return self.view.pods
        return tuple(pod for pod in self.view.pods if not deleting(pod) or self._given_up(pod))

    def left(self) -> list[Document]:
        """Pods that must be gone before another attempt may begin, if the newest one is over."""
        pods = (*self.view.pods, *self.view.older_pods)
        return [pod for pod in pods if not self._given_up(pod)]

    def _given_up(self, pod: Document) -> bool:
        return given_up(pod, self.now, self.timing.dead_node)


def reporter(experiment: Experiment, observed: Observed) -> Document | None:
    """The running pod of node 0 of the newest attempt, which knows the whole gang's progress."""
    pods = view(experiment, observed, experiment.status.attempt).pods
    return next((pod for pod in pods if index_of(pod) == 0 and running(pod) and not deleting(pod)), None)


def _owned(document: Document, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in document["metadata"].get("ownerReferences") or ())


def held(experiment: Experiment, job: Document | None) -> bool:
    """Whether its job is suspended."""
    return job is not None and target_of(experiment).suspended(job)


def name_of(document: Document) -> str:
    """metadata.name."""
    return str(document["metadata"].get("name", ""))


def uid_of(document: Document) -> str:
    """metadata.uid."""
    return str(document["metadata"].get("uid", ""))


def deleting(document: Document) -> bool:
    """Whether it is being deleted."""
    return bool(document["metadata"].get("deletionTimestamp"))


def created_at(document: Document) -> float | None:
    """When it was created, in unix seconds."""
    return to_unix(document["metadata"].get("creationTimestamp"))


def attempt_of(document: Document, experiment: str) -> int | None:
    """The attempt that its labels name; None where they name none of this experiment."""
    labels = document["metadata"].get("labels") or {}
    number = str(labels.get(LABEL_ATTEMPT, ""))
    if labels.get(LABEL_EXPERIMENT) != experiment or not re.fullmatch(r"[1-9][0-9]{0,9}", number):
        return None
    return int(number)


def index_of(pod: Document) -> int:
    """The pod's node rank; a high number where its label names none."""
    labels = pod["metadata"].get("labels") or {}
    index = next((str(labels[name]) for name in INDEX_LABELS if name in labels), "")
    return int(index) if re.fullmatch(r"[0-9]{1,6}", index) else 10**6


def node_of(pod: Document) -> str:
    """The node it is bound to; empty: none."""
    return str(pod.get("spec", {}).get("nodeName") or "")


def status_of(pod: Document) -> Document:
    """The pod's status, empty where it has none yet."""
    return pod.get("status") or {}


def state(pod: Document, kind: str) -> Document | None:
    """The training container's state of that kind: waiting, running or terminated."""
    for container in status_of(pod).get("containerStatuses") or ():
        if container.get("name") in CONTAINERS:
            found: Document | None = (container.get("state") or {}).get(kind)
            return found
    return None


def condition(pod: Document, kind: str) -> Document | None:
    """The pod's condition of that type."""
    return next((c for c in status_of(pod).get("conditions") or () if c.get("type") == kind), None)


def running(pod: Document) -> bool:
    """Whether its training container runs."""
    return state(pod, "running") is not None and not ended(pod)


def ended(pod: Document) -> bool:
    """Whether its training container has ended, or never will start."""
    return state(pod, "terminated") is not None or status_of(pod).get("phase") in ("Succeeded", "Failed")


def exit_code(pod: Document) -> int | None:
    """What its training container ended with."""
    end = state(pod, "terminated")
    return None if end is None else int(end.get("exitCode", 0))


def started_at(pod: Document) -> float | None:
    """When its training container began to run, by the kubelet's clock."""
    for kind in ("running", "terminated"):
        found = state(pod, kind)
        if found is not None:
            return to_unix(found.get("startedAt"))
    return None


def finished_at(pod: Document) -> float:
    """When its training container ended; infinity where that is not known."""
    at = to_unix((state(pod, "terminated") or {}).get("finishedAt"))
    return float("inf") if at is None else at


def last_words(pod: Document, of: Identity | None = None) -> Progress | None:
    """The progress document that its launcher left as termination message."""
    return from_termination(str((state(pod, "terminated") or {}).get("message") or ""), of)


def scheduled(pod: Document) -> bool:
    """Whether it has been bound to a node."""
    return (condition(pod, "PodScheduled") or {}).get("status") == "True"


def disrupted(pod: Document) -> Document | None:
    """Its DisruptionTarget condition, where it is true."""
    found = condition(pod, "DisruptionTarget")
    return found if found is not None and found.get("status") == "True" else None


def given_up(pod: Document, now: float, slack: float) -> bool:
    """Whether it is terminating on a dead node, where nobody is left to confirm its end.

    A dead node shows in its pods: it was disrupted by the taint manager or the garbage collector, or the node
    controller has set Ready to false while ContainersReady, which only the kubelet writes, is still true. A pod whose
    kubelet is well but slow (a hung unmount) shows none of them, and is waited for.
    """
    until = to_unix(pod["metadata"].get("deletionTimestamp"))
    if until is None or now < until + slack:
        return False
    if (disrupted(pod) or {}).get("reason") in ("DeletionByTaintManager", "DeletionByPodGC"):
        return True
    ready, containers = condition(pod, "Ready"), condition(pod, "ContainersReady")
    unconfirmed = (ready or {}).get("status") == "False" and (containers or {}).get("status") == "True"
    return unconfirmed or status_of(pod).get("reason") == "NodeLost"
