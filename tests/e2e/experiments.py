"""Experiments of a small network on real images: applied, followed, and judged by their status, Events and files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from app.data import digits
from app.telemetry.events import read_events
from controller.api import LABEL_ATTEMPT, LABEL_EXPERIMENT
from controller.status import FINISHED
from controller.targets import DEFAULT, TARGETS
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.waiting import wait_for
from tests.e2e.claims import Claim
from tests.onnx_accuracy import onnx_top1

T = TypeVar("T")
KIND = "resnetexperiment"
IMAGES, CHECKPOINTS = "images", "checkpoints"
"""The claims that every experiment mounts."""
TRAIN, VAL = 8, 4
"""Images of each digit: enough for steps, epochs and a validation, and an epoch takes seconds."""
CLASSES = len(digits.CLASSES)
BATCH = 8
METRICS_PORT = 9401
GRACE_SECONDS = 20
# Two cores carry two nodes, the control plane and all ranks; a fault's own time is in its test.
SOON, TRAINED = 120.0, 300.0

# One thread a rank: two that spin for each other on two busy cores are ten times as slow. No loader workers: the
# images are tiny. 18 px is the smallest that a ResNet takes.
SPEC: Object = {
    "model": "resnet18",
    "accelerator": {"type": "cpu"},
    "nodes": 2,
    "dataset": {
        "name": "imagenet",
        "path": "/datasets/digits",
        "volume": {"persistentVolumeClaim": {"claimName": IMAGES, "readOnly": True}},
    },
    "training": {
        "epochs": 4, "batchSizePerDevice": BATCH, "imageSize": 18, "numWorkers": 0, "logInterval": 1,
        "watchdogSeconds": 60,
    },
    "checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": CHECKPOINTS}}},
    "faultTolerance": {"nodeGracePeriodSeconds": 5, "startTimeoutSeconds": 120},
    "podTemplate": {
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "2Gi"}},
        "sharedMemory": "64Mi",
        "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
        "terminationGracePeriodSeconds": GRACE_SECONDS,
    },
}  # fmt: skip


def few_digits(into: Path, whole: Path) -> None:
    """Write a folder of train/ and val/ with the first few images of each digit; `whole` is for all of them."""
    digits.write(whole)
    for part, count in (("train", TRAIN), ("val", VAL)):
        for name in digits.CLASSES:
            (into / part / name).mkdir(parents=True)
            for image in sorted((whole / part / name).iterdir())[:count]:
                shutil.copy(image, into / part / name)


def merged(base: Object, changes: Object) -> Object:
    """`base` with a merge patch applied: None removes."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        if value is None:
            del result[key]
    return result


@dataclass(frozen=True)
class Start:
    """One start of a training, as its events.jsonl tells it.

    Attributes:
        attempt: of the controller.
        resumed: the step that it began after.
        reached: the last step that it trained.
        commits: the steps of its checkpoints, in order.
        lag: steps that were trained while one of them was being written, at most.
        times: when each step was done, unix seconds.
    """

    attempt: int
    resumed: int
    reached: int
    commits: tuple[int, ...]
    lag: int
    times: dict[int, float]

    @classmethod
    def of(cls, events: Sequence[dict[str, Any]]) -> Start:
        """From the events of one file, the first of which is its start."""
        first, reached, lag = events[0], int(events[0]["step"]), 0
        commits, times = [], {}
        for event in events:
            if event["kind"] == "train":
                reached = int(event["step"])
                times[reached] = float(event["time"])
            elif event["kind"] == "checkpoint":
                commits.append(int(event["step"]))
                lag = max(lag, reached - commits[-1])
        return cls(int(first["attempt"]), int(first["step"]), reached, tuple(commits), lag, times)


