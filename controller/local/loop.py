"""The loop: look at the machine, ask `reconcile`, do what it says; until the experiment has ended or is suspended."""

from __future__ import annotations

import http.client
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from controller import progress
from controller.api import Experiment, Status
from controller.carry_out import carry_out
from controller.display import Display, View
from controller.local.machine import Machine
from controller.local.process import Waker
from controller.local.rundir import NAMESPACE, RunDirectory, replace
from controller.local.template import LOOPBACK
from controller.reconcile import Decision, Event, JobRef, Observed, Timing, reconcile, reporter

TIMING = Timing(progress_interval=1, resync=5, create_retry=5)
"""Back-off and patience as in the cluster; numbers as often as a person at a terminal wants them."""

ROUND_SECONDS = 0.5
"""A look at the machine at least so often: progress is read, and nothing announces it."""

SILENCE_SECONDS = 10.0
"""A busy machine answers late now and then: only a launcher that is silent for so long counts as unreachable."""

_METRICS_BYTES = 1024 * 1024
_MAIN_POD = "-worker-0"

Renderer = Callable[[Experiment, int, str | None], dict[str, Any]]
"""(experiment, attempt, node to avoid) -> PyTorchJob."""


class Stop:
    """What the signals asked for. The first SIGINT or SIGTERM suspends, the second kills, a third is the default.

    Attributes:
        signal: the first one's number, 0: none came.
        hard: whether a second one came.
    """

    def __init__(self, waker: Waker) -> None:
        self.signal = 0
        self.hard = False
        self._waker = waker

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles SIGINT and SIGTERM inside."""
        before = {number: signal.signal(number, self._came) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, number: int, _frame: object) -> None:
        if self.signal:
            self.hard = True
            signal.signal(number, signal.SIG_DFL)
        else:
            self.signal = number
        self._waker.wake()


class Loop:
    """Runs one experiment on one machine.

    Attributes:
        experiment: with its newest status; its spec is the file's (never suspended by a signal).
        newest: the newest progress document, of any attempt.
    """

    def __init__(
        self,
        experiment: Experiment,
        *,
        run: RunDirectory,
        machine: Machine,
        render: Renderer,
        display: Display,
        stop: Stop,
    ) -> None:
        self.experiment = experiment
        self.newest: progress.Progress | None = None
        self._run = run
        self._machine = machine
        self._render = render
        self._display = display
        self._stop = stop
        self._killed = False
        self._heard_at = 0.0

    def run(self, waker: Waker) -> None:
        """Until the experiment has ended, or is suspended and nothing of it runs any more.

        Raises:
            OSError: the run directory can't be written.
        """
        while True:
            decision = self._round()
            phase = self.experiment.status.phase
            if phase in ("Succeeded", "Failed") or (phase == "Suspended" and not self._machine.pods()):
                return
            now = time.time()
            times = [at for at in (decision.look_again_at, self._machine.next_kill()) if at is not None]
            waker.wait(min([ROUND_SECONDS, *(at - now for at in times)]))

    def _round(self) -> Decision:
        if self._stop.hard and not self._killed:
            self._killed = True
            self._machine.kill()
        experiment = self._wanted()
        seen = Observed(jobs=self._machine.jobs(), pods=self._machine.pods())
        observed = Observed(jobs=seen.jobs, pods=seen.pods, progress=self._read(experiment, seen))
        decision = reconcile(experiment, observed, time.time(), TIMING)
        carry_out(decision, self.experiment, self)
        self._display.show(View(self.experiment, self.newest, stopping=bool(self._stop.signal)))
        return decision

    def write(self, experiment: Experiment, status: Status) -> Experiment:
        """See `Backend`."""
        self.experiment = experiment.model_copy(update={"status": status})
        self._run.save(self.experiment)
        return self.experiment

    def delete(self, experiment: Experiment, job: JobRef) -> None:  # noqa: ARG002
        """See `Backend`."""
        self._machine.delete(job.name, job.uid)

    def create(self, experiment: Experiment, attempt: int, avoid_node: str | None) -> None:
        """See `Backend`."""
        self._machine.create(self._render(experiment, attempt, avoid_node))

    def tell(self, experiment: Experiment, event: Event) -> None:  # noqa: ARG002
        """See `Backend`."""
        if self._stop.signal and event.reason == "Suspended":
            return  # it speaks of the spec, which the user has not touched; the end says it better
        self._display.note(f"{event.reason}: {event.message}", warning=event.type != "Normal")

    def _wanted(self) -> Experiment:
        """The experiment as reconcile is to see it: suspended once a signal came."""
        if not self._stop.signal:
            return self.experiment
        spec = self.experiment.spec.model_copy(update={"suspend": True})
        return self.experiment.model_copy(update={"spec": spec})

    def _read(self, experiment: Experiment, observed: Observed) -> progress.Reading | None:
        """Asks node 0 of the current attempt how far it is, and keeps its metrics."""
        self._read_ended(observed)
        pod = reporter(experiment, observed)
        name = pod["metadata"]["name"] if pod else ""
        port = self._machine.metrics_port(name)
        if port is None:
            self._heard_at = time.monotonic()
            return None
        identity = progress.Identity(NAMESPACE, experiment.metadata.name, experiment.status.attempt)
        reading = progress.read(LOOPBACK, port, identity)
        if reading.document is not None:
            self._heard_at = time.monotonic()
            self.newest = reading.document
            metrics = _get_metrics(port)
            if metrics:
                replace(self._run.metrics, metrics)
        elif time.monotonic() - self._heard_at < SILENCE_SECONDS or self._machine.metrics_port(name) is None:
            return None
        return reading

    def _read_ended(self, observed: Observed) -> None:
        """The last word of a node 0 that has ended is newer than what it answered before."""
        for pod in observed.pods:
            containers = pod["status"].get("containerStatuses") or [{}]
            ended = containers[0].get("state", {}).get("terminated")
            if ended and pod["metadata"]["name"].endswith(_MAIN_POD):
                self.newest = progress.from_termination(ended["message"]) or self.newest


def _get_metrics(port: int) -> bytes:
    """The launcher's /metrics, empty where it doesn't answer."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1.0)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.read(_METRICS_BYTES) if answer.status == http.client.OK else b""
    except (OSError, http.client.HTTPException):
        return b""
    finally:
        connection.close()
