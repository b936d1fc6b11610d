"""Whether a checkpoint fits the network, the optimizer and the data of a run. Pure: values in, a line out."""

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
    for name, was in state.get("options", {"model": state["model"]}).items():
        now = getattr(config, name, was)
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
