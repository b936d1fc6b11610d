"""Teco cards. One device is one SPA (a quarter of a card), about 16 GB; its matrix unit computes in fp16.

Written against the documented torch_sdaa API; it has not run on a real card.
"""

from __future__ import annotations

import importlib

import torch

from app.accelerators.base import Accelerator
from app.resilience.exit_codes import ExitCode, TrainingError


class Sdaa(Accelerator):
    """fp16 always: bf16 is emulated on this hardware."""

    name = "sdaa"
    device_errors = ("device_lost", "device lost", "heartbeat_error", "sdaa error", "sdaaerror")

    def load(self) -> None:
        """Imports torch_sdaa, which registers `torch.sdaa`."""
        try:
            importlib.import_module("torch_sdaa")
        except ImportError as error:
            raise TrainingError(
                ExitCode.FRAMEWORK_MISSING,
                f"--device sdaa: torch_sdaa can't be imported ({error}); use the vendor's base image "
                "(conda environment torch_env), or --device cpu",
            ) from None
        super().load()

    def sgd(self) -> type[torch.optim.Optimizer]:
        """The vendor's fused SGD where it is there."""
        try:
            fused: type[torch.optim.Optimizer] = importlib.import_module("torch_sdaa.optim").FusedSGD
        except (ImportError, AttributeError):
            return super().sgd()
        return fused

    def describe(self) -> str:
        """Framework version and device count."""
        version = getattr(importlib.import_module("torch_sdaa"), "__version__", "unknown")
        return f"{self.count()} devices, torch_sdaa {version}"


accelerator = Sdaa()
