"""Every metric that the programs show, found by scraping them with made-up values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from prometheus_client import CollectorRegistry, disable_created_metrics, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.config import TrainConfig
from app.resilience.heartbeat import Beat
from app.telemetry.identity import Identity
from app.telemetry.metrics import registry as training_registry
from controller.api import API_VERSION, KIND, Experiment, Status
from controller.metrics import Metrics
from deviceplugin.devices import Device
from deviceplugin.metrics import Metrics as DevicePluginMetrics

_NAMESPACE, _NAME = "team", "resnet50"
_TIME = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is asked for; of a histogram, without _bucket, _sum and _count.
        kind: gauge, counter or histogram.
        help: one line.
        labels: in the order in which they are shown; le left out.
        names: of its series.
        series: how many label sets the made-up values gave.
    """

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]
    names: frozenset[str]
    series: int


@dataclass(frozen=True)
class Program:
    """What one program shows.

    Attributes:
        title: of its part of docs/metrics.md.
        where: which pods, which port.
        text: of its /metrics.
    """

    title: str
    where: str
    text: str

    @property
    def metrics(self) -> list[Metric]:
        """In the order in which they are shown."""
        found = []
        for family in text_string_to_metric_families(self.text):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
            names = frozenset(sample.name for sample in family.samples)
            found.append(Metric(name, family.type, family.documentation, tuple(labels), names, len(family.samples)))
        return found


@cache
def programs() -> Sequence[Program]:
    """The training, the operator and the device plugin."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as they do
    return (
        Program("Training", "Each pod of an experiment, port `metrics` (9401).", _text(_training())),
        Program("Operator", "Each replica, port `metrics` (8080).", _text(_operator())),
        Program("Device plugin", "Each node with cards, port `metrics` (9403).", _text(_device_plugin())),
    )


@cache
def known_names() -> frozenset[str]:
    """Of every series."""
    return frozenset(name for program in programs() for metric in program.metrics for name in metric.names)


def _text(registry: CollectorRegistry) -> str:
    return generate_latest(registry).decode()


def _training() -> CollectorRegistry:
    """The pod of node 0, with a single rank, in which everything has a value."""
    beat = Beat(
        steps=1, first_step_at=1.0, updated_at=1.0, slowdown_ratio=1.0, loss=1.0, learning_rate=1.0, gradient_scale=1.0,
        images_per_second=1.0, eta_seconds=1.0, top1=1.0, top5=1.0, validation_loss=1.0, checkpoint_step=1,
        checkpoint_time=1.0, checkpoint_seconds=1.0,
    )  # fmt: skip
    return training_registry(Identity(_NAMESPACE, _NAME), TrainConfig(), lambda: {0: beat})


def _operator() -> CollectorRegistry:
    """With a single experiment, whose status has all that is shown."""
    metadata = {"namespace": _NAMESPACE, "name": _NAME}
    started = {"attempt": 1, "attemptStartTime": _TIME, "startTime": _TIME}
    status = {"phase": "Queued", "devices": "1x1 cpu", **started}
    document = {"metadata": metadata, "spec": {"activeDeadlineSeconds": 60}, "status": status}
    metrics = Metrics(lambda: [document], lambda: 0)
    begun = {"phase": "Running", "trainingPhase": "train", "lastProgressTime": _TIME, **started}
    spec = {
        "model": "resnet18",
        "accelerator": {"type": "cpu"},
        "dataset": {"name": "digits"},
        "training": {"epochs": 1, "batchSizePerDevice": 1},
    }
    content = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec, "status": begun}
    metrics.wrote(Experiment.model_validate(content), Status())
    return metrics.registry


def _device_plugin() -> CollectorRegistry:
    """On a node with a single device."""
    device = Device(number=0, name="tcaicard0", card="card0", bus="", trouble="")
    metrics = DevicePluginMetrics("tecorigin.com/tcaicard", lambda: [device], lambda: True)
    metrics.allocated(True)
    return metrics.registry
