"""`status` of a ResNetExperiment: what the controller knows and shows. It is replaced as a whole (model_copy)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from controller.api.base import Model

Phase = Literal["Pending", "Queued", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]
ConditionType = Literal[
    "Accepted", "PodsScheduled", "Running", "ProgressReachable", "Suspended", "Exported", "Succeeded", "Failed"
]
Time = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""RFC 3339, in UTC: 2026-01-31T12:00:00Z."""
Short = Annotated[str, Field(max_length=253)]
Message = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=2**53)]


class Condition(Model):
    """One condition, in the shape of metav1.Condition."""

    type: ConditionType = Field(description="what it is about")
    status: Literal["True", "False", "Unknown"] = Field(description="whether it holds")
    reason: Short = Field(default="", description="one word for machines")
    message: Message = Field(default="", description="one line for people")
    last_transition_time: Time | None = Field(default=None, description="when status changed last")
    observed_generation: Count | None = Field(default=None, description="the generation that was looked at")


class LastVerdict(Model):
    """How the newest ended attempt ended, kept because exit codes vanish with their pods."""

    reason: Short = Field(description="one word")
    exit_code: int | None = Field(default=None, ge=-1, le=65_535, description="exit code that decided")
    pod: Short | None = Field(default=None, description="pod that decided")
    node: Short | None = Field(default=None, description="node of that pod")
    message: Message = Field(default="", description="the pod's own message")
    exception: Short = Field(default="", description="type of the error that ended it, where the training named one")


class Ending(Model):
    """An attempt that is ending: the first failure was seen, and its other pods are waited for."""

    since: Time = Field(description="when the first failure was seen")
    verdict: LastVerdict = Field(description="the strongest verdict so far, kept because pods vanish")


class HistoryEntry(Model):
    """One attempt that has ended."""

    attempt: Count = Field(description="its number")
    start: Time | None = Field(default=None, description="when it was created")
    end: Time | None = Field(default=None, description="when its end was seen")
    reason: Short = Field(default="", description="how it ended, in one word")
    counted: bool = Field(default=False, description="whether it counts against maxRestarts")
    step: Count | None = Field(default=None, description="last step that was seen")
    exception: Short = Field(default="", description="type of the error that ended it, where the training named one")


class Status(Model):
    """All that the controller keeps between two looks. Absent (None) means not known yet."""

    phase: Phase = Field(default="Pending", description="where the experiment is")
    conditions: list[Condition] = Field(default=[], max_length=16, description="one of each type at most")
    observed_generation: Count | None = Field(default=None, description="generation of the spec that was acted on")
    attempt: Count = Field(default=0, description="number of the newest claimed attempt, 0: none yet")
    restarts: Count = Field(default=0, description="counted restarts in all")
    faults: Count = Field(default=0, description="counted ends since lastCheckpoint advanced")
    attempts_without_progress: Count = Field(
        default=0,
        description="attempts in a row without a newer checkpoint, the newest included: the k of the back-off",
    )
    job_name: Short | None = Field(default=None, description="job of the newest attempt")
    attempt_start_time: Time | None = Field(default=None, description="when the newest attempt was created")
    pod_uids: list[Annotated[str, Field(max_length=64)]] = Field(
        default=[], max_length=4096, description="pods of the attempt, in the order of their index"
    )
    retry_at: Time | None = Field(default=None, description="when the next attempt may begin")
    ending: Ending | None = Field(
        default=None, description="set while the other pods of an ending attempt are waited for"
    )
    training_phase: Short | None = Field(default=None, description="what the newest attempt is doing, by its own word")
    last_progress_time: Time | None = Field(default=None, description="when step or phase moved last")
    last_verdict: LastVerdict | None = Field(default=None, description="how the newest ended attempt ended")
    history: list[HistoryEntry] = Field(default=[], max_length=10, description="the last 10 ended attempts")
    epoch: Count | None = Field(default=None, description="epoch in progress, from 1")
    epochs: Count | None = Field(default=None, description="epochs in all")
    step: Count | None = Field(default=None, description="optimizer steps done")
    loss: float | None = Field(default=None, description="training loss; absent while it is not finite")
    top1: float | None = Field(default=None, ge=0, le=1, description="newest validation top-1, a ratio")
    best_top1: float | None = Field(default=None, ge=0, le=1, description="best validation top-1, a ratio")
    images_per_second: float | None = Field(default=None, ge=0, description="training images a second, of all ranks")
    last_checkpoint: Count | None = Field(default=None, description="step of the newest committed checkpoint")
    start_time: Time | None = Field(default=None, description="when the first pod ran")
    completion_time: Time | None = Field(default=None, description="when the experiment ended")
    message: Message | None = Field(default=None, description="one line for people")
    devices: Short | None = Field(default=None, description='nodes x devices of each, and their type: "2x16 sdaa"')
    progress: Short | None = Field(default=None, description='epoch in progress and epochs in all: "12/50"')
    top1_percent: Short | None = Field(default=None, description='newest validation top-1 in percent: "76.09"')
    eta: Short | None = Field(default=None, description='time left: "3h12m"')