@dataclass(frozen=True)
class Experiment:
    """One experiment; `kubectl` is in its namespace, `files` the folder behind the claim of its checkpoints."""

    kubectl: Kubectl
    name: str
    files: Path
    images: Path
    spec: Object

    def apply(self) -> Experiment:
        """Create it."""
        document = {"apiVersion": "resnet-operator.io/v1alpha1", "kind": "ResNetExperiment", "spec": self.spec}
        self.kubectl.apply({**document, "metadata": {"name": self.name}})
        return self

    def change(self, **spec: Any) -> None:
        """Merge into its spec."""
        self.kubectl.patch(KIND, self.name, {"spec": spec})

    # --- what the controller says

    @property
    def document(self) -> Object:
        """As the API has it."""
        return self.kubectl.get(KIND, self.name)

    @property
    def status(self) -> Object:
        """Its status, empty before the first look."""
        found: Object = self.document.get("status") or {}
        return found

    def why(self) -> str:
        """What `resnetctl why` tells of it."""
        where = ["--kubeconfig", str(self.kubectl.kubeconfig), "--namespace", self.kubectl.namespace]
        command = [sys.executable, "-m", "controller.cli", "why", self.name, *where]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def until(self, what: Callable[[Object], T | None], said: str, seconds: float = SOON) -> T:
        """What `what` makes of the status, once it is true.

        Raises:
            AssertionError: it is not in time, or never will be since the experiment has ended; with its story.
        """
        ended = False

        def look() -> tuple[T | None] | None:
            nonlocal ended
            status = self.status
            found = what(status)
            ended = status.get("phase") in FINISHED
            return (found,) if found or ended else None

        try:
            (found,) = wait_for(look, seconds, said)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.why()}") from None
        assert found, f"{said}, and it has ended:\n{self.why()}"
        return found

    def phase(self, phase: str, seconds: float = SOON) -> Object:
        """The status of that phase."""
        return self.until(lambda status: status if status.get("phase") == phase else None, f"not {phase}", seconds)

    def condition(self, kind: str) -> tuple[str, str, str]:
        """(status, reason, message) of a condition; empty strings where there is none."""
        for each in self.status.get("conditions", ()):
            if each["type"] == kind:
                return each["status"], each["reason"], each.get("message", "")
        return "", "", ""

    def history(self) -> list[tuple[str, bool]]:
        """(reason, whether it counted) of each attempt that has ended."""
        return [(entry["reason"], entry["counted"]) for entry in self.status.get("history", ())]

    def told(self) -> set[str]:
        """The reasons of its Events."""
        events = self.kubectl.find("events")
        return {event["reason"] for event in events if event["involvedObject"].get("name") == self.name}

    # --- its pods

    def owned(self, kind: str) -> list[Object]:
        """What of a kind has its label."""
        return self.kubectl.find(kind, f"{LABEL_EXPERIMENT}={self.name}")

    def pod(self, index: int = 0, attempt: int | None = None) -> str:
        """The name of a pod, of the newest attempt unless another is asked for."""
        number = attempt or self.status["attempt"]
        target = TARGETS[self.spec.get("target", DEFAULT)]
        if known := target.pod_names(f"{self.name}-{number}", index + 1):
            return known[index]
        labels = {LABEL_EXPERIMENT: self.name, LABEL_ATTEMPT: number, target.index_label: index}
        (found,) = self.kubectl.find("pods", ",".join(f"{key}={value}" for key, value in labels.items()))
        return str(found["metadata"]["name"])

    def node(self, index: int = 0, attempt: int | None = None) -> str:
        """Where it runs."""
        return str(self.kubectl.get("pod", self.pod(index, attempt))["spec"].get("nodeName", ""))

    def metrics(self, index: int = 0) -> str:
        """What its launcher serves."""
        address = self.kubectl.get("pod", self.pod(index))["status"]["podIP"]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}:{METRICS_PORT}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    # --- its files

    @property
    def folder(self) -> Path:
        """Its checkpoint directory."""
        return self.files / self.kubectl.namespace / self.name

    @property
    def starts(self) -> list[Start]:
        """Every start so far, in order."""
        paths = sorted(self.folder.glob("*/events.jsonl"), key=lambda path: int(path.parent.name))
        return [Start.of(events) for path in paths if (events := read_events(path))]

    @cached_property
    def interval(self) -> int:
        """Optimizer steps of an epoch, after each of which there is a checkpoint."""
        accelerator, training = self.spec["accelerator"], self.spec["training"]
        ranks = self.spec["nodes"] * accelerator.get("cardsPerNode", 1)
        return int(CLASSES * TRAIN // (ranks * training["batchSizePerDevice"]))

    def trains(self, attempt: int, seconds: float = SOON) -> Start:
        """Wait until that attempt has made a checkpoint, and a step after it."""

        def found() -> Start | None:
            for start in self.starts:
                if start.attempt == attempt and start.commits and start.reached > start.commits[-1]:
                    return start
            return None

        return self.until(lambda _: found(), f"attempt {attempt} does not train", seconds)

    def weights(self) -> dict[str, Tensor]:
        """The tensors of its newest checkpoint."""
        return load_file(self.checkpoint() / "tensors.safetensors")

    def checkpoint(self) -> Path:
        """Its newest one."""
        found = self.folder.glob("[0-9]*/step-*/MANIFEST.json")
        return max((path.parent for path in found), key=lambda path: int(path.name.partition("-")[2]))

    # --- what was promised

    def same_weights_as(self, other: Experiment) -> bool:
        """Whether both ended with the same numbers, bit by bit."""
        ours, theirs = self.weights(), other.weights()
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    def lost(self) -> list[int]:
        """Steps that each start but the first had to train again."""
        return [before.reached - after.resumed for before, after in pairwise(self.starts)]

    def succeeded(self, seconds: float = TRAINED, *, intervals: int = 1) -> Object:
        """Wait until it has, and check that it kept every promise.

        The training has all its steps, no start lost more than so many checkpoint intervals and what was trained while
        a checkpoint was written, and the exported network is as good as the status says.
        """
        status = self.phase("Succeeded", seconds)
        assert self.condition("Succeeded")[0] == "True"
        assert self.condition("Failed") == ("", "", "")
        last = status["history"][-1]
        steps = self.interval * self.spec["training"]["epochs"]
        assert (last["attempt"], last["step"], self.history()[-1]) == (status["attempt"], steps, ("Succeeded", False))
        assert status["restarts"] == sum(counted for _, counted in self.history())
        starts = self.starts
        assert starts[-1].reached == steps
        most = intervals * self.interval + max(start.lag for start in starts)
        assert all(0 <= lost <= most for lost in self.lost()), (self.lost(), starts)
        exported = self.condition("Exported")
        assert exported[0] == "True", exported
        model = self.files / Path(exported[2]).relative_to("/checkpoints")
        top1, judged = onnx_top1(model, self.images / "val")
        assert judged == CLASSES * VAL
        # One image that lies between two digits may fall the other way.
        assert abs(status["top1"] - top1) <= 1 / judged
        assert {"Succeeded", "Exported", "AttemptStarting"} <= self.told()
        print(self.account())
        return status

    def account(self) -> str:
        """What its faults have cost, in one line (pytest -rP shows it)."""
        starts = self.starts
        gaps = [
            f"{min(after.times.values()) - max(before.times.values()):.0f}"
            for before, after in pairwise(starts)
            if before.times and after.times
        ]
        ends = ", ".join(f"{reason}{' (counts)' if counted else ''}" for reason, counted in self.history())
        return f"{self.name}: {ends}; steps lost {self.lost()}; seconds from the last step to the next {gaps}"


@dataclass(frozen=True)
class Laboratory:
    """Where a test makes its experiments: `kubectl` is in its namespace, the folders lie behind its claims."""

    kubectl: Kubectl
    images: Path
    checkpoints: Path

    @classmethod
    def furnished(cls, kubectl: Kubectl, claim: Claim, few: Path) -> Laboratory:
        """One with new claims, and the folder of images `few` in one of them."""
        images, checkpoints = claim(IMAGES), claim(CHECKPOINTS)
        shutil.copytree(few, images, dirs_exist_ok=True)
        return cls(kubectl, images, checkpoints)

    def experiment(self, name: str, **changes: Any) -> Experiment:
        """Apply one, with changes of SPEC."""
        return Experiment(self.kubectl, name, self.checkpoints, self.images, merged(SPEC, changes)).apply()
