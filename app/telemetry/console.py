"""What a person, and the parsers that users already have, read in the log of rank 0."""

from __future__ import annotations

import math
import time
from typing import Any

from app.config import TrainConfig
from app.schedule import cosine
from app.validation import Validation


def seed_line(*, epoch: int, iteration: int, rank: int, loss: float, rank_images_per_second: float) -> str:
    """The line that users' scripts parse: it starts with `TCAPPDLL `, has no prefix, and `train.ips` is per rank.

    Args:
        epoch: from 0, as the original counts.
        iteration: of the whole run, from 0, as the original counts.
        rank: who prints.
        loss: of the last step.
        rank_images_per_second: of one rank.
    """
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return (
        f"TCAPPDLL {now} - Epoch: {epoch} Iteration: {iteration}  rank : {rank} "
        f"train.loss : {loss:.6f} train.ips : {rank_images_per_second:.2f} imgs/s"
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 47s, 3m12s, 3h12m, 2d3h."""
    if math.isnan(seconds):
        return "?"
    whole = max(0, round(seconds))
    for unit, small, (name, small_name) in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // small}{small_name}"
    return f"{whole}s"


def first_line(config: TrainConfig, torch_version: str, devices: str, cpus: str) -> str:
    """What runs, on what: the first line of every rank 0's log; `cpus` are those of this rank."""
    size = f"{config.size} px"
    if config.evaluation_size != config.size:
        size += f" (validated at {config.evaluation_size} px)"
    return (
        f"resnet-operator: {config.model} on {config.dataset} {size}, {config.world_size} rank(s) on "
        f"{config.nnodes} node(s), global batch {config.global_batch}, learning rate {config.learning_rate:g}, "
        f"warm-up {config.warmup} of {config.epochs} epochs; torch {torch_version}, {config.device}: {devices}; "
        f"rank 0 on CPUs {cpus}"
    )


def only_warm_up_line(config: TrainConfig) -> str:
    """A warning: the learning rate rises to the last epoch and never falls."""
    last = cosine(config.epochs - 1, epochs=config.epochs, base=config.learning_rate, warmup=config.warmup)
    return (
        f"train: warning: the warm-up of {config.warmup} epochs takes the whole run of {config.epochs}: the learning "
        f"rate ends at {last:g} and is never lowered; give more --epoch or less --warm_up"
    )


def epoch_lines(config: TrainConfig, images: int, steps: int) -> list[str]:
    """What of the training set an epoch leaves out, or why it is shorter than --step: `steps` long, of `images`."""
    if config.steps_per_epoch > steps:
        return [f"train: --step {config.steps_per_epoch}: an epoch has no more than {steps} steps, and ends with them"]
    left_out = images % config.global_batch
    if config.steps_per_epoch > 0 or not left_out:
        return []
    return [
        f"train: an epoch is {steps} steps of {config.global_batch} images: {left_out} of the {images} are left out, "
        "others each time"
    ]


def no_loss_scale_line(config: TrainConfig) -> str:
    """A warning: nothing keeps small gradients from becoming zero in fp16."""
    return (
        f"train: warning: --autocast True computes in fp16 on {config.device}, where small gradients vanish without a "
        "loss scale: add --grad_scale True"
    )


def train_line(config: TrainConfig, values: dict[str, Any]) -> str:
    """Progress of an epoch, for a person."""
    return (
        f"epoch {values['epoch']}/{config.last_epoch} step {values['step']}/{values['steps']} "
        f"loss {values['loss']:.4f} lr {values['learning_rate']:.4g} {values['images_per_second']:.0f} img/s "
        f"data wait {values['data_wait_share']:.0%} left {duration(values['eta_seconds'])}"
    )


def validation_line(config: TrainConfig, epoch: int, result: Validation, best_top1: float) -> str:
    """The result of a validation, for a person. `epoch` counts from 1."""
    return (
        f"epoch {epoch}/{config.last_epoch} validated {'the moving average on ' if config.ema else ''}"
        f"{result.images} images: top-1 {result.top1:.2%} "
        f"top-5 {result.top5:.2%} loss {result.loss:.4f} (best top-1 {best_top1:.2%})"
    )
