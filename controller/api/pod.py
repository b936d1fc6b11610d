"""What of a pod a user may set: a positive list. Everything else of the pod is the template's."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from app.config import OPTIONS
from controller.api.base import (
    DNS_SUBDOMAIN,
    ENV_NAME,
    NO_NUL,
    LabelKey,
    LabelValue,
    Model,
    ObjectName,
    OneOf,
    Quantity,
)

SECONDS = 31_536_000
"""Upper bound of durations in seconds: one year."""

RESERVED_ENV = frozenset(
    {"HOME", "TMPDIR", "MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
)
"""Variables of the template and of the launcher, besides those with one of RESERVED_PREFIXES."""
RESERVED_PREFIXES = ("RESNET_", "PET_")


class PersistentVolumeClaim(Model):
    """A claim in the experiment's namespace."""

    claim_name: ObjectName = Field(description="name of the PersistentVolumeClaim")
    read_only: bool = Field(default=False, description="mount it read-only")


class EmptyDir(Model):
    """A directory that lives as long as the pod."""

    size_limit: Quantity | None = Field(default=None, description="the pod is evicted when it holds more")


class Volume(Model):
    """Where files lie: exactly one of a claim and an emptyDir."""

    persistent_volume_claim: PersistentVolumeClaim | None = Field(default=None, description="a claim")
    empty_dir: EmptyDir | None = Field(default=None, description="a directory that is lost with the pod")

    @model_validator(mode="after")
    def _exactly_one(self) -> Volume:
        if (self.persistent_volume_claim is None) == (self.empty_dir is None):
            raise ValueError("needs exactly one of persistentVolumeClaim and emptyDir")
        return self


class Resources(Model):
    """Requests and limits of the training container, devices left out: the accelerator says those."""

    requests: dict[LabelKey, Quantity] = Field(default={}, max_length=16, description="what the pod is promised")
    limits: dict[LabelKey, Quantity] = Field(default={}, max_length=16, description="what the pod may not exceed")


class Toleration(Model):
    """A taint that the pods tolerate, as in a pod's spec."""

    key: LabelKey | None = Field(default=None, description="the taint's key; absent with Exists: every taint")
    operator: Annotated[str, OneOf(("Exists", "Equal"))] = Field(default="Equal", description="how value is compared")
    value: LabelValue | None = Field(default=None, description="the taint's value")
    effect: Annotated[str, OneOf(("NoSchedule", "PreferNoSchedule", "NoExecute"))] | None = Field(
        default=None, description="the taint's effect; absent: all"
    )
    toleration_seconds: int | None = Field(
        default=None, ge=0, le=SECONDS, description="how long a NoExecute taint is tolerated; absent: for ever"
    )

    @model_validator(mode="after")
    def _as_kubernetes_wants(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("has operator Exists, which takes no value")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("needs a key with operator Equal")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("has tolerationSeconds, which needs effect NoExecute")
        return self


class Ports(Model):
    """Ports of a training pod; to be changed where hostNetwork meets another job on the same node."""

    master: int = Field(default=23456, ge=1024, le=65_535, description="rendezvous of the ranks, on node 0")
    metrics: int = Field(default=9401, ge=1024, le=65_535, description="/metrics, /progress and /healthz")
    gang: int = Field(default=9402, ge=1024, le=65_535, description="heartbeat of the launchers, on node 0")

    @model_validator(mode="after")
    def _distinct(self) -> Ports:
        if len({self.master, self.metrics, self.gang}) < 3:
            raise ValueError("needs three different ports for master, metrics and gang")
        return self


class EnvVar(Model):
    """One environment variable of the training container."""

    name: str = Field(max_length=253, pattern=ENV_NAME, description="its name")
    value: str = Field(default="", max_length=32_768, pattern=NO_NUL, description="its value; $(NAME) is not expanded")

    @model_validator(mode="after")
    def _not_ours(self) -> EnvVar:
        if self.name in RESERVED_ENV or self.name.startswith(RESERVED_PREFIXES):
            raise ValueError(f"sets {self.name}, which the pod template sets itself: leave it out")
        return self


class LocalObjectReference(Model):
    """The name of an object in the experiment's namespace."""

    name: str = Field(max_length=253, pattern=DNS_SUBDOMAIN, description="its name")


class SecurityContext(Model):
    """Identities of the pod. The rest of its security context is fixed: PodSecurity "restricted"."""

    run_as_user: int = Field(default=1000, ge=1, le=2**31 - 1, description="numeric user, never root")
    run_as_group: int = Field(default=1000, ge=1, le=2**31 - 1, description="numeric group")
    fs_group: int = Field(default=1000, ge=1, le=2**31 - 1, description="group that owns the volumes")
    supplemental_groups: list[Annotated[int, Field(ge=1, le=2**31 - 1)]] = Field(
        default=[], max_length=16, description="further groups, where a device file needs one"
    )


class PodTemplate(Model):
    """What a user may set of the training pods."""

    resources: Resources = Field(default=Resources(), description="CPU and memory of the training container")
    node_selector: dict[LabelKey, LabelValue] = Field(
        default={}, max_length=32, description="labels of the nodes that may be used"
    )
    tolerations: list[Toleration] = Field(default=[], max_length=32, description="taints that are tolerated")
    shared_memory: Quantity = Field(
        default="8Gi", description="size of /dev/shm, where loader workers hand over batches; counts as memory"
    )
    host_network: bool = Field(default=False, description="use the node's network")
    host_ipc: bool = Field(default=False, description="use the node's IPC namespace")
    ports: Ports = Field(default=Ports(), description="ports of a training pod")
    env: list[EnvVar] = Field(default=[], max_length=128, description="further environment variables")
    image_pull_secrets: list[LocalObjectReference] = Field(
        default=[], max_length=16, description="secrets for pulling the image"
    )
    security_context: SecurityContext = Field(default=SecurityContext(), description="identities of the pod")
    termination_grace_period_seconds: int = Field(
        default=120,
        ge=int(OPTIONS["grace_seconds"][0].low or 1),
        le=int(OPTIONS["grace_seconds"][0].high or SECONDS),
        description="seconds from SIGTERM to SIGKILL: a checkpoint must fit",
    )

    @model_validator(mode="after")
    def _env_once(self) -> PodTemplate:
        names = [e.name for e in self.env]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise ValueError(f"env sets {twice[0]} more than once")
        return self
