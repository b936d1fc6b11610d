"""The kinds of jobs that an attempt can be, by the name that `spec.target` has for them."""

from __future__ import annotations

from controller.targets.base import Target
from controller.targets.pytorchjob import PyTorchJob
from controller.targets.trainjob import TrainJob

__all__ = ["CONTAINERS", "DEFAULT", "INDEX_LABELS", "TARGETS", "Target"]

TARGETS: dict[str, Target] = {target.kind: target for target in (PyTorchJob(), TrainJob())}
"""Value of spec.target -> the kind."""
DEFAULT = PyTorchJob.kind
CONTAINERS = frozenset(target.container for target in TARGETS.values())
"""Names of training containers: a pod has one of them."""
INDEX_LABELS = tuple(target.index_label for target in TARGETS.values())
"""Labels that hold a pod's node rank: a pod has one of them."""
