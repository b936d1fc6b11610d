"""PURE: the alerts. Each has a page in docs/runbooks/, and a firing and a silent series in the tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.resilience.exit_codes import REASONS, ExitCode
from observability.pace import HOUR, MINUTE, Pace
from observability.recording import BY, ON

_WHERE = "{{ $labels.namespace }}/{{ $labels.experiment }}"


@dataclass(frozen=True)
class Alert:
    """One alert.

    Attributes:
        name: CamelCase; its runbook is docs/runbooks/<name>.md.
        severity: critical asks for a person now, warning for one today, info for nobody.
        expression: PromQL.
        wait: seconds that it must hold, before it fires.
        summary, description: what it says; {{ $labels.… }} and {{ $value }} are Prometheus's.
    """

    name: str
    severity: Literal["critical", "warning", "info"]
    expression: str
    wait: int
    summary: str
    description: str


def of_training(pace: Pace) -> list[Alert]:
    """About one experiment each."""
    # Validation and export have no steps; the launcher watches those.
    stepping = f'max {BY} (resnet_training_phase{{phase=~"train|checkpoint"}}) == 1'
    loss, best = "experiment:resnet_training_loss:avg", "experiment:resnet_training_loss:best"
    age, interval = "experiment:resnet_checkpoint_age:seconds", f"max {BY} (resnet_checkpoint_interval_seconds)"
    attempt = "resnet_experiment_attempt"
    return [
        Alert(
            "ResnetTrainingStalled", "critical",
            f"time() - max {BY} (resnet_training_last_progress_timestamp_seconds) > {pace.number(5 * MINUTE)} "
            f"and {ON} {stepping}",
            1 * MINUTE,
            f"{_WHERE} has done no step for {{{{ $value | humanizeDuration }}}}",
            "Its ranks are there, but none gets on: one hangs or is stopped, or the data or the checkpoint volume does "
            "not answer. The watchdog ends it after --watchdog_seconds.",
        ),
        Alert(
            "ResnetMetricsMissing", "warning",
            f'max {BY} (resnet_experiment_status_phase{{phase="Running"}}) == 1 unless {ON} resnet_training_phase',
            5 * MINUTE,
            f"{_WHERE} is Running, but Prometheus has no metrics of its pods",
            "Every other alert of this experiment is blind until its pods are scraped.",
        ),
        Alert(
            "ResnetLossNotFinite", "warning",
            f"max {BY} (increase(resnet_training_nonfinite_steps_total[{pace(10 * MINUTE)}])) > 0",
            0,
            f"{_WHERE} had steps whose loss was not finite",
            "Ten in a row end the training as Diverged.",
        ),
        Alert(
            "ResnetLossDiverging", "warning",
            # Relative alone would fire on the noise of a loss near 0, absolute alone never on a small loss that grows.
            f"{loss} > 1.5 * {best} and {loss} - {best} > 0.5",
            10 * MINUTE,
            f"The loss of {_WHERE} rises: {{{{ $value | humanize }}}}",
            "Smoothed over ten minutes, it is above 1.5 times the lowest of the last day.",
        ),
        Alert(
            "ResnetStraggler", "warning",
            # Against the fastest rank: a median would hide two slow ranks of three.
            "rank:resnet_training_rank_excess:ratio > 0.1",
            15 * MINUTE,
            f"Rank {{{{ $labels.rank }}}} of {_WHERE} holds the others up",
            "The fastest rank waits for it {{ $value | humanizePercentage }} of the time.",
        ),
        Alert(
            "ResnetThroughputFell", "warning",
            "experiment:resnet_training_efficiency:ratio < 0.7",
            15 * MINUTE,
            f"{_WHERE} trains at {{{{ $value | humanizePercentage }}}} of its best speed",
            "Images per second and device, against the best of the last day in a gang of the same size "
            "({{ $labels.world_size }} ranks).",
        ),
        Alert(
            "ResnetDataBound", "warning",
            'experiment:resnet_training_step_share:ratio{part="data"} > 0.25',
            15 * MINUTE,
            f"{_WHERE} waits for images {{{{ $value | humanizePercentage }}}} of the time",
            "The devices are idle meanwhile.",
        ),
        Alert(
            "ResnetCheckpointTooOld", "warning",
            f"{age} > {ON} (3 * {interval} + {pace.number(5 * MINUTE)}) and {ON} {stepping}",
            1 * MINUTE,
            f"A crash of {_WHERE} would cost {{{{ $value | humanizeDuration }}}} of training",
            "Its newest checkpoint, if there is one, is older than three times spec.checkpoint.everyMinutes.",
        ),
        Alert(
            "ResnetCheckpointFailing", "critical",
            f"max {BY} (increase(resnet_checkpoint_failures_total[{pace(30 * MINUTE)}])) > 0",
            0,
            f"{_WHERE} could not write a checkpoint",
            "It trains on, and tries again; five in a row end the attempt as VolumeIO.",
        ),
        Alert(
            "ResnetDeadlineAtRisk", "warning",
            f"time() + max {BY} (resnet_training_eta_seconds) > {ON} "
            f"max {BY} (resnet_experiment_deadline_timestamp_seconds)",
            10 * MINUTE,
            f"{_WHERE} will not be done before its deadline",
            "At its present speed it ends at {{ $value | humanizeTimestamp }}; spec.activeDeadlineSeconds ends it "
            "before.",
        ),
        Alert(
            "ResnetRestartsClimbing", "warning",
            f"max {BY} ({attempt}) - clamp_min(min {BY} (min_over_time({attempt}[{pace(HOUR)}])), 1) >= 3",
            0,
            f"{_WHERE} was started anew {{{{ $value }}}} times in an hour",
            "`resnetctl why` and the history in its status say for which reasons.",
        ),
        Alert(
            "ResnetDeviceLost", "warning",
            f"sum {BY} (increase(resnet_experiment_restarts_total"
            f'{{reason="{REASONS[ExitCode.DEVICE]}"}}[{pace(HOUR)}])) > 0',
            0,
            f"{_WHERE} lost a device",
            "The next attempt prefers other nodes; status.lastVerdict names this one.",
        ),
        Alert(
            "ResnetBadImages", "info",
            "experiment:resnet_training_bad_images:count > 0",
            0,
            f"{_WHERE} met {{{{ $value }}}} images that can't be decoded",
            "Others of their class stand in for them; more than training.maxBadImages of the set end it.",
        ),
        Alert(
            "ResnetPendingTooLong", "warning",
            'max by (namespace, experiment, phase) (resnet_experiment_status_phase{phase=~"Pending|Starting"}) == 1',
            30 * MINUTE,
            f"{_WHERE} is {{{{ $labels.phase }}}} for half an hour",
            "A condition in its status says what it waits for. An experiment that Kueue holds is Queued, and not meant "
            "here.",
        ),
    ]  # fmt: skip


def of_operator(pace: Pace) -> list[Alert]:
    """About the operator."""
    depth = "resnet_operator_queue_depth"
    window = pace(10 * MINUTE)
    return [
        Alert(
            "ResnetOperatorDown", "critical", "absent(resnet_operator_build_info)", 5 * MINUTE,
            "No resnet-operator is scraped",
            "Trainings go on, but nobody restarts one that fails, and no new one begins.",
        ),
        Alert(
            "ResnetOperatorNoLeader", "critical", "sum by (namespace) (resnet_operator_is_leader) == 0", 2 * MINUTE,
            "No replica of resnet-operator leads",
            "They run, but none has the Lease: nothing is reconciled.",
        ),
        Alert(
            "ResnetReconcileErrors", "warning", "operator:resnet_operator_reconcile_errors:ratio > 0.1", 10 * MINUTE,
            "{{ $value | humanizePercentage }} of the looks of resnet-operator fail",
            "They are tried again with a growing delay; the operator's log says why.",
        ),
        Alert(
            "ResnetQueueGrowing", "warning",
            f"sum by (namespace) (min_over_time({depth}[{window}])) > 10 "
            f"and sum by (namespace) (deriv({depth}[{window}])) > 0",
            5 * MINUTE,
            "{{ $value }} experiments wait for a look of resnet-operator, and more come",
            "It is slower than what happens in the cluster.",
        ),
    ]  # fmt: skip
