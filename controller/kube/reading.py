"""Reads what a look needs of the API directly, where the caches' word is not enough, or where there is no cache.

By name: a list by label makes the API server read every pod of the namespace, for each experiment again. The names are
those that the newest attempt's job and pods have, whether a cache knows them yet or not, and all that the caches know:
they began as complete lists, and nothing of an older attempt is made any more. Only pods of a TrainJob, whose names
nobody knows beforehand, are read as a list.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any

from controller.api import LABEL_EXPERIMENT, Experiment
from controller.kube import trim
from controller.kube.client import EVENTS, EXPERIMENTS, JOBS_OF, PODS, ApiError, Client, Resource
from controller.kube.trim import Key
from controller.observed import Document, name_of
from controller.progress import one_line
from controller.render import job_name, pod_names, target_of

_NOT_FOUND = 404
_KUEUE = "kueue.x-k8s.io"
_KUEUE_JOB_UID = f"{_KUEUE}/job-uid"
_VERSION_SECONDS = 600.0
# The Job controller's FailedCreate, training-operator's FailedCreatePod, the Trainer's TrainJobResourcesCreationFailed.
_NOT_MADE = re.compile("^FailedCreate|CreationFailed$")
_BY_NAME = 64  # more pods than these are read as a list after all


class Reader:
    """Direct reads of one API server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._kueue: tuple[float, str] = (float("-inf"), "")  # when it was asked, and Kueue's version

    def experiment(self, key: Key) -> dict[str, Any] | None:
        """The experiment as it is now; None: there is none.

        Raises:
            ApiError: as `Client.call`, here and below.
        """
        try:
            return trim.experiment(self._client.get(EXPERIMENTS, *key))
        except ApiError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    def jobs(self, experiment: Experiment, cached: Iterable[Document]) -> tuple[Document, ...]:
        """The job that has the newest attempt's name, whoever's it is, and what is left of those cached."""
        attempt = experiment.status.attempt
        own = [job_name(experiment, attempt)] if attempt else []
        return self._named(JOBS_OF[experiment.spec.target], experiment, own, cached)

    def pods(self, experiment: Experiment, cached: Iterable[Document]) -> tuple[Document, ...]:
        """The pods that the newest attempt may have, and what is left of those cached."""
        attempt = experiment.status.attempt
        names = pod_names(experiment, attempt) if attempt else []
        if names is not None and len(names) <= _BY_NAME:
            return self._named(PODS, experiment, names, cached)
        metadata = experiment.metadata
        selector = f"{LABEL_EXPERIMENT}={metadata.name}"
        return tuple(trim.pod(each) for each in self._client.items(PODS, metadata.namespace, selector))

    def queue_message(self, namespace: str, job_uid: str) -> str:
        """Why Kueue holds a job, from its Workload; empty: that is not to be had."""
        try:
            version = self.kueue_version()
            if not version:
                return ""
            workloads = self._client.items(
                Resource(_KUEUE, version, "workloads"), namespace, f"{_KUEUE_JOB_UID}={job_uid}"
            )
        except ApiError:
            return ""  # the message is a comfort; without it the experiment is Queued all the same
        for workload in workloads:
            conditions = (workload.get("status") or {}).get("conditions") or []
            for kind, status in (("QuotaReserved", "False"), ("Evicted", "True")):
                for each in conditions:
                    if (each.get("type"), each.get("status")) == (kind, status):
                        return one_line(f"{each.get('reason') or kind}: {each.get('message') or ''}")
        return ""

    def pods_refused(self, experiment: Experiment) -> str:
        """Why the API server takes no pod of the newest attempt's job (a ResourceQuota, PodSecurity), in the words of
        the Event of whoever makes them; empty: nobody says so."""
        told = []
        for kind, name in target_of(experiment).makers(job_name(experiment, experiment.status.attempt)):
            about = {"fieldSelector": f"involvedObject.kind={kind},involvedObject.name={name},type=Warning"}
            try:
                page = self._client.call("GET", EVENTS.path(experiment.metadata.namespace), query=about)
            except ApiError:
                return ""  # as above
            told += [each for each in page["items"] if _NOT_MADE.search(str(each.get("reason", "")))]
        newest = max(told, key=lambda each: str(each.get("lastTimestamp") or each.get("eventTime") or ""), default=None)
        return "" if newest is None else one_line(str(newest.get("message") or newest["reason"]))

    def _named(
        self, resource: Resource, experiment: Experiment, names: Iterable[str], cached: Iterable[Document]
    ) -> tuple[Document, ...]:
        found = []
        for name in dict.fromkeys([*names, *map(name_of, cached)]):
            try:
                document = self._client.get(resource, experiment.metadata.namespace, name)
            except ApiError as error:
                if error.code != _NOT_FOUND:
                    raise
            else:
                found.append(trim.TRIMS[resource.plural](document))
        return tuple(found)

    def kueue_version(self) -> str:
        """The version of Kueue's API that the cluster prefers; empty: it has none, which is asked again each time."""
        asked, version = self._kueue
        if not version or time.monotonic() - asked > _VERSION_SECONDS:
            try:
                version = str(self._client.call("GET", f"/apis/{_KUEUE}")["preferredVersion"]["version"])
            except ApiError as error:
                if error.code != _NOT_FOUND:
                    raise
                version = ""
            self._kueue = (time.monotonic(), version)
        return version
