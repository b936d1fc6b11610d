"""One look at an experiment in a cluster: what the caches show, what `reconcile` decides, and the writes.

Nothing irreversible is done on a cache's word: `reconcile` asks for a direct read then. Every write of status has the
experiment's resourceVersion as precondition, so of two controllers one gets a conflict and does nothing else, and a
cached experiment that is an old one does no harm; where no status is to be written it is read anew as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.api import API_VERSION, KIND, Experiment, SpecError, Status
from controller.carry_out import carry_out
from controller.kube import trim
from controller.kube.client import EXPERIMENTS, JOBS_OF, ApiError, Client
from controller.kube.poller import Poller, Target
from controller.kube.reading import Reader
from controller.kube.recorder import Recorder
from controller.kube.store import Store
from controller.kube.trim import Key
from controller.observed import Document, created_at, deleting, held, uid_of
from controller.observed import view as view_of
from controller.policy import Policy, refusal
from controller.progress import Identity
from controller.reconcile import CreateError, Decision, Event, JobRef, Observed, Timing, reconcile, reporter
from controller.refused import as_experiment, refused_status
from controller.render import TRAINING_RUNTIME, render_job, target_of
from controller.status import over
from controller.targets import CONTAINERS

_POD_SECONDS = 3.0  # a job that is older and has no pods may have been refused them
_NO_KUEUE = "spec.queueName is set, and this cluster has no Kueue (kueue.x-k8s.io): install it, or leave the name out"
_NOT_TAKEN = "Kueue did not hold this {} back: is its integration for the kind on? It starts without waiting its turn"
_NOT_FOUND, _CONFLICT, _UNAUTHORIZED, _INTERNAL, _TOO_MANY = 404, 409, 401, 500, 429


class NotLeading(Exception):
    """Another replica may be the leader by now: nothing is written any more."""


@dataclass(frozen=True)
class Stores:
    """The caches.

    Attributes:
        jobs: by the kinds that spec.target names.
    """

    experiments: Store
    jobs: Mapping[str, Store]
    pods: Store


@dataclass(frozen=True)
class Settings:
    """What holds for all experiments.

    Attributes:
        training_image: where a spec names none.
        training_runtime: the ClusterTrainingRuntime of TrainJobs.
        policy: what is allowed.
        timing: the controller's own times.
    """

    training_image: str
    policy: Policy = field(default_factory=Policy)
    timing: Timing = field(default_factory=Timing)
    training_runtime: str = TRAINING_RUNTIME


class Executor:
    """Looks at experiments; each at most once at a time, different ones from different threads.

    Args:
        client: the API.
        stores: the caches.
        poller: reads progress.
        recorder: tells events.
        settings: what holds for all.
        leading: whether this replica is surely the leader still; asked before every write.
        wrote: told of each change of a status (experiment, status before it).
    """

    def __init__(
        self,
        client: Client,
        stores: Stores,
        poller: Poller,
        recorder: Recorder,
        *,
        settings: Settings,
        leading: Callable[[], bool],
        wrote: Callable[[Experiment, Status], None],
    ) -> None:
        self._client = client
        self._reader = Reader(client)
        self._stores = stores
        self._poller = poller
        self._recorder = recorder
        self._settings = settings
        self._leading = leading
        self._wrote = wrote
        self._errors: dict[Key, tuple[int, CreateError]] = {}  # with the attempt that it is about

    def look(self, key: Key) -> float | None:
        """Looks at an experiment and does what is to be done.

        Returns:
            Seconds until it is to be looked at again if nothing changes before; None: only when something changes.

        Raises:
            ApiError: the API did not answer, or the experiment has changed meanwhile (Conflict). Nothing is lost: look
                again.
            NotLeading: see there.
        """
        documents = self._stores.experiments.of(key)
        if not documents or deleting(documents[0]):
            self.forget(key)
            return None
        refused_before = self._errors.get(key)
        experiment = self._read(documents[0])
        if experiment is None:
            return None
        jobs, pods = self._stores.jobs[experiment.spec.target].of(key), self._stores.pods.of(key)
        self._follow(key, experiment, Observed(jobs=jobs, pods=pods))
        observed = self._observed(key, experiment, jobs, pods, cached=True)
        decision = self._decide(experiment, observed)
        if decision.confirm:
            seen = self._reader.jobs(experiment, jobs), self._reader.pods(experiment, pods)
            observed = self._observed(key, experiment, *seen, cached=False, before=observed)
            decision = self._decide(experiment, observed)
            if decision.acts and decision.status == experiment.status:
                document = self._refreshed(key)
                if document is None:
                    return None
                if document["metadata"]["resourceVersion"] != experiment.metadata.resource_version:
                    return 0.0
        now = carry_out(decision, experiment, self)
        if not observed.cached and now.status.attempt > experiment.status.attempt:
            # Nothing but this claim lies between that look and the next, so what was read serves for both.
            decision = self._decide(now, observed)
            carry_out(decision, now, self)
        if self._errors.get(key) not in (None, refused_before):
            return 0.0  # the POST was refused: the next look says so in status
        return None if decision.look_again_at is None else max(0.0, decision.look_again_at - time.time())

    def forget(self, key: Key) -> None:
        """There is no such experiment any more; its jobs go with it, by their owner."""
        self._poller.follow(key, None)
        self._errors.pop(key, None)

    def _refreshed(self, key: Key) -> Document | None:
        """The experiment as it is now, which the cache takes over; None: there is none any more."""
        document = self._reader.experiment(key)
        if document is not None:
            self._stores.experiments.update(document)
        return document

    # --- what is seen --------------------------------------------------------------------------------------------

    def _read(self, document: Document) -> Experiment | None:
        """The experiment; None: it is not valid, which its status now says."""
        try:
            return as_experiment(document)
        except SpecError as error:
            status = refused_status(document, error, time.time())
            if status != document.get("status"):
                self._put_status(document["metadata"], status)
            return None

    def _observed(
        self,
        key: Key,
        experiment: Experiment,
        jobs: tuple[Document, ...],
        pods: tuple[Document, ...],
        *,
        cached: bool,
        before: Observed | None = None,
    ) -> Observed:
        attempt, error = self._errors.get(key, (0, None))
        seen = Observed(
            jobs=jobs,
            pods=pods,
            progress=self._poller.take(key) if before is None else before.progress,
            create_error=error if attempt == experiment.status.attempt else None,
            refused=refusal(experiment.spec, self._settings.policy),
            cached=cached,
        )
        if before is not None:
            return replace(seen, queue_message=before.queue_message, pods_refused=before.pods_refused)
        return self._with_reasons(experiment, seen)

    def _with_reasons(self, experiment: Experiment, observed: Observed) -> Observed:
        """With the words of those who keep its job from having pods."""
        view = view_of(experiment, observed, experiment.status.attempt)
        if view.job is None or over(experiment.status):
            return observed
        if held(experiment, view.job):
            if experiment.spec.queue_name is None:
                return observed
            return replace(
                observed,
                queue_message=self._reader.queue_message(experiment.metadata.namespace, uid_of(view.job)),
            )
        age = time.time() - (created_at(view.job) or time.time())
        if len(view.pods) < experiment.spec.nodes and not experiment.status.pod_uids and age > _POD_SECONDS:
            return replace(observed, pods_refused=self._reader.pods_refused(experiment))
        return observed

    def _follow(self, key: Key, experiment: Experiment, observed: Observed) -> None:
        """Has the reporting pod asked for its progress, as long as there is one."""
        pod = None if over(experiment.status) else reporter(experiment, observed)
        address = str(pod["status"].get("podIP") or "") if pod is not None else ""
        if pod is None or not address:
            self._poller.follow(key, None)
            return
        identity = Identity(key[0], key[1], experiment.status.attempt)
        self._poller.follow(key, Target(address, _metrics_port(pod, experiment), identity))

    def _decide(self, experiment: Experiment, observed: Observed) -> Decision:
        return reconcile(experiment, observed, time.time(), self._settings.timing)

    # --- what is done (`Backend`) --------------------------------------------------------------------------------

    def write(self, experiment: Experiment, status: Status) -> Experiment:
        """See `Backend`. Raises ApiError (Conflict) where the experiment has changed meanwhile."""
        metadata = experiment.metadata
        answer = self._put_status(
            metadata.model_dump(by_alias=True, include={"name", "namespace", "uid", "resource_version"}),
            status.model_dump(by_alias=True, exclude_none=True, mode="json"),
        )
        version = answer["metadata"]["resourceVersion"]
        written = experiment.model_copy(
            update={"status": status, "metadata": metadata.model_copy(update={"resource_version": version})}
        )
        self._wrote(written, experiment.status)
        return written

    def delete(self, experiment: Experiment, job: JobRef) -> None:
        """See `Backend`."""
        self._check_leading()
        try:
            self._client.delete(JOBS_OF[experiment.spec.target], experiment.metadata.namespace, job.name, job.uid)
        except ApiError as error:
            if error.code not in (_NOT_FOUND, _CONFLICT):  # gone, or another one of that name
                raise

    def create(self, experiment: Experiment, attempt: int, avoid_node: str | None) -> None:
        """See `Backend`."""
        self._check_leading()
        settings, metadata = self._settings, experiment.metadata
        job = render_job(
            experiment,
            attempt,
            training_image=settings.training_image,
            training_runtime=settings.training_runtime,
            avoid_node=avoid_node,
        )
        key = (metadata.namespace, metadata.name)
        if experiment.spec.queue_name is not None and not self._reader.kueue_version():
            self._errors[key] = (attempt, CreateError("KueueMissing", _NO_KUEUE, time.time()))
            return
        try:
            made = self._client.create(JOBS_OF[experiment.spec.target], metadata.namespace, job)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return  # the next look sees whose it is
            if error.code in (0, _UNAUTHORIZED, _TOO_MANY) or error.code > _INTERNAL:
                raise
            self._errors[key] = (attempt, _create_error(error, experiment))
            return
        self._errors.pop(key, None)
        if experiment.spec.queue_name is not None and not held(experiment, made):
            self.tell(experiment, Event("Warning", "NotQueued", _NOT_TAKEN.format(target_of(experiment).kind)))

    def tell(self, experiment: Experiment, event: Event) -> None:
        """See `Backend`."""
        self._recorder.tell(experiment, event)

    def _put_status(self, metadata: Document, status: Document) -> dict[str, Any]:
        self._check_leading()
        named = {name: metadata[name] for name in ("name", "namespace", "uid", "resourceVersion")}
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": named, "status": status}
        key = (named["namespace"], named["name"])
        try:
            answer = trim.experiment(self._client.replace(EXPERIMENTS, *key, document, "status"))
        except ApiError as error:
            if error.reason == "Conflict":
                self._refreshed(key)  # the next look is not to wait for the watch
            raise
        self._stores.experiments.update(answer)
        return answer

    def _check_leading(self) -> None:
        if not self._leading():
            raise NotLeading


def _metrics_port(pod: Document, experiment: Experiment) -> int:
    """The pod's own word: the spec may have changed since it was made."""
    for container in pod["spec"]["containers"]:
        if container["name"] in CONTAINERS:
            for port in container.get("ports") or ():
                if port.get("name") == "metrics":
                    return int(port["containerPort"])
    return experiment.spec.pod_template.ports.metrics


def _create_error(error: ApiError, experiment: Experiment) -> CreateError:
    target = target_of(experiment)
    if error.code == _NOT_FOUND and error.kind != "namespaces":
        return CreateError(*target.missing, time.time())
    reason = error.reason if error.reason.isalnum() and error.reason[:1].isalpha() else "CreateFailed"
    return CreateError(reason, f"the {target.kind} was refused: {error.message}", time.time())
