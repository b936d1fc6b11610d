"""The controller's own Prometheus metrics. What an experiment's status says is read from it at each scrape."""

from __future__ import annotations

import threading
import time
from collections import Counter as Count
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.version import version
from controller.api import Experiment, Phase, Status
from controller.attempt import GANG_INCOMPLETE, STALLED
from controller.figures import BEFORE_FIRST_STEP
from controller.status import FINISHED, SUSPENDED, over
from controller.times import to_unix
from controller.verdict import RETRIED

PHASES: tuple[Phase, ...] = get_args(Phase)
RESTART_REASONS = (*RETRIED, STALLED, GANG_INCOMPLETE)
"""Every reason is shown from the beginning, with 0: Prometheus sees no increase in a series that begins with 1."""
_WHOSE = ("namespace", "experiment")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
Document = Mapping[str, Any]


class Metrics:
    """All of them, in a registry of their own.

    Args:
        experiments: the documents that are watched.
        depth: keys that wait in the queue.
    """

    def __init__(self, experiments: Callable[[], Iterable[Document]], depth: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "resnet_operator_reconcile_seconds", "one look, its writes included", buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.errors = Counter(
            "resnet_operator_reconcile_errors", "looks that failed and are tried again", registry=self.registry
        )
        self.leader = Gauge("resnet_operator_is_leader", "1: this replica acts", registry=self.registry)
        Gauge("resnet_operator_queue_depth", "experiments that wait for a look", registry=self.registry).set_function(
            depth
        )
        Gauge("resnet_operator_build_info", "always 1", ["version"], registry=self.registry).labels(version()).set(1)
        self._told = _Told()
        self.registry.register(_Experiments(experiments, self._told))

    def wrote(self, experiment: Experiment, before: Status) -> None:
        """A status has been written."""
        self._told.wrote(experiment, before)


class _Told:
    """What happened while this controller looked, which no status keeps."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._restarts: Count[tuple[str, str, str]] = Count()
        self._first_step: dict[tuple[str, str], float] = {}

    def wrote(self, experiment: Experiment, before: Status) -> None:
        key, now = (experiment.metadata.namespace, experiment.metadata.name), experiment.status
        ended = now.history[-1:] != before.history[-1:] and now.history and now.phase not in FINISHED
        with self._lock:
            if ended and now.history[-1].reason != SUSPENDED:
                self._restarts[(*key, now.history[-1].reason)] += 1
            start, at = to_unix(now.attempt_start_time), to_unix(now.last_progress_time)
            if _steps(now) and not _steps(before) and start is not None and at is not None:
                self._first_step[key] = max(0.0, at - start)

    def restarts(self) -> dict[tuple[str, str, str], int]:
        with self._lock:
            return dict(self._restarts)

    def first_step(self, keep: set[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Of the experiments there are; what was told of others is forgotten."""
        with self._lock:
            for gone in self._first_step.keys() - keep:
                del self._first_step[gone]
            for restart in [each for each in self._restarts if each[:2] not in keep]:
                del self._restarts[restart]
            return dict(self._first_step)


def _steps(status: Status) -> bool:
    """Whether the newest attempt has done a step."""
    return not over(status) and status.training_phase not in (None, *BEFORE_FIRST_STEP)


class _Experiments(Collector):
    """Every series of an experiment, made from the documents of that moment: none outlives its experiment."""

    def __init__(self, experiments: Callable[[], Iterable[Document]], told: _Told) -> None:
        self._experiments = experiments
        self._told = told

    def collect(self) -> Iterator[Metric]:
        now = time.time()
        phase = GaugeMetricFamily(
            "resnet_experiment_status_phase", "1 for the phase that it is in", labels=[*_WHOSE, "phase"]
        )
        devices = GaugeMetricFamily("resnet_experiment_devices", "devices (ranks) that it asks for", labels=_WHOSE)
        deadline = GaugeMetricFamily(
            "resnet_experiment_deadline_timestamp_seconds", "when activeDeadlineSeconds will have passed", labels=_WHOSE
        )
        queued = GaugeMetricFamily(
            "resnet_experiment_queued_seconds", "how long its attempt has waited in the queue", labels=_WHOSE
        )
        first = GaugeMetricFamily(
            "resnet_experiment_first_step_seconds", "from the newest attempt's claim to its first step", labels=_WHOSE
        )
        restarts = CounterMetricFamily(
            "resnet_experiment_restarts", "attempts that ended and were followed by another", labels=[*_WHOSE, "reason"]
        )
        attempt = GaugeMetricFamily("resnet_experiment_attempt", "number of its newest attempt", labels=_WHOSE)
        phases, keys = Count[str](), set()
        restarted: dict[tuple[str, str, str], int] = {}
        for document in self._experiments():
            metadata, spec, status = document["metadata"], document["spec"], document.get("status") or {}
            key = (metadata["namespace"], metadata["name"])
            keys.add(key)
            current = status.get("phase", "Pending")
            phases[current] += 1
            for each in PHASES:
                phase.add_metric([*key, each], float(each == current))
            if current not in FINISHED:
                restarted |= {(*key, reason): 0 for reason in RESTART_REASONS}
            devices.add_metric(key, float(_devices(status)))
            attempt.add_metric(key, float(status.get("attempt", 0)))
            start, limit = to_unix(status.get("startTime")), spec.get("activeDeadlineSeconds")
            if start is not None and limit is not None and current not in FINISHED:
                deadline.add_metric(key, start + limit)
            since = to_unix(status.get("attemptStartTime"))
            if current == "Queued" and since is not None:
                queued.add_metric(key, max(0.0, now - since))
        for key, seconds in self._told.first_step(keys).items():
            first.add_metric(key, seconds)
        for whose, count in (restarted | self._told.restarts()).items():
            restarts.add_metric(whose, count)
        total = GaugeMetricFamily("resnet_operator_experiments", "experiments in that phase", labels=["phase"])
        for each in PHASES:
            total.add_metric([each], phases[each])
        yield from (phase, devices, attempt, deadline, queued, first, restarts, total)

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry would collect once to learn the names."""
        return ()


def _devices(status: Document) -> int:
    """Of the column "2x16 sdaa"."""
    nodes, _, rest = str(status.get("devices") or "0x0").partition("x")
    return int(nodes) * int(rest.partition(" ")[0])
