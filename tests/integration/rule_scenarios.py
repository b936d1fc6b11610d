"""Made-up series for the alerts: for each one at least a scenario in which it fires and one in which it must not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

INTERVAL = 30
EXPERIMENT = {"namespace": "team", "experiment": "resnet50"}
POD = {**EXPERIMENT, "pod": "resnet50-1-worker-0"}
NEXT_POD = {**EXPERIMENT, "pod": "resnet50-2-worker-0"}
OPERATOR = {"namespace": "resnet-operator", "pod": "a"}
STANDBY = {"namespace": "resnet-operator", "pod": "b"}


def series(metric: str, labels: Mapping[str, str] = POD, **more: str) -> str:
    """A series as PromQL writes it."""
    matchers = ",".join(f'{name}="{value}"' for name, value in {**labels, **more}.items())
    return f"{metric}{{{matchers}}}"


@dataclass(frozen=True)
class Scenario:
    """Series of one sample each 30 s, and what of an alert is to be seen then.

    Attributes:
        alert: its name.
        what: the scenario in words.
        minute: when to look.
        input: series -> samples, as promtool writes them.
        fires: the labels of what fires, besides the severity; empty: nothing may.
    """

    alert: str
    what: str
    minute: float
    input: Mapping[str, str]
    fires: tuple[Mapping[str, str], ...] = field(default=())


TRAINS = {series("resnet_training_phase", phase="train"): "1x300"}
VALIDATES = {series("resnet_training_phase", phase="train"): "0x300"}
PROGRESS, FIRST = "resnet_training_last_progress_timestamp_seconds", "resnet_training_first_step_timestamp_seconds"
SAVED = "resnet_checkpoint_last_success_timestamp_seconds"
EVERY_10_MINUTES = {series("resnet_checkpoint_interval_seconds"): "600x300"}
PHASE, DEADLINE = "resnet_experiment_status_phase", "resnet_experiment_deadline_timestamp_seconds"
LOSS, ETA, WAITED = "resnet_training_loss", "resnet_training_eta_seconds", "resnet_training_data_wait_seconds_total"
STEPS, LOOKS = "resnet_training_step_seconds_sum", "resnet_operator_reconcile_seconds_count"
SPEED, SIZE = "resnet_training_images_per_second", "resnet_training_world_size"
ATTEMPT, RESTARTS = "resnet_experiment_attempt", "resnet_experiment_restarts_total"
LEADER, ERRORS, DEPTH = (
    "resnet_operator_is_leader",
    "resnet_operator_reconcile_errors_total",
    "resnet_operator_queue_depth",
)
NONFINITE, BAD_IMAGES = "resnet_training_nonfinite_steps_total", "resnet_training_bad_images_total"
FAILURES = "resnet_checkpoint_failures_total"


def busy(*samples: str) -> dict[str, str]:
    """Busy seconds of rank 0, 1, …"""
    name = "resnet_training_rank_busy_seconds_total"
    return {series(name, rank=str(rank)): each for rank, each in enumerate(samples)}


def at_phase(phase: str) -> dict[str, str]:
    """What the operator says of an experiment."""
    return {
        series(PHASE, EXPERIMENT, phase=each): f"{int(each == phase)}x300"
        for each in ("Pending", "Queued", "Starting", "Running", "Suspended")
    }


def one(**labels: str) -> tuple[Mapping[str, str], ...]:
    """One alert of the experiment."""
    return ({**EXPERIMENT, **labels},)


SCENARIOS = (
    Scenario("ResnetTrainingStalled", "no step for 6 minutes", 8, {**TRAINS, series(PROGRESS): "100x300"}, one()),
    Scenario("ResnetTrainingStalled", "a step every 30 s", 8, {**TRAINS, series(PROGRESS): "0+30x300"}),
    Scenario("ResnetTrainingStalled", "a long validation", 8, {**VALIDATES, series(PROGRESS): "100x300"}),
    Scenario("ResnetMetricsMissing", "nothing is scraped", 6, at_phase("Running"), one()),
    Scenario("ResnetMetricsMissing", "its pod is scraped", 6, at_phase("Running") | TRAINS),
    Scenario("ResnetMetricsMissing", "it does not run yet", 6, at_phase("Starting")),
    Scenario("ResnetLossNotFinite", "a loss was NaN", 6, {series(NONFINITE): "0x10 1x100"}, one()),
    Scenario("ResnetLossNotFinite", "a loss was NaN before a resume", 6, {series(NONFINITE): "1x100"}),
    Scenario("ResnetLossDiverging", "2, then 5", 50, {series(LOSS): "2x60 5x100"}, one()),
    Scenario("ResnetLossDiverging", "it falls", 50, {series(LOSS): "7-0.05x100"}),
    Scenario("ResnetLossDiverging", "a small one is noisy", 50, {series(LOSS): "0.01x60 0.05x100"}),
    Scenario("ResnetLossDiverging", "a large one is noisy", 50, {series(LOSS): "6x60 6.6x100"}),
    Scenario(
        "ResnetStraggler", "two ranks of three are slow", 25, busy("0+15x100", "0+27x100", "0+27x100"),
        (*one(rank="1"), *one(rank="2")),
    ),
    Scenario("ResnetStraggler", "one rank of two is slow", 25, busy("0+27x100", "0+15x100"), one(rank="0")),
    Scenario("ResnetStraggler", "all are alike", 25, busy("0+27x100", "0+26x100", "0+27x100")),
    Scenario("ResnetStraggler", "one of them restarted", 25, busy("0+27x100", "0+27x30 0+27x70")),
    Scenario(
        "ResnetThroughputFell", "half of its speed", 90, {series(SIZE): "4x300", series(SPEED): "400x120 200x180"},
        one(world_size="4"),
    ),
    Scenario(
        "ResnetThroughputFell", "a smaller gang, slower per device too", 90,
        {
            series(SIZE): "4x119 stale", series(SPEED): "400x119 stale",
            series(SIZE, NEXT_POD): "_x120 2x180", series(SPEED, NEXT_POD): "_x120 100x180",
        },
    ),
    Scenario("ResnetThroughputFell", "a tenth slower", 90, {series(SIZE): "4x300", series(SPEED): "400x120 360x180"}),
    Scenario(
        "ResnetDataBound", "0.4 of the time", 25, {series(STEPS): "0+30x100", series(WAITED): "0+12x100"},
        one(part="data"),
    ),
    Scenario("ResnetDataBound", "0.1 of the time", 25, {series(STEPS): "0+30x100", series(WAITED): "0+3x100"}),
    Scenario(
        "ResnetCheckpointTooOld", "the newest is 38 minutes old", 40,
        {**TRAINS, **EVERY_10_MINUTES, series(FIRST): "60x300", series(SAVED): "90x300"}, one(),
    ),
    Scenario(
        "ResnetCheckpointTooOld", "none yet", 40, {**TRAINS, **EVERY_10_MINUTES, series(FIRST): "60x300"}, one()
    ),
    Scenario(
        "ResnetCheckpointTooOld", "the newest is four minutes old", 40,
        {**TRAINS, **EVERY_10_MINUTES, series(FIRST): "60x300", series(SAVED): "2160x300"},
    ),
    Scenario(
        "ResnetCheckpointTooOld", "just resumed from an old one", 40,
        {**TRAINS, **EVERY_10_MINUTES, series(FIRST): "2000x300", series(SAVED): "10x300"},
    ),
    Scenario(
        "ResnetCheckpointTooOld", "one an hour is what was asked for", 40,
        {**TRAINS, series("resnet_checkpoint_interval_seconds"): "3600x300", series(FIRST): "60x300"},
    ),
    Scenario("ResnetCheckpointFailing", "one failed", 8, {series(FAILURES): "0x10 1x100"}, one()),
    Scenario("ResnetCheckpointFailing", "one failed before a resume", 8, {series(FAILURES): "1x100"}),
    Scenario(
        "ResnetDeadlineAtRisk", "two hours left, one allowed", 15,
        {series(ETA): "7200x100", series(DEADLINE, EXPERIMENT): "3600x100"}, one(),
    ),
    Scenario(
        "ResnetDeadlineAtRisk", "half an hour left", 15,
        {series(ETA): "1800x100", series(DEADLINE, EXPERIMENT): "3600x100"},
    ),
    Scenario("ResnetDeadlineAtRisk", "no deadline", 15, {series(ETA): "7200x100"}),
    Scenario(
        "ResnetRestartsClimbing", "the fourth attempt", 18, {series(ATTEMPT, EXPERIMENT): "0x2 1x9 2x9 3x9 4x100"},
        one(),
    ),
    Scenario("ResnetRestartsClimbing", "the third", 18, {series(ATTEMPT, EXPERIMENT): "0x2 1x9 2x9 3x100"}),
    Scenario("ResnetRestartsClimbing", "the ninth for days", 18, {series(ATTEMPT, EXPERIMENT): "9x100"}),
    Scenario(
        "ResnetDeviceLost", "for the first time", 8,
        {series(RESTARTS, EXPERIMENT, reason="DeviceLost"): "0x10 1x100"}, one(),
    ),
    Scenario(
        "ResnetDeviceLost", "another reason", 8,
        {
            series(RESTARTS, EXPERIMENT, reason="DeviceLost"): "0x100",
            series(RESTARTS, EXPERIMENT, reason="Hung"): "0x10 1x100",
        },
    ),
    Scenario("ResnetBadImages", "three", 2, {series(BAD_IMAGES): "3x100"}, one()),
    Scenario("ResnetBadImages", "none", 2, {series(BAD_IMAGES): "0x100"}),
    Scenario("ResnetPendingTooLong", "no node takes it", 31, at_phase("Pending"), one(phase="Pending")),
    Scenario("ResnetPendingTooLong", "a pod does not start", 31, at_phase("Starting"), one(phase="Starting")),
    Scenario("ResnetPendingTooLong", "Kueue holds it", 31, at_phase("Queued")),
    Scenario("ResnetOperatorDown", "nothing is scraped", 6, {}, ({},)),
    Scenario(
        "ResnetOperatorDown", "one is", 6, {series("resnet_operator_build_info", OPERATOR, version="0.1.0"): "1x100"}
    ),
    Scenario(
        "ResnetOperatorNoLeader", "two wait", 3, {series(LEADER, OPERATOR): "0x100", series(LEADER, STANDBY): "0x100"},
        ({"namespace": "resnet-operator"},),
    ),
    Scenario(
        "ResnetOperatorNoLeader", "one leads", 3, {series(LEADER, OPERATOR): "0x100", series(LEADER, STANDBY): "1x100"}
    ),
    Scenario(
        "ResnetReconcileErrors", "a fifth", 20,
        {series(LOOKS, OPERATOR): "0+30x100", series(ERRORS, OPERATOR): "0+6x100"},
        ({"namespace": "resnet-operator"},),
    ),
    Scenario(
        "ResnetReconcileErrors", "one in thirty", 20,
        {series(LOOKS, OPERATOR): "0+30x100", series(ERRORS, OPERATOR): "0+1x100"},
    ),
    Scenario(
        "ResnetQueueGrowing", "four more each minute", 20,
        {series(DEPTH, OPERATOR): "0+2x100", series(DEPTH, STANDBY): "0x100"}, ({"namespace": "resnet-operator"},),
    ),
    Scenario("ResnetQueueGrowing", "a long one that shrinks", 20, {series(DEPTH, OPERATOR): "100-1x100"}),
    Scenario("ResnetQueueGrowing", "a short one", 20, {series(DEPTH, OPERATOR): "2+0.1x100"}),
)  # fmt: skip

HEALTHY = {
    **TRAINS, **EVERY_10_MINUTES, **at_phase("Running"), **busy("0+27x300", "0+27x300"),
    series(PROGRESS): "0+30x300", series(FIRST): "30x300", series(SAVED): "0+30x300", series(LOSS): "6-0.01x300",
    series(SIZE): "2x300", series(SPEED): "400x300", series(STEPS): "0+30x300", series(WAITED): "0+1x300",
    series(NONFINITE): "0x300", series(BAD_IMAGES): "0x300", series(FAILURES): "0x300", series(ETA): "9000-30x300",
    series(DEADLINE, EXPERIMENT): "20000x300", series(ATTEMPT, EXPERIMENT): "1x300",
    series(RESTARTS, EXPERIMENT, reason="DeviceLost"): "0x300", series(LEADER, OPERATOR): "1x300",
    series("resnet_operator_build_info", OPERATOR, version="0.1.0"): "1x300", series(LOOKS, OPERATOR): "0+30x300",
    series(ERRORS, OPERATOR): "0x300", series(DEPTH, OPERATOR): "0 3 0 1 0x296",
}  # fmt: skip
"""A run of two and a half hours that nobody has to hear of."""
