"""Whose run this is, from the environment that the pod template sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.config import ConfigError


@dataclass(frozen=True)
class Identity:
    """Names of the run. Typed by hand, all are empty and the attempt is 0.

    Attributes:
        namespace, experiment, uid: of the ResNetExperiment.
        attempt: from 1.
        pod: name of this pod.
    """

    namespace: str = ""
    experiment: str = ""
    uid: str = ""
    attempt: int = 0
    pod: str = ""


def from_environment(environ: Mapping[str, str]) -> Identity:
    """The identity of this process.

    Raises:
        ConfigError: RESNET_ATTEMPT is no whole number.
    """
    attempt = environ.get("RESNET_ATTEMPT") or "0"
    if not (attempt.isascii() and attempt.isdigit()):
        raise ConfigError("RESNET_ATTEMPT", f"must be a whole number, not {attempt!r}")
    return Identity(
        namespace=environ.get("RESNET_NAMESPACE", ""),
        experiment=environ.get("RESNET_EXPERIMENT", ""),
        uid=environ.get("RESNET_EXPERIMENT_UID", ""),
        attempt=int(attempt),
        pod=environ.get("RESNET_POD", ""),
    )
