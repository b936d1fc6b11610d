"""What the training needs of a device family."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch

from app.accelerators import BACKENDS
from app.resilience.exit_codes import ExitCode, TrainingError


class Accelerator:
    """A device family by torch's own conventions: `torch.<type>` has is_available, device_count, set_device …

    A family overrides what it does differently. Nothing here synchronises with the device.
    """

    name = ""
    low_precision: torch.dtype | None = torch.float16
    """What autocast computes in; None: not faster on this machine, so autocast stays off."""
    device_errors: tuple[str, ...] = ()
    """Parts of a RuntimeError's text that mean that the device itself failed."""

    def load(self) -> None:
        """Makes `torch.<type>` usable.

        Raises:
            TrainingError: 69, the framework is not in this image.
        """
        module = getattr(torch, self.name, None)
        if module is None or not module.is_available():
            raise TrainingError(
                ExitCode.FRAMEWORK_MISSING,
                f"--device {self.name}: torch {torch.__version__} sees no {self.name} device here; "
                f"use an image with its driver and framework, or --device cpu",
            )

    @property
    def _module(self) -> ModuleType:
        module: ModuleType = getattr(torch, self.name)
        return module

    @property
    def backend(self) -> str:
        """Process-group backends: gloo for CPU tensors (the agreement), the device's own for gradients."""
        return f"cpu:gloo,{self.name}:{BACKENDS[self.name]}"

    def count(self) -> int:
        """Devices that this process sees."""
        return int(self._module.device_count())

    def claim(self, local_rank: int) -> torch.device:
        """Makes device `local_rank` this process's own, before any process group is made.

        Raises:
            TrainingError: 141, promised to this pod but not there.
        """
        if local_rank >= self.count():
            raise TrainingError(
                ExitCode.DEVICE,
                f"local rank {local_rank} needs device {self.name}:{local_rank}, but only {self.count()} are visible",
            )
        self._module.set_device(local_rank)
        return torch.device(self.name, local_rank)

    def autocast_type(self, *, autocast: bool, scaled: bool) -> torch.dtype | None:
        """The type to autocast to, None for plain fp32. `scaled`: a loss scale was asked for."""
        del scaled
        return self.low_precision if autocast else None

    def sgd(self) -> type[torch.optim.Optimizer]:
        """The SGD to use."""
        return torch.optim.SGD

    def mark(self) -> Any:
        """A point in the device's stream of work; taking it does not wait."""
        event = self._module.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        """Device time between two marks that the device has passed."""
        return float(start.elapsed_time(end)) / 1000

    def memory_bytes(self) -> int:
        """Device memory that this process holds."""
        return int(self._module.memory_allocated())

    def describe(self) -> str:
        """Framework and device, for the log's first line."""
        return f"{self.count()} x {self._module.get_device_name(0)}"

    def failed(self, error: BaseException) -> bool:
        """Whether the error means that the device, not the program, failed."""
        text = str(error).lower()
        return isinstance(error, RuntimeError) and any(part in text for part in self.device_errors)
