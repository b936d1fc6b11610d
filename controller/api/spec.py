"""`spec` of a ResNetExperiment."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from app.accelerators import DEVICE_TYPES
from app.config import MODELS, OPTIONS
from app.data.datasets import DATASETS
from controller.api.base import (
    EXTENDED_RESOURCE,
    IMAGE,
    LABEL_VALUE,
    Model,
    ObjectName,
    OneOf,
    Path,
)
from controller.api.pod import SECONDS, PodTemplate, Volume
from controller.api.training import Training, option_field, option_type
from controller.targets import DEFAULT, TARGETS

DEVICES_PER_CARD = {"sdaa": 4, "cuda": 1, "cpu": 1}
"""Devices of one card by accelerator type. A Teco card has 4 SPA, each one `sdaa:N` device (ModelZoo)."""
RESOURCE_NAMES = {"sdaa": "tecorigin.com/tcaicard", "cuda": "nvidia.com/gpu", "cpu": ""}
"""Extended resource that a pod asks for, by accelerator type; empty: none."""
RENDEZVOUS_SLACK = 300
"""Seconds that the launchers wait longer than startTimeoutSeconds, so that the controller decides first."""


def _of_type(table: dict[str, Any]) -> Any:
    def default(data: dict[str, Any]) -> Any:
        return table[data["type"]]

    return default


class Accelerator(Model):
    """What it runs on."""

    type: Annotated[str, OneOf(DEVICE_TYPES)] = Field(description="device family")
    cards_per_node: int = Field(default=1, ge=1, le=64, description="cards of each node")
    devices_per_card: int = Field(
        default_factory=_of_type(DEVICES_PER_CARD), ge=1, le=64,
        description="devices (ranks) of a card; absent: sdaa 4, cuda 1, cpu 1",
    )  # fmt: skip
    resource_name: str = Field(
        default_factory=_of_type(RESOURCE_NAMES), max_length=317, pattern=EXTENDED_RESOURCE,
        description="extended resource of the node; absent: tecorigin.com/tcaicard, nvidia.com/gpu, cpu none",
    )  # fmt: skip
    resource_unit: Annotated[str, OneOf(("device", "card"))] = Field(
        default="device", description="what one unit of the resource is"
    )

    @property
    def devices_per_node(self) -> int:
        """Ranks of one pod."""
        return self.cards_per_node * self.devices_per_card

    @property
    def resource_count(self) -> int:
        """Units of the extended resource that one pod asks for."""
        return self.cards_per_node if self.resource_unit == "card" else self.devices_per_node


class Dataset(Model):
    """What it is trained on."""

    name: Annotated[str, OneOf(tuple(DATASETS))] = Field(description="data set")
    path: Path | None = Field(
        default=None, description="folder that holds train/ and val/, where the volume is mounted; digits: not needed"
    )
    volume: Volume | None = Field(default=None, description="where the images lie; absent: in the image itself")


class Checkpoint(Model):
    """What is kept, and where."""

    volume: Volume | None = Field(default=None, description="where checkpoints lie; absent: lost with the pod")
    path: Path = Field(default="/checkpoints", description="where the volume is mounted")
    every_minutes: option_type("checkpoint_minutes") = option_field("checkpoint_minutes")  # type: ignore[valid-type]
    keep: option_type("keep") = option_field("keep")  # type: ignore[valid-type]
    adopt: option_type("adopt") = option_field("adopt")  # type: ignore[valid-type]


class FaultTolerance(Model):
    """How many faults are survived, and how long each of them is waited for."""

    max_restarts: int = Field(
        default=10, ge=0, le=1000, description="counted restarts since the last attempt that made progress"
    )
    stall_timeout_seconds: int = Field(
        default=900, ge=1, le=SECONDS, description="no step and no change of phase for so long: a new attempt"
    )
    node_grace_period_seconds: int = Field(
        default=60, ge=0, le=86_400, description="how long a node may be not ready before its pods are given up"
    )
    start_timeout_seconds: int = Field(
        default=1800, ge=1, le=int(OPTIONS["rendezvous_timeout"][0].high or SECONDS) - RENDEZVOUS_SLACK,
        description="from the first running pod to all of them",
    )  # fmt: skip


class Spec(Model):
    """One experiment: a network, a data set, devices, and what to do when something breaks."""

    model: Annotated[str, OneOf(MODELS)] = Field(description="network")
    accelerator: Accelerator = Field(description="what it runs on")
    nodes: int = Field(
        default=1, ge=1, le=int(OPTIONS["nnodes"][0].high or 1), description="nodes, one pod on each of them"
    )
    dataset: Dataset = Field(description="what it is trained on")
    training: Training = Field(description="how it is trained")
    checkpoint: Checkpoint = Field(default=Checkpoint(), description="what is kept, and where")
    target: Annotated[str, OneOf(tuple(TARGETS))] = Field(
        default=DEFAULT, description="kind of job that an attempt is, of training-operator v1 or Kubeflow Trainer v2"
    )
    fault_tolerance: FaultTolerance = Field(default=FaultTolerance(), description="what to do when something breaks")
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, le=SECONDS, description="from the first running pod on, restarts included; absent: none"
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, le=SECONDS, description="then job and pods are deleted; absent: they stay"
    )
    suspend: bool = Field(default=False, description="stop after a checkpoint, and go on when it is false again")
    queue_name: str | None = Field(
        default=None, min_length=1, max_length=63, pattern=LABEL_VALUE, description="Kueue's LocalQueue; absent: none"
    )
    priority_class_name: ObjectName | None = Field(default=None, description="PriorityClass of the pods")
    image: str | None = Field(
        default=None, max_length=512, pattern=IMAGE, description="training image; absent: the controller's own"
    )
    image_pull_policy: Annotated[str, OneOf(("Always", "IfNotPresent", "Never"))] = Field(
        default="IfNotPresent", description="when the image is pulled"
    )
    pod_template: PodTemplate = Field(default=PodTemplate(), description="what may be set of the pods")

    @property
    def devices_per_node(self) -> int:
        """Ranks of one pod."""
        return self.accelerator.devices_per_node

    @property
    def world_size(self) -> int:
        """Ranks of the whole gang."""
        return self.nodes * self.devices_per_node

    @property
    def global_batch(self) -> int:
        """Images per optimizer step, over all ranks and accumulated batches."""
        return self.world_size * int(self.training.batch_size) * int(self.training.accumulate)

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: the one given, else global batch / 1000 (all commands of the seed follow that)."""
        given = self.training.learning_rate
        return self.global_batch / 1000 if given is None else float(given)
