"""PURE: the recording rules. Dashboards and alerts read the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from observability.pace import DAY, MINUTE, Pace

BY = "by (namespace, experiment)"
ON = "on (namespace, experiment)"
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
"""Where nothing was observed a quantile is NaN, which a graph can't show: `>= 0` leaves it out."""


@dataclass(frozen=True)
class Recording:
    """One recording rule.

    Attributes:
        name: level:metric:operation, as Prometheus recommends; the level says which labels are left.
        help: one line for docs/metrics.md.
        expression: PromQL.
        labels: added to what is recorded.
    """

    name: str
    help: str
    expression: str
    labels: Mapping[str, str] = field(default_factory=dict)


def of_training(pace: Pace) -> list[Recording]:
    """What is recorded of each experiment, from its training's own metrics.

    For some minutes after a restart two pods have samples in the window, the older one up to where the newer begins:
    rates of both add up to the gang's.
    """
    window = pace(5 * MINUTE)
    steps = f"sum {BY} (rate(resnet_training_step_seconds_sum[{window}])) > 0"
    busy = f"sum by (namespace, experiment, rank) (rate(resnet_training_rank_busy_seconds_total[{window}]))"
    share, speed = "experiment:resnet_training_step_share:ratio", "experiment:resnet_training_device_speed"
    loss = "experiment:resnet_training_loss:avg"
    return [
        Recording(
            "experiment:resnet_training_images:rate", "Images per second of the whole gang, pauses included.",
            f"sum {BY} (rate(resnet_training_images_total[{window}]))",
        ),
        *(
            Recording(
                f"experiment:resnet_training_step_seconds:{name}", f"Step time: {quantile:g} quantile.",
                f"histogram_quantile({quantile}, sum by (namespace, experiment, le) "
                f"(rate(resnet_training_step_seconds_bucket[{window}]))) >= 0",
            )
            for name, quantile in QUANTILES.items()
        ),
        Recording(
            share, "Share of rank 0's step time in which it waited for images.",
            f"sum {BY} (rate(resnet_training_data_wait_seconds_total[{window}])) / ({steps})", {"part": "data"},
        ),
        Recording(
            share, "Share of rank 0's step time in which it computed, forward and backward.",
            f'sum {BY} (rate(resnet_training_rank_busy_seconds_total{{rank="0"}}[{window}])) / ({steps})',
            {"part": "busy"},
        ),
        Recording(
            share, "The rest of rank 0's step time: the exchange of gradients, waits for peers, the update.",
            f'clamp_min(1 - sum {BY} ({share}{{part=~"data|busy"}}), 0)', {"part": "communication"},
        ),
        Recording(
            "rank:resnet_training_rank_excess:ratio",
            "Share of the time that a rank computes while the fastest of the gang has already done so and waits.",
            f"{busy} - {ON} group_left () min {BY} ({busy})",
        ),
        Recording(
            f"{speed}:avg", "Images per second and device between log lines, pauses left out.",
            f'count_values {BY} ("world_size", resnet_training_world_size) * {ON} group_left () max {BY} '
            f"(avg_over_time(resnet_training_images_per_second[{window}]) / resnet_training_world_size)",
        ),
        Recording(
            "experiment:resnet_training_efficiency:ratio",
            "Speed of a device over the best of the last day in a gang of the same size.",
            f"{speed}:avg / max_over_time({speed}:avg[{pace(DAY)}])",
        ),
        Recording(
            loss, "Training loss, smoothed.",
            f"max {BY} (avg_over_time(resnet_training_loss[{pace(10 * MINUTE)}]))",
        ),
        Recording(
            "experiment:resnet_training_loss:best", "Lowest smoothed training loss of the last day.",
            f"min_over_time({loss}[{pace(DAY)}]) and {loss}",
        ),
        Recording(
            "experiment:resnet_training_loss:trend", "Change of the smoothed training loss per hour.",
            f"3600 * deriv({loss}[{pace(30 * MINUTE)}]) and {loss}",
        ),
        Recording(
            "experiment:resnet_training_progress:ratio", "Optimizer steps done over all that are planned.",
            f"max {BY} (resnet_training_steps_total / resnet_training_planned_steps)",
        ),
        Recording(
            "experiment:resnet_training_bad_images:count", "Files that could not be decoded, in all attempts so far.",
            f"max {BY} (resnet_training_bad_images_total)",
        ),
        Recording(
            "experiment:resnet_checkpoint_age:seconds",
            "Seconds of training that a crash would cost: since the newest checkpoint, or since the first step.",
            f"time() - ({_later('resnet_checkpoint_last_success_timestamp_seconds')})",
        ),
    ]  # fmt: skip


def of_operator(pace: Pace) -> list[Recording]:
    """What is recorded of the operators, one for each namespace that has one."""
    window = pace(5 * MINUTE)
    looks = f"sum by (namespace) (rate(resnet_operator_reconcile_seconds_count[{window}]))"
    return [
        Recording("operator:resnet_operator_reconcile:rate", "Looks at experiments per second.", looks),
        *(
            Recording(
                f"operator:resnet_operator_reconcile_seconds:{name}", f"Time of a look: {quantile:g} quantile.",
                f"histogram_quantile({quantile}, sum by (namespace, le) "
                f"(rate(resnet_operator_reconcile_seconds_bucket[{window}]))) >= 0",
            )
            for name, quantile in QUANTILES.items()
        ),
        Recording(
            "operator:resnet_operator_reconcile_errors:ratio", "Share of the looks that failed.",
            f"sum by (namespace) (rate(resnet_operator_reconcile_errors_total[{window}])) / ({looks} > 0)",
        ),
    ]  # fmt: skip


def _later(metric: str) -> str:
    """The time of an event, or of this attempt's first step where that was later or the event has not been yet."""
    event, first = f"max {BY} ({metric})", f"max {BY} (resnet_training_first_step_timestamp_seconds)"
    return f"({event} > {first}) or {first}"
