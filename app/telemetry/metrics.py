"""The training's metrics: one table, and the collector that fills it from the ranks' heartbeats.

Names follow the Prometheus naming rules: base units, `_total` for counters, ratios from 0 to 1, the time of an event
rather than its age. A value that does not exist yet is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from app.config import TrainConfig
from app.resilience.heartbeat import STEP_SECONDS_BUCKETS, Beat, Phase, phase_name
from app.telemetry.identity import Identity

Beats = Mapping[int, "Beat | None"]
"""Global rank -> its last beat, for the ranks of this node."""


@dataclass(frozen=True)
class Series:
    """One metric.

    Attributes:
        name: as Prometheus shows it.
        kind: its type.
        help: one line.
        source: the field of `Beat` it comes from, or the name of a rule of this module (`RULES`, `OF_THE_RUN`), or
            "config" for what `info` tells of the run.
        labels: besides namespace and experiment. "rank": every pod shows its own ranks; without it only node 0 does.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram", "info"]
    help: str
    source: str
    labels: tuple[str, ...] = ()


SERIES: tuple[Series, ...] = (
    Series(
        "resnet_training_info", "info", "What is trained, for joins; always 1.", "config",
        ("model", "dataset", "device"),
    ),
    Series("resnet_training_world_size", "gauge", "Ranks of the whole gang.", "world_size"),
    Series("resnet_training_epoch", "gauge", "Epoch in progress, from 1; 0 before training.", "epoch"),
    Series("resnet_training_epochs", "gauge", "Epochs of the whole run.", "epochs"),
    Series("resnet_training_steps_total", "counter", "Optimizer steps done, resumed ones included.", "step"),
    Series("resnet_training_planned_steps", "gauge", "Optimizer steps of the whole run.", "steps"),
    Series("resnet_training_images_total", "counter", "Training images seen by the whole gang.", "images"),
    Series("resnet_training_loss", "gauge", "Training loss of rank 0 at the last log interval.", "loss"),
    Series("resnet_training_learning_rate", "gauge", "Learning rate of the epoch in progress.", "learning_rate"),
    Series("resnet_training_gradient_scale", "gauge", "Loss scale of mixed precision.", "gradient_scale"),
    Series("resnet_training_images_per_second", "gauge", "Images per second of the whole gang.", "images_per_second"),
    Series("resnet_training_eta_seconds", "gauge", "Seconds left until the run is done.", "eta_seconds"),
    Series("resnet_training_step_seconds", "histogram", "Time of a training step.", "step_seconds_buckets"),
    Series(
        "resnet_training_data_wait_seconds_total", "counter", "Seconds that rank 0 waited for images.",
        "data_wait_seconds",
    ),
    Series(
        "resnet_training_rank_busy_seconds_total", "counter",
        "Seconds a rank computed, waits for data and peers left out: only this shows a straggler.", "busy_seconds",
        ("rank",),
    ),
    Series(
        "resnet_training_rank_slowdown_ratio", "gauge",
        "Time a rank computes for a step over the median of the other ranks'; 1.25 for long is a straggler.",
        "slowdown_ratio", ("rank",),
    ),
    Series(
        "resnet_training_nonfinite_steps_total", "counter",
        "Optimizer steps whose loss was not finite, on the rank that had the most.", "nonfinite_steps",
    ),
    Series(
        "resnet_training_bad_images_total", "counter",
        "Training files that could not be decoded, each counted once over all ranks and epochs.", "bad_images",
    ),
    Series("resnet_training_phase", "gauge", "1 for the phase the training is in, else 0.", "phase", ("phase",)),
    Series(
        "resnet_training_last_progress_timestamp_seconds", "gauge", "When step or phase last changed.", "last_progress"
    ),
    Series(
        "resnet_training_first_step_timestamp_seconds", "gauge", "When this attempt had done its first step.",
        "first_step_at",
    ),
    Series("resnet_validation_top1_ratio", "gauge", "Top-1 accuracy of the last validation.", "top1"),
    Series("resnet_validation_top5_ratio", "gauge", "Top-5 accuracy of the last validation.", "top5"),
    Series("resnet_validation_loss", "gauge", "Loss of the last validation.", "validation_loss"),
    Series(
        "resnet_checkpoint_interval_seconds", "gauge", "At most so long between two checkpoints, as asked for.",
        "checkpoint_interval",
    ),
    Series(
        "resnet_checkpoint_last_success_timestamp_seconds", "gauge", "When the newest checkpoint was committed.",
        "checkpoint_time",
    ),
    Series("resnet_checkpoint_write_seconds", "gauge", "Time to write the newest checkpoint.", "checkpoint_seconds"),
    Series("resnet_checkpoint_bytes", "gauge", "Size of the newest checkpoint.", "checkpoint_size"),
    Series("resnet_checkpoint_failures_total", "counter", "Checkpoints that failed.", "checkpoint_failures"),
    Series(
        "resnet_accelerator_memory_bytes", "gauge", "Memory that a rank holds on its device.", "memory_bytes", ("rank",)
    ),
)  # fmt: skip
"""Every metric of the training, in the order in which it is shown."""


