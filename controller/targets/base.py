"""A kind of job that an attempt can be: all that the rest of the controller knows of it. PURE.

Its template writes the job, its adapter reads it. Whoever runs such jobs makes the pods, and from there on all kinds
are alike: what was promised of an attempt (docs/architecture.md) is read from pods alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.api import Spec

Document = Mapping[str, Any]


class Target(ABC):
    """One kind of job.

    Attributes:
        kind, group, version, plural: its names in the API.
        template: the file in manifests/templates that renders it.
        container: the training container's name.
        index_label: the pods' label that holds their node rank.
        operator: who makes its pods, in a message.
        missing: the reason and the line that are told where the cluster does not have this kind.
    """

    kind: str
    group: str
    version: str
    plural: str
    template: str
    container: str
    index_label: str
    operator: str
    missing: tuple[str, str]

    @abstractmethod
    def suspended(self, job: Document) -> bool:
        """Whether it is held back: by Kueue, where the experiment has a queue."""

    @abstractmethod
    def picked_up(self, job: Document) -> bool:
        """Whether its operator has written into its status."""

    @abstractmethod
    def trimmed(self, job: Document) -> dict[str, Any]:
        """`spec` and `status` with what `suspended` and `picked_up` read of them."""

    @abstractmethod
    def pod_names(self, job: str, nodes: int) -> list[str] | None:
        """The names of a job's pods, in the order of their index; None: its operator makes them up."""

    @abstractmethod
    def makers(self, job: str) -> list[tuple[str, str]]:
        """Kind and name of each object whose Events tell why the job of that name has no pods; the job comes first."""

    def cannot(self, spec: Spec) -> list[tuple[str, str]]:  # noqa: ARG002
        """What of a spec this kind has no place for: the field's path and the problem, of each."""
        return []
