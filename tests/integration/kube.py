"""A real API server without nodes: tests play training-operator, scheduler, kubelets and garbage collector."""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from controller.kube.client import EXPERIMENTS, JOBS, MERGE_PATCH, PODS, ApiError, Client, Resource
from controller.times import to_text

Document = dict[str, Any]
T = TypeVar("T")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
NAMESPACES = Resource("", "v1", "namespaces")
WAIT = 60.0
# The controller's own times, so short that a test of a whole history takes seconds.
FAST = [
    word
    for each in (
        "backoff_base=0.1", "backoff_max=0.5", "settle=1", "peer_extra=1", "pick_up=1.5", "reachable_after=0.5",
        "create_retry=1", "dead_node=1", "resync=1",
    )
    for word in ("--timing", each)
] + ["--progress-seconds", "0.2", "--resync-seconds", "2"]  # fmt: skip
_numbers = itertools.count(1)


def wait_for(what: Callable[[], T | None], said: Callable[[], object] = lambda: "", seconds: float = WAIT) -> T:
    """What `what` returns once it is true; fails with what `said` says."""
    late = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < late, said()
        time.sleep(0.05)


def install(client: Client, crd: Document) -> None:
    """Installs a kind and waits until it is served."""
    client.call("POST", CRDS.path(None), body=crd)
    spec = crd["spec"]
    kind = Resource(spec["group"], spec["versions"][0]["name"], spec["names"]["plural"])

    def served() -> bool:
        with contextlib.suppress(ApiError):
            client.items(kind, None)
            return True
        return False

    wait_for(served)


SPEC: Document = {
    "model": "resnet18",
    "accelerator": {"type": "cpu", "cardsPerNode": 2},
    "nodes": 2,
    "dataset": {"name": "digits"},
    "training": {"batchSizePerDevice": 16},
    "checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "checkpoints"}}},
    "podTemplate": {"resources": {"limits": {"memory": "64Gi"}}},
}


