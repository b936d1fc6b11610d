"""Whether a checkpoint fits the network, the optimizer and the data of a run. Pure: values in, lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.config import TrainConfig, flag_of
from app.resilience.exit_codes import ExitCode, TrainingError

SHAPING = ("model", "optimizer", "mlperf_mode", "decay_filter")
"""The options that decide which tensors the network and its optimizer have."""


def options(config: TrainConfig) -> dict[str, Any]:
    """What a checkpoint's state keeps of them, under "options"."""
    return {name: getattr(config, name) for name in SHAPING}


def surroundings(config: TrainConfig, images: int, numerics: str) -> dict[str, Any]:
    """What a checkpoint's state keeps of a run's surroundings, for `changes`.

    Args:
        config: of the run: its gang and learning rate.
        images: number of training images.
        numerics: what its last bits depend on, in words.
    """
    return {
        "world_size": config.world_size, "global_batch": config.global_batch, "learning_rate": config.learning_rate,
        "train_images": images, "numerics": numerics,
    }  # fmt: skip


def changes(path: object, state: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a person should know where a run goes on with another gang, with other images, or on another machine.

    Args:
        path: the checkpoint.
        state: as it was loaded, or given by `surroundings`.
        now: `surroundings` of this run.

    Returns:
        A line for each change.
    """
    lines = []
    was, batch = state["global_batch"], now["global_batch"]
    if was != batch:
        before, rate = state["learning_rate"], now["learning_rate"]
        told = f"is {rate:g} as given, no longer {before:g}"
        if rate == before:
            told = f"stays {rate:g} (in proportion to the batch it would be --lr {before * batch / was:g})"
        lines.append(
            f"{path} was made by {state['world_size']} ranks, now there are {now['world_size']}: the global batch is "
            f"{batch} and no longer {was}; the learning rate {told}"
        )
    if state["train_images"] != now["train_images"]:
        lines.append(
            f"{path} was trained on {state['train_images']} images, now there are {now['train_images']}: in the rest "
            "of this epoch some may come twice and others not at all"
        )
    if state["numerics"] != now["numerics"]:
        lines.append(
            f"{path} was made with {state['numerics']}, now it is {now['numerics']}: the run goes on, but not bit for "
            "bit as it would have there"
        )
    return lines


def require_fit(path: object, state: Mapping[str, Any], config: TrainConfig, classes: Sequence[str]) -> None:
    """Compares a checkpoint's state with the run that is to go on from it.

    Args:
        path: the checkpoint, for the message.
        state: as it was loaded.
        config: of this run.
        classes: of this run's data, in their order.

    Raises:
        TrainingError: 64 it is of another network or optimizer, 65 of other classes.
    """
    for name, was in state["options"].items():
        now = getattr(config, name)
        if now != was:
            raise TrainingError(
                ExitCode.BAD_OPTION,
                f"{path} was made with {flag_of(name)} {was}, not {now}; "
                "give that option, or another checkpoint with --resume",
            )
    before = list(state["classes"])
    if before != list(classes):
        counts = f"{len(before)} classes, not on these {len(classes)}"
        other = next((f": {a!r} there, {b!r} here" for a, b in zip(before, classes, strict=False) if a != b), "")
        raise TrainingError(
            ExitCode.BAD_DATA,
            f"--dataset_path: {path} was trained on {counts}{other}; "
            "give the data set of that run, or another checkpoint with --resume",
        )
