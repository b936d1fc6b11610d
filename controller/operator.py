"""The operator's process: it waits to lead, keeps the caches, and has experiments looked at until it is stopped."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from functools import partial

import prometheus_client

from app.resilience.exit_codes import ExitCode
from app.version import version
from controller import health
from controller.api import LABEL_EXPERIMENT
from controller.kube import KubeError, trim
from controller.kube.client import EXPERIMENTS, JOBS_OF, PODS, ApiError, Client, Resource
from controller.kube.config import connect, own_namespace
from controller.kube.election import Election
from controller.kube.executor import Executor, NotLeading, Settings, Stores
from controller.kube.poller import Poller
from controller.kube.queue import Queue
from controller.kube.recorder import Recorder
from controller.kube.reflector import Reflector
from controller.kube.store import Store
from controller.kube.trim import Key
from controller.metrics import Metrics
from controller.options import PROGRAM, Options, parse

_LOG = logging.getLogger(__name__)
STUCK_SECONDS = 300.0
"""A look takes longer, or a watch is silent for longer while the API server answers: the process is to be restarted."""

STOP_SECONDS = 20.0
"""Looks that have begun are waited for so long at the end; one that takes longer finds that it may not write."""


class Operator:
    """All parts of one process, tied together.

    Args:
        options: the flags.
        client: the API.
        election: this replica's part in it.
        identity: of this replica.
    """

    def __init__(self, options: Options, client: Client, election: Election, identity: str) -> None:
        self._options = options
        self._client = client
        self._election = election
        self._queue = Queue()
        jobs = {kind: Store(trim.experiment_of) for kind in JOBS_OF}
        self._stores = Stores(Store(_own_key), jobs, Store(trim.experiment_of))
        self.metrics = Metrics(self._stores.experiments.all, self._queue.__len__)
        self._poller = Poller(partial(self._queue.add, patient=True), options.timing.progress_interval, options.readers)
        self._executor = Executor(
            client,
            self._stores,
            self._poller,
            Recorder(client, identity),
            settings=Settings(options.training_image, options.policy, options.timing, options.training_runtime),
            leading=election.leading,
            wrote=self.metrics.wrote,
        )
        self._reflectors = [
            self._reflector(resource, store, selector)
            for resource, store, selector in (
                (EXPERIMENTS, self._stores.experiments, ""),
                *((resource, jobs[kind], LABEL_EXPERIMENT) for kind, resource in JOBS_OF.items()),
                (PODS, self._stores.pods, LABEL_EXPERIMENT),
            )
        ]
        self._workers: list[threading.Thread] = []
        self._since: dict[str, float] = {}  # worker -> when it began its look
        self._started = False

    def run(self, stop: threading.Event) -> None:
        """Leads until `stop` is set; the looks that have begun are finished then."""
        for reflector in self._reflectors:
            reflector.start()
        self._started = True
        self.metrics.leader.set(1)
        self._poller.start()
        while not all(each.synced.is_set() for each in self._reflectors):
            if stop.wait(0.05):
                break
        for number in range(self._options.workers):
            self._workers.append(threading.Thread(target=self._work, name=f"worker-{number}", daemon=True))
        for worker in self._workers:
            worker.start()
        while not stop.wait(self._options.resync):
            for key in self._stores.experiments.keys():  # noqa: SIM118 - no mapping
                self._queue.add(key, patient=True)
        self._queue.close()
        self._poller.close()
        for reflector in self._reflectors:
            reflector.stop()
        late = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.join(max(0.0, late - time.monotonic()))
        self.metrics.leader.set(0)

    def alive(self) -> str:
        """What only a restart mends; empty: nothing."""
        now = time.monotonic()
        for worker, since in list(self._since.items()):
            if now - since > STUCK_SECONDS:
                return f"{worker} has looked at one experiment for {now - since:.0f} s"
        silent = [each for each in self._reflectors if self._started and now - each.contact > STUCK_SECONDS]
        # Asked once: an API server that says nothing would use up the probe's time with the second question.
        if silent and self._answers():
            first = silent[0]
            return f"the watch of {first.resource.plural} has been silent for {now - first.contact:.0f} s"
        return ""

    def ready(self) -> str:
        """What keeps it from doing its work; empty: nothing. A replica that waits to lead is ready."""
        for reflector in self._reflectors if self._started else ():
            if not reflector.synced.is_set():
                return f"waits for the first list of {reflector.resource.plural} {reflector.trouble}".rstrip()
        return ""

    def _reflector(self, resource: Resource, store: Store, selector: str) -> Reflector:
        return Reflector(
            self._client,
            resource,
            store,
            namespace=self._options.namespace,
            selector=selector,
            trim=trim.TRIMS[resource.plural],
            # A job is mostly news of our own POST; what matters next are its pods.
            changed=partial(self._queue.add, patient=resource in JOBS_OF.values()),
        )

    def _work(self) -> None:
        name = threading.current_thread().name
        while (key := self._queue.get()) is not None:
            self._since[name] = time.monotonic()
            try:
                with self.metrics.reconcile_seconds.time():
                    self._look(key)
            finally:
                self._since.pop(name, None)
                self._queue.done(key)

    def _look(self, key: Key) -> None:
        try:
            again = self._executor.look(key)
        except NotLeading:
            self._queue.failed(key)
        except ApiError as error:
            delay = self._queue.failed(key)
            if error.reason != "Conflict":  # the experiment has changed meanwhile: an ordinary thing
                self.metrics.errors.inc()
                _LOG.warning("%s/%s: %s; again in %.1f s", *key, error.message, delay)
        except Exception:  # noqa: BLE001 - one experiment must not end the work on all others
            self._queue.failed(key)
            self.metrics.errors.inc()
            _LOG.exception("%s/%s: unexpected", *key)
        else:
            self._queue.succeeded(key)
            if again is not None:
                self._queue.add_after(key, again)

    def _answers(self) -> bool:
        try:
            self._client.call("GET", "/version")
        except ApiError:
            return False
        return True


def _own_key(document: trim.Document) -> Key:
    return document["metadata"]["namespace"], document["metadata"]["name"]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the operator until SIGTERM or SIGINT; returns the exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(threadName)s %(message)s",
        stream=sys.stderr,
    )
    for chatty in ("urllib3", "kubernetes"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return _run(options)
    except KubeError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{PROGRAM}: {error.strerror or error}: are --metrics-port and --health-port free?", file=sys.stderr)
    return ExitCode.BAD_OPTION


def _run(options: Options) -> int:
    client = connect(options.kubeconfig, options.context)
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    # Short enough for three tries before the lease is lost.
    asking = connect(options.kubeconfig, options.context, timeout=options.terms.deadline / 3)
    namespace = options.lease_namespace or own_namespace(options.kubeconfig, options.context)
    election = Election(asking, namespace, options.lease_name, identity, options.terms)
    operator = Operator(options, client, election, identity)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    metrics, _ = prometheus_client.start_http_server(options.metrics_port, registry=operator.metrics.registry)
    checks = health.serve(options.health_port, {"/healthz": operator.alive, "/readyz": operator.ready})
    _LOG.info(
        "resnet-operator %s for %s: metrics on port %d, health on port %d",
        version(), options.namespace or "all namespaces", metrics.server_port, checks.server_port,
    )  # fmt: skip
    if not election.wait(stop):
        return ExitCode.DONE
    lost = threading.Event()
    keeper = election.keep(lost)
    threading.Thread(target=_exit_when, args=(lost,), daemon=True).start()
    operator.run(stop)
    election.release(keeper)
    _LOG.info("stopped")
    return ExitCode.DONE


def _exit_when(lost: threading.Event) -> None:
    """Another replica may lead from now on: whatever is under way here ends at once."""
    lost.wait()
    logging.shutdown()
    os._exit(1)
