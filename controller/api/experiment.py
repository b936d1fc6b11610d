"""ResNetExperiment itself, and the training configuration that it means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from app.config import OPTIONS, TrainConfig
from app.data.datasets import DATASETS
from controller.api.base import DNS_LABEL, NAME, LabelKey, LabelValue, Model
from controller.api.spec import RENDEZVOUS_SLACK, Spec
from controller.api.status import Status, Time
from controller.api.training import SPEC_OPTIONS
from controller.targets import TARGETS

DIGITS_PATH = "/datasets/digits"
"""Where the embedded digits are written when the spec names no path."""
POD_PATHS = ("/tmp", "/dev/shm", "/home/resnet")  # noqa: S108
"""Where the pod has its own directories, besides its root."""


class Metadata(Model):
    """What of an object's metadata the controller reads."""

    name: str = Field(max_length=40, pattern=NAME, description="name; job, pod and service names are built on it")
    namespace: str = Field(default="default", max_length=63, pattern=DNS_LABEL, description="namespace")
    uid: str | None = Field(default=None, max_length=64, description="given by the API server")
    generation: int | None = Field(default=None, ge=0, le=2**53, description="counts changes of the spec")
    resource_version: str | None = Field(default=None, max_length=64, description="for preconditions of writes")
    creation_timestamp: Time | None = Field(default=None, description="given by the API server")
    labels: dict[LabelKey, LabelValue] = Field(default={}, max_length=64, description="labels")
    annotations: dict[LabelKey, Annotated[str, Field(max_length=262_144)]] = Field(
        default={}, max_length=64, description="annotations"
    )


class Experiment(Model):
    """One training of a ResNet, kept alive through faults. Its progress is in status, and in `kubectl get rnx`."""

    api_version: Literal["resnet-operator.io/v1alpha1"] = Field(description="resnet-operator.io/v1alpha1")
    kind: Literal["ResNetExperiment"] = Field(description="ResNetExperiment")
    metadata: Metadata = Field(description="name and namespace")
    spec: Spec = Field(description="what is wanted")
    status: Status = Field(default=Status(), description="what is")


def dataset_path(spec: Spec) -> str:
    """Where the images lie in a pod; empty where the data set needs none."""
    return spec.dataset.path or (DIGITS_PATH if spec.dataset.name == "digits" else "")


def train_config(experiment: Experiment) -> TrainConfig:
    """The training that an experiment means, as one pod is told it.

    Node rank, rendezvous address and ports are left out: they come from the pod's environment.
    """
    spec = experiment.spec
    checkpoints = f"{spec.checkpoint.path.rstrip('/')}/{experiment.metadata.namespace}/{experiment.metadata.name}"
    values: dict[str, Any] = {name: getattr(spec.training, name) for name in SPEC_OPTIONS}
    values["learning_rate"] = spec.learning_rate
    if values["profiler"]:  # the pod's root is read-only: the default ./profiler can't be written
        values["profiler_dir"] = f"{checkpoints}/profiler"
    return TrainConfig(
        **values,
        model=spec.model,
        dataset=spec.dataset.name,
        dataset_path=dataset_path(spec),
        device=spec.accelerator.type,
        nproc_per_node=spec.devices_per_node,
        nnodes=spec.nodes,
        checkpoint_dir=checkpoints,
        checkpoint_minutes=spec.checkpoint.every_minutes,
        keep=spec.checkpoint.keep,
        adopt=spec.checkpoint.adopt,
        grace_seconds=float(spec.pod_template.termination_grace_period_seconds),
        rendezvous_timeout=float(spec.fault_tolerance.start_timeout_seconds + RENDEZVOUS_SLACK),
    )


PATHS = {
    **{name: f"spec.training.{alias}" for name, alias in SPEC_OPTIONS.items()},
    "model": "spec.model",
    "dataset": "spec.dataset.name",
    "dataset_path": "spec.dataset.path",
    "device": "spec.accelerator.type",
    "nproc_per_node": "spec.accelerator.cardsPerNode",
    "nnodes": "spec.nodes",
    "checkpoint_dir": "spec.checkpoint.path",
    "checkpoint_minutes": "spec.checkpoint.everyMinutes",
    "keep": "spec.checkpoint.keep",
    "adopt": "spec.checkpoint.adopt",
    "grace_seconds": "spec.podTemplate.terminationGracePeriodSeconds",
    "rendezvous_timeout": "spec.faultTolerance.startTimeoutSeconds",
}
"""TrainConfig field -> the field of an experiment that sets it."""


def _parts(path: str) -> list[str]:
    """The folders of a path, so that slashes too many make no difference."""
    return [part for part in path.split("/") if part]


def rules(experiment: Experiment) -> list[tuple[str, str]]:
    """What two fields say together and must not: (path, problem) of each. What flags alone show is app.config's."""
    spec = experiment.spec
    found = []
    most = OPTIONS["nproc_per_node"][0].high or 1
    if spec.devices_per_node > most:
        found.append(
            ("spec.accelerator", f"asks for {spec.devices_per_node} devices per node: at most {most:.0f} are started")
        )
    name = spec.dataset.name
    if DATASETS[name].needs_path and spec.dataset.path is None:
        found.append(("spec.dataset.path", f"is required with {name}: the folder with train/ and val/"))
    elif name == "synthetic" and (spec.dataset.path or spec.dataset.volume):
        found.append(("spec.dataset", f"needs no path and no volume with {name}: leave them out"))
    mounts = [("spec.dataset.path", dataset_path(spec)), ("spec.checkpoint.path", spec.checkpoint.path)]
    for path, value in mounts:
        if value and (_parts(value) in [[], *map(_parts, POD_PATHS)] or ".." in value.split("/")):
            found.append((path, f"can't be {value}: the pod has its own directory there"))
    if _parts(dataset_path(spec)) == _parts(spec.checkpoint.path):
        found.append(("spec.checkpoint.path", f"is {spec.checkpoint.path}, where the data set lies: name another"))
    weights = spec.training.pretrained
    if weights and not weights.startswith("/"):
        found.append(("spec.training.pretrained", f"is {weights}: must be the whole path inside the pod, /…"))
    claim = spec.checkpoint.volume and spec.checkpoint.volume.persistent_volume_claim
    if claim and claim.read_only:
        found.append(
            ("spec.checkpoint.volume.persistentVolumeClaim.readOnly", "must be false: checkpoints are written")
        )
    if spec.accelerator.resource_name and spec.accelerator.resource_name in {
        *spec.pod_template.resources.requests, *spec.pod_template.resources.limits
    }:  # fmt: skip
        found.append(
            ("spec.podTemplate.resources", f"names {spec.accelerator.resource_name}, which spec.accelerator counts")
        )
    return [*found, *TARGETS[spec.target].cannot(spec)]
