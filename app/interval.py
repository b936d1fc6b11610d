"""What is summed up on the device between two log lines, so that the device is read once."""

from __future__ import annotations

from typing import Any

import torch

from app.accelerators.base import Accelerator


class Interval:
    """Losses, overflows and busy time since the last look at the device.

    Attributes:
        nonfinite_steps: steps with a non-finite loss in the whole run, as of the last look.
        nonfinite_in_row: of them those without a finite one since, as of the last look.
        skipped_in_row: steps in a row that left the weights as they were, as of the last look.
        busy_seconds: computing, in this process, as of the last look.
    """

    def __init__(self, device: torch.device) -> None:
        # Loss of finite steps, non-finite steps, non-finite ones in a row, skipped ones in a row.
        self._sums = torch.zeros(4, device=device)
        self._last = torch.zeros((), device=device)
        self._steps = 0
        self._marks: list[tuple[Any, Any]] = []
        self.nonfinite_steps = 0
        self.nonfinite_in_row = 0
        self.skipped_in_row = 0
        self.busy_seconds = 0.0

    def busy(self, started: Any, ended: Any) -> None:
        """Adds the device's marks around some computing."""
        self._marks.append((started, ended))

    def count(self, loss: torch.Tensor) -> None:
        """Adds one optimizer step by its loss, the mean over its accumulated batches; before `updated`."""
        finite = torch.isfinite(loss)
        self._sums[0] += torch.where(finite, loss, 0.0)
        self._sums[1] += ~finite
        self._sums[2:].add_(1)
        self._sums[2].mul_(finite.logical_not())
        self._last = loss
        self._steps += 1

    def updated(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer was called in this step; a hook of it.

        A GradScaler that found an overflow leaves the call out. Where the optimizer skips by itself (a fused one), it
        is always called, and finds the answer in its attribute `found_inf`: there it is read without a wait.
        """
        found_inf = getattr(optimizer, "found_inf", None)
        if found_inf is None:
            self._sums[3].zero_()
        else:
            self._sums[3].mul_(found_inf.reshape(()) != 0)

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Since the last call: mean `loss` (NaN where none was finite) and `last_loss`.

        This is the one place of the loop that waits for the device.
        """
        loss, nonfinite, nonfinite_in_row, skipped_in_row, last = torch.cat(
            [self._sums, self._last.reshape(1).float()]
        ).tolist()
        finite = self._steps - int(nonfinite)
        self.nonfinite_steps += int(nonfinite)
        self.nonfinite_in_row, self.skipped_in_row = int(nonfinite_in_row), int(skipped_in_row)
        self.busy_seconds += sum(accelerator.seconds_between(start, end) for start, end in self._marks)
        self._sums[:2] = 0
        self._steps = 0
        self._marks.clear()
        return {"loss": loss / finite if finite else float("nan"), "last_loss": last}

    def losing(self) -> int:
        """Steps in a row with a non-finite loss up to this very step. It waits for the device: for rare questions."""
        return int(self._sums[2])
