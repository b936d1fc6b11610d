"""NVIDIA GPUs."""

from __future__ import annotations

import torch

from app.accelerators.base import Accelerator


class Cuda(Accelerator):
    """bf16 where the GPU has it and no loss scale is asked for, else fp16."""

    name = "cuda"
    device_errors = ("cuda error: uncorrectable", "cuda error: unspecified launch", "cuda error: unknown error",
                     "gpu is lost", "fallen off the bus", "device-side", "ecc error")  # fmt: skip

    def autocast_type(self, *, autocast: bool, scaled: bool) -> torch.dtype | None:
        """fp16 with a loss scale, bf16 without one."""
        if autocast and not scaled and torch.cuda.is_bf16_supported():
            return torch.bfloat16
        return super().autocast_type(autocast=autocast, scaled=scaled)


accelerator = Cuda()