def _last_progress(beat: Beat) -> float:
    # The rank tells both clocks at each beat, which turns its monotonic time into a date.
    return beat.updated_at - (beat.beat_at - beat.moved_at) if beat.updated_at else math.nan


def _checkpoint_size(beat: Beat) -> float:
    return beat.checkpoint_bytes if beat.checkpoint_step >= 0 else math.nan


RULES: dict[str, Callable[[Beat], float]] = {
    "last_progress": _last_progress,
    "checkpoint_size": _checkpoint_size,
}
"""Sources that are computed from several fields of a beat; NaN means "none yet"."""

OF_THE_RUN: dict[str, Callable[[TrainConfig], float]] = {
    "world_size": lambda config: float(config.world_size),
    "checkpoint_interval": lambda config: 60 * config.checkpoint_minutes,
}
"""Sources that are options of the run."""

CONTINUED = frozenset(
    {"step", "steps", "images", "nonfinite_steps", "bad_images", "checkpoint_failures", "data_wait_seconds"}
)
"""Sources that go on over a resume. Until a checkpoint is loaded, or it is known that there is none, they do not exist:
what went from 0 to where the run was would be an increase."""


class TrainingCollector(Collector):
    """Reads the heartbeats at every scrape, so that it answers while ranks hang or are gone."""

    def __init__(self, identity: Identity, config: TrainConfig, beats: Callable[[], Beats]) -> None:
        self._identity = identity
        self._config = config
        self._beats = beats

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """One family per row of `SERIES`."""
        beats = {rank: beat or Beat() for rank, beat in sorted(self._beats().items())}
        for series in SERIES:
            ranks = beats if "rank" in series.labels else {0: beats[0]} if 0 in beats else {}
            family = self._family(series, ranks)
            if family.samples:
                yield family

    def _family(self, series: Series, ranks: Mapping[int, Beat]) -> Metric:
        names = ["namespace", "experiment", *series.labels]
        common = [self._identity.namespace, self._identity.experiment]
        config = self._config
        if series.kind == "info":
            info = InfoMetricFamily(series.name.removesuffix("_info"), series.help, labels=names[:2])
            facts = {"model": config.model, "dataset": config.dataset, "device": config.device}
            for _ in ranks:
                info.add_metric(common, {name: facts[name] for name in series.labels})
            return info
        if series.kind == "histogram":
            histogram = HistogramMetricFamily(series.name, series.help, labels=names)
            for beat in ranks.values():
                bounds = [*(str(bound) for bound in STEP_SECONDS_BUCKETS), "+Inf"]
                counts = accumulate(beat.step_seconds_buckets)
                histogram.add_metric(common, list(zip(bounds, counts, strict=True)), beat.step_seconds_sum)
            return histogram
        kind = CounterMetricFamily if series.kind == "counter" else GaugeMetricFamily
        family = kind(series.name, series.help, labels=names)
        for rank, beat in ranks.items():
            if series.labels == ("phase",):
                for phase in Phase:
                    family.add_metric([*common, phase_name(phase)], float(beat.phase == phase))
                continue
            value = OF_THE_RUN[series.source](config) if series.source in OF_THE_RUN else _value(series, beat)
            if not math.isnan(value):
                family.add_metric([*common, str(rank)] if series.labels else common, value)
        return family


def _value(series: Series, beat: Beat) -> float:
    if series.source in CONTINUED and not beat.steps:
        return math.nan
    rule = RULES.get(series.source)
    return rule(beat) if rule else float(getattr(beat, series.source))


def registry(identity: Identity, config: TrainConfig, beats: Callable[[], Beats]) -> CollectorRegistry:
    """A registry that holds the training's metrics and nothing of this process."""
    result = CollectorRegistry()
    result.register(TrainingCollector(identity, config, beats))
    return result
