"""NVIDIA GPUs."""

from __future__ import annotations

from pathlib import Path

import torch

from app.accelerators.base import Accelerator


class Cuda(Accelerator):
    """bf16 where the GPU has it and no loss scale is asked for, else fp16."""

    name = "cuda"
    device_errors = ("cuda error: uncorrectable", "cuda error: unspecified launch", "cuda error: unknown error",
                     "cuda error: hardware", "cuda error: nvlink", "cuda error: all cuda-capable devices are busy",
                     "gpu is lost", "fallen off the bus", "ecc error")  # fmt: skip

    def framework(self) -> str:
        """CUDA, as torch was built with it; ROCm's torch answers to the same name, and is not what nccl means here."""
        return f"CUDA {torch.version.cuda}" if torch.version.cuda else ""

    def driver(self) -> str:
        """The kernel module's version."""
        try:
            return Path("/sys/module/nvidia/version").read_text().strip()
        except OSError:
            return ""

    def autocast_type(self, *, autocast: bool, scaled: bool) -> torch.dtype | None:
        """fp16 with a loss scale, bf16 without one."""
        if autocast and not scaled and torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16
        return super().autocast_type(autocast=autocast, scaled=scaled)


accelerator = Cuda()
