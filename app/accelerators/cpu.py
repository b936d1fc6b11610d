"""The CPU: for laptops and tests."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import torch

from app.accelerators.base import Accelerator


def _has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware: without that, bf16 autocast is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Cpu(Accelerator):
    """bf16 autocast where the CPU has it in hardware; never a loss scale, which bf16 does not need."""

    name = "cpu"
    low_precision = torch.bfloat16 if _has_fast_bf16() else None
    backend = "gloo"

    def load(self) -> None:
        """Nothing to load."""

    def count(self) -> int:
        """Any number of ranks can share a CPU; this is how many run at full speed."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    def claim(self, local_rank: int) -> torch.device:
        """The CPU is everybody's."""
        del local_rank
        return torch.device("cpu")

    def mark(self) -> float:
        """The time: a CPU's work is done when the call returns."""
        return time.perf_counter()

    def seconds_between(self, start: float, end: float) -> float:
        """Seconds between two marks."""
        return end - start

    def memory_bytes(self) -> int:
        """Resident memory of this process."""
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0

    def describe(self) -> str:
        """Cores and threads."""
        kind = "bf16 in hardware" if self.low_precision else "no bf16 in hardware, computing in fp32"
        return f"{platform.machine()}, {torch.get_num_threads()} thread(s) a rank, {kind}"


accelerator = Cpu()
