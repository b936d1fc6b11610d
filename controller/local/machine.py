"""This machine as a cluster: PyTorchJobs and pods in the shape of the Kubernetes API, each pod one process.

It plays the API server (names, UIDs, deletion), training-operator (pods from the job's template, the job's
conditions) and the kubelets (processes, container status, termination message, grace period).
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.local import LocalError
from controller.local.documents import condition, pod_document, set_state, timestamp
from controller.local.process import Mark, Process, Waker, free_ports
from controller.local.rundir import PodRecord, RunDirectory
from controller.local.template import GANG_PORTS, POD_PORTS, Places, PodPlan, plan_pod

START_ERROR = 128
"""Exit code that the kubelet gives a container whose command can't be started."""

_MESSAGE_BYTES = 4096
_LOG_TAIL_BYTES = 2048


@dataclass
class _Pod:
    document: dict[str, Any]
    plan: PodPlan
    log: Path
    scratch: Path
    process: Process | None = None
    kill_at: float | None = None  # unix seconds; set while it is terminating
    shown: bool = False  # its end has been in an answer of pods()


@dataclass
class Machine:
    """Runs the pods of the jobs that it is given.

    Attributes:
        run: where logs, records and the pods' own directories go.
        fixed: mount path in a pod -> path here (checkpoints, data set).
        base: environment below the templates'.
        devices: for each pod of a job the environment that shows it its own devices.
        waker: woken when a process ends.
    """

    run: RunDirectory
    fixed: Mapping[str, Path]
    base: Mapping[str, str]
    devices: Sequence[Mapping[str, str]]
    waker: Waker
    _jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    _pods: dict[str, _Pod] = field(default_factory=dict)

    def jobs(self) -> tuple[dict[str, Any], ...]:
        """The PyTorchJobs, as a list call would give them."""
        return tuple(copy.deepcopy(job) for job in self._jobs.values())

    def pods(self) -> tuple[dict[str, Any], ...]:
        """The pods, as a list call would give them; what has happened since the last call is looked up first."""
        self._settle(time.time())
        return tuple(copy.deepcopy(pod.document) for pod in self._pods.values())

    def metrics_port(self, pod: str) -> int | None:
        """Port on this machine of a pod's /metrics and /progress; None: no such pod, ended, or without them."""
        found = self._pods.get(pod)
        if found is None or found.process is None or found.process.exit_code is not None:
            return None
        return found.plan.metrics_port

    def create(self, job: Mapping[str, Any]) -> None:
        """Takes a PyTorchJob and starts its pods.

        Raises:
            LocalError: its template asks for what only a cluster has; nothing was started.
        """
        now = time.time()
        document = copy.deepcopy(dict(job))
        document["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": timestamp(now), "generation": 1}
        document["status"] = {
            "conditions": [condition(kind, now) for kind in ("Created", "Running")],
            "startTime": timestamp(now),
        }
        pods = self._plans(document, now)
        self._jobs[document["metadata"]["name"]] = document
        self._pods |= {pod.document["metadata"]["name"]: pod for pod in pods}
        self._record()
        for planned in pods:
            self._start(planned)
        self._record()

    def check(self, job: Mapping[str, Any]) -> None:
        """Whether `create` would take this job; starts nothing.

        Raises:
            LocalError: as `create`.
        """
        document = copy.deepcopy(dict(job))
        document["metadata"] |= {"uid": ""}
        for pod in self._plans(document, time.time()):
            shutil.rmtree(pod.scratch, ignore_errors=True)

    def delete(self, name: str, uid: str) -> None:
        """Deletes a job and, in the background, its pods; nothing where there is no such job with that UID."""
        job = self._jobs.get(name)
        if job is None or job["metadata"]["uid"] != uid:
            return
        del self._jobs[name]
        now = time.time()
        for pod in self._pods.values():
            if pod.document["metadata"]["ownerReferences"][0]["uid"] == uid:
                grace = pod.plan.grace_seconds
                pod.kill_at = now + grace
                pod.document["metadata"] |= {
                    "deletionTimestamp": timestamp(pod.kill_at),
                    "deletionGracePeriodSeconds": int(grace),
                }
                if pod.process is not None:
                    pod.process.terminate()

    def kill(self) -> None:
        """SIGKILL to every pod's processes."""
        for pod in self._pods.values():
            if pod.process is not None:
                pod.process.kill()

    def next_kill(self) -> float | None:
        """When the next terminating pod's grace period ends, in unix seconds."""
        return min((pod.kill_at for pod in self._pods.values() if pod.kill_at and _runs(pod)), default=None)

    def close(self) -> None:
        """Ends what still runs (SIGTERM, after the grace period SIGKILL) and removes the pods' directories."""
        running = [pod for pod in self._pods.values() if _runs(pod)]
        for pod in running:
            if pod.process is not None and pod.kill_at is None:
                pod.process.terminate()
        for pod in running:
            if pod.process is not None:
                deadline = pod.kill_at or time.time() + pod.plan.grace_seconds
                if not pod.process.wait(max(0.0, deadline - time.time())):
                    pod.process.kill()
                    pod.process.wait(10.0)
        for pod in list(self._pods.values()):
            self._remove(pod)
        shutil.rmtree(self.run.pods, ignore_errors=True)
        self._record()

    def _plans(self, document: Mapping[str, Any], now: float) -> list[_Pod]:
        """The pods of a job, each with the process that it will be."""
        worker = document["spec"]["pytorchReplicaSpecs"]["Worker"]
        replicas = int(worker.get("replicas", 1))
        ports = free_ports(len(GANG_PORTS) + replicas * len(POD_PORTS))
        gang = dict(zip(GANG_PORTS, ports, strict=False))
        pods: list[_Pod] = []
        for index in range(replicas):
            pod = pod_document(document, worker["template"], index, now)
            own = ports[len(GANG_PORTS) + index * len(POD_PORTS) :]
            base = {**self.base, **self.devices[index]}
            pods.append(
                self._plan(pod, document["metadata"]["name"], gang | dict(zip(POD_PORTS, own, strict=False)), base)
            )
        return pods

    def _plan(self, pod: dict[str, Any], job: str, ports: Mapping[str, int], base: Mapping[str, str]) -> _Pod:
        name = pod["metadata"]["name"]
        scratch = Path(tempfile.mkdtemp(prefix="resnet-"))
        try:
            places = Places(scratch=scratch, pod=(self.run.pods / name).absolute(), fixed=self.fixed)
            plan = plan_pod(pod, job, places, ports, base)
        except LocalError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return _Pod(pod, plan, self.run.logs / f"{name}.log", scratch)

    def _start(self, pod: _Pod) -> None:
        for directory in (*pod.plan.directories, pod.plan.termination_log.parent, pod.log.parent):
            directory.mkdir(parents=True, exist_ok=True)
        pod.plan.termination_log.unlink(missing_ok=True)
        now = time.time()
        at = timestamp(now)
        try:
            pod.process = Process(pod.plan.argv, pod.plan.env, self.run.path, pod.log, self.waker)
        except OSError as error:
            state = {"exitCode": START_ERROR, "reason": "StartError", "message": str(error)}
            set_state(pod.document, "Failed", {"terminated": state | {"startedAt": at, "finishedAt": at}}, now)
        else:
            set_state(pod.document, "Running", {"running": {"startedAt": at}}, now)

    def _settle(self, now: float) -> None:
        """Brings the documents up to date with the processes."""
        for pod in list(self._pods.values()):
            if pod.kill_at is not None and not _runs(pod) and pod.shown:
                self._remove(pod)
                self._record()
                continue
            if pod.kill_at is not None and now >= pod.kill_at and pod.process is not None:
                pod.process.kill()
            if _runs(pod):
                continue
            pod.shown = True
            status = pod.document["status"]
            if pod.process is not None and status["phase"] == "Running":
                self._finish(pod, pod.process)

    def _finish(self, pod: _Pod, process: Process) -> None:
        code = int(process.exit_code or 0)
        container = pod.document["status"]["containerStatuses"][0]
        state = {
            "exitCode": code,
            "reason": "Error" if code else "Completed",
            "message": _message(pod, code),
            "startedAt": container["state"]["running"]["startedAt"],
            "finishedAt": timestamp(process.ended_at),
        }
        set_state(pod.document, "Failed" if code else "Succeeded", {"terminated": state}, process.ended_at)

    def _remove(self, pod: _Pod) -> None:
        """The pod is gone, and with it its emptyDir volumes."""
        del self._pods[pod.document["metadata"]["name"]]
        for directory in (pod.scratch, pod.plan.termination_log.parent):
            shutil.rmtree(directory, ignore_errors=True)

    def _record(self) -> None:
        """Writes down what a later run must end and remove, should this one be killed."""
        self.run.record_pods(
            PodRecord(Mark.of(pod.process.pid) if pod.process else None, pod.scratch, pod.plan.grace_seconds)
            for pod in self._pods.values()
        )


def _runs(pod: _Pod) -> bool:
    return pod.process is not None and pod.process.exit_code is None


def _message(pod: _Pod, code: int) -> str:
    """The container's termination message as the kubelet reads it."""
    message = _head(pod.plan.termination_log)
    if not message and code and pod.plan.log_on_error and pod.log.is_file():
        with open(pod.log, "rb") as file:
            file.seek(max(0, pod.log.stat().st_size - _LOG_TAIL_BYTES))
            message = file.read(_LOG_TAIL_BYTES)
    return message.decode(errors="replace")


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MESSAGE_BYTES)
    except OSError:
        return b""