def merged(base: Document, changes: Document) -> Document:
    """A merge patch, applied: None removes."""
    result = copy.deepcopy(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merged(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def experiment(name: str = "digits", **changes: Any) -> Document:
    """An experiment as a user writes it, with changes of its spec."""
    return {
        "apiVersion": "resnet-operator.io/v1alpha1",
        "kind": "ResNetExperiment",
        "metadata": {"name": name},
        "spec": merged(SPEC, changes),
    }


class Namespace:
    """One namespace, and what happens in it."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    @classmethod
    def made(cls, client: Client) -> Namespace:
        name = f"team-{uuid.uuid4().hex[:8]}"
        document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        client.call("POST", NAMESPACES.path(None), body=document)
        return cls(client, name)

    # experiments

    def create(self, name: str = "digits", **changes: Any) -> Document:
        return self.client.create(EXPERIMENTS, self.name, experiment(name, **changes))

    def get(self, name: str = "digits") -> Document:
        return self.client.get(EXPERIMENTS, self.name, name)

    def status(self, name: str = "digits") -> Document:
        return self.get(name).get("status") or {}

    def patch(self, spec: Document, name: str = "digits") -> Document:
        return self.client.patch(EXPERIMENTS, self.name, name, {"spec": spec})

    def wait(self, what: Callable[[Document], Any], name: str = "digits", seconds: float = WAIT) -> Document:
        """The status of which `what` is true."""
        last: list[Document] = [{}]

        def look() -> Document | None:
            last[0] = self.status(name)
            return last[0] if what(last[0]) else None

        return wait_for(look, lambda: yaml.safe_dump(last[0]), seconds)

    def phase(self, phase: str, name: str = "digits") -> Document:
        return self.wait(lambda status: status.get("phase") == phase, name)

    def condition(self, kind: str, status: str, reason: str, name: str = "digits") -> Document:
        """Waits for a condition, and returns it."""
        wanted = (kind, status, reason)

        def found(document: Document) -> list[Document]:
            every = document.get("conditions", ())
            return [each for each in every if (each["type"], each["status"], each["reason"]) == wanted]

        return found(self.wait(found, name))[0]

    def events(self, name: str = "digits") -> list[Document]:
        found = self.client.items(Resource("", "v1", "events"), self.name)
        return [each for each in found if each["involvedObject"]["name"] == name]

    # jobs and pods

    def jobs(self) -> list[Document]:
        return self.client.items(JOBS, self.name)

    def job(self, attempt: int = 1, name: str = "digits") -> Document:
        """Waits for the job of an attempt."""

        def find() -> Document | None:
            with contextlib.suppress(ApiError):
                return self.client.get(JOBS, self.name, f"{name}-{attempt}")
            return None

        return wait_for(find, lambda: yaml.safe_dump(self.status(name)))

    def pick_up(self, job: Document) -> None:
        """training-operator writes into the job's status."""
        status = {"conditions": [{"type": "Created", "status": "True", "lastTransitionTime": to_text(time.time())}]}
        self._status(JOBS, job["metadata"]["name"], {**status, "replicaStatuses": {}})

    def start(self, attempt: int = 1, *, name: str = "digits", pods: int | None = None) -> Document:
        """The job of an attempt is picked up, and its pods run."""
        job = self.job(attempt, name)
        self.pick_up(job)
        count = job["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] if pods is None else pods
        for index in range(count):
            self.make_pod(job, index)
            self.set_running(f"{name}-{attempt}-worker-{index}")
        return job

    def make_pod(self, job: Document, index: int, *, node: str = "") -> Document:
        """The pod of a replica, bound to a node unless that is None."""
        template = copy.deepcopy(job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"])
        template["metadata"]["labels"] |= {
            "training.kubeflow.org/replica-index": str(index),
            "training.kubeflow.org/job-name": job["metadata"]["name"],
        }
        owner = {key: job[key] for key in ("apiVersion", "kind")}
        owner |= {key: job["metadata"][key] for key in ("name", "uid")} | {"controller": True}
        template["metadata"] |= {"name": f"{job['metadata']['name']}-worker-{index}", "ownerReferences": [owner]}
        template["spec"] |= {"nodeName": node or f"node-{index}"}
        return self.client.create(PODS, self.name, {"apiVersion": "v1", "kind": "Pod", **template})

    def set_pod(
        self,
        pod: str,
        phase: str,
        state: Document | None = None,
        *,
        address: str = "127.0.0.1",
        name: str = "pytorch",
        **more: Any,
    ) -> None:
        """What a kubelet writes, of the container of that name."""
        conditions = [{"type": "PodScheduled", "status": "True"}, *more.pop("conditions", ())]
        status: Document = {"phase": phase, "podIP": address, "podIPs": [{"ip": address}]}
        status |= {"conditions": conditions} | more
        if state is not None:
            container = {"name": name, "image": "i", "imageID": "", "ready": phase == "Running", "restartCount": 0}
            status["containerStatuses"] = [container | {"state": state}]
        self._status(PODS, pod, status)

    def set_running(self, pod: str, address: str = "127.0.0.1") -> None:
        self.set_pod(pod, "Running", {"running": {"startedAt": to_text(int(time.time()))}}, address=address)

    def end(self, pod: str, code: int, message: str = "", runtime: str = "", **more: Any) -> None:
        now = to_text(int(time.time()))
        reason = runtime or ("Error" if code else "Completed")
        end = {"exitCode": code, "reason": reason, "message": message, "startedAt": now, "finishedAt": now}
        self.set_pod(pod, "Failed" if code else "Succeeded", {"terminated": end}, **more)

    def words(self, attempt: int = 1, *, name: str = "digits", **values: Any) -> str:
        """A launcher's termination message."""
        facts = {"namespace": self.name, "experiment": name, "attempt": attempt, "phase": "train", "epoch": 3}
        return json.dumps(facts | {"epochs": 8, "step": 10, "steps": 80} | values)

    def remove_pod(self, pod: str) -> None:
        body = {"gracePeriodSeconds": 0}
        self.client.call("DELETE", PODS.path(self.name, pod), body=body)

    def collect(self, attempt: int, name: str = "digits") -> None:
        """Waits until the attempt's job is gone; its pods follow, as the garbage collector would have it."""
        gone = f"{name}-{attempt}"
        wait_for(
            lambda: gone not in [job["metadata"]["name"] for job in self.jobs()],
            lambda: yaml.safe_dump(self.status(name)),
        )
        for pod in self.client.items(PODS, self.name, f"training.kubeflow.org/job-name={gone}"):
            self.remove_pod(pod["metadata"]["name"])

    def _status(self, resource: Resource, name: str, status: Document) -> None:
        path = resource.path(self.name, name, "status")
        self.client.call("PATCH", path, body={"status": status}, content=MERGE_PATCH)


class OperatorProcess:
    """`python -m controller`, until it is ended; `program` is what Python runs in its place."""

    def __init__(
        self,
        kubeconfig: Path,
        directory: Path,
        *flags: str,
        lease: str | None = None,
        program: Sequence[str] = ("-m", "controller"),
    ) -> None:
        self.log_file = directory / f"operator-{next(_numbers)}.log"
        name = lease or f"operator-{uuid.uuid4().hex[:8]}"
        command = [
            *(sys.executable, *program, "--kubeconfig", str(kubeconfig)),
            *("--metrics-port", "0", "--health-port", "0", "--lease-name", name, *FAST, *flags),
        ]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, cwd=Path(__file__).parents[2])

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def said(self, pattern: str, seconds: float = WAIT) -> re.Match[str]:
        """Waits until its log has a line like that."""
        return wait_for(lambda: re.search(pattern, self.log), lambda: self.log, seconds)

    def leading(self) -> OperatorProcess:
        self.said("leading as")
        return self

    def get(self, server: str, path: str) -> tuple[int, str]:
        """GET of its `metrics` or `health` port: status and text."""
        port = int(self.said(rf"{server} on port (\d+)")[1])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=15) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def stop(self, seconds: float = WAIT) -> int:
        self.process.terminate()
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WAIT)


@contextlib.contextmanager
def operator(kubeconfig: Path, directory: Path, *flags: str, **how: Any) -> Iterator[OperatorProcess]:
    """An operator that is ended at the end, whatever happens."""
    process = OperatorProcess(kubeconfig, directory, *flags, **how)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.kill()
