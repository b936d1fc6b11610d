"""From a `--device` word to its accelerator."""

from __future__ import annotations

import importlib

from app.accelerators import DEVICE_TYPES
from app.accelerators.base import Accelerator


def find(device: str) -> Accelerator:
    """The accelerator of a device type, its framework loaded.

    Raises:
        TrainingError: 69 or 141, as `Accelerator.load`.
    """
    if device not in DEVICE_TYPES:
        raise ValueError(f"no such device type: {device}")
    accelerator: Accelerator = importlib.import_module(f"app.accelerators.{device}").accelerator
    accelerator.load()
    return accelerator
