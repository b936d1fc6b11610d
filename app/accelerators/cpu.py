"""The CPU: for laptops and tests."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import Any

import torch

from app.accelerators import Device
from app.accelerators.base import Accelerator
from app.launcher import cpus


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def _has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware: without that, bf16 autocast is slower than fp32."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpuinfo().split())


class Cpu(Accelerator):
    """bf16 autocast where the CPU has it in hardware; never a loss scale, which bf16 does not need."""

    name = "cpu"
    low_precision = torch.bfloat16 if _has_fast_bf16() else None
    backend = "gloo"

    def load(self) -> None:
        """Nothing to load."""

    def count(self) -> int:
        """Any number of ranks can share a CPU; this is how many run at full speed."""
        return cpus.ranks_at_full_speed(cpus.usable())

    def claim(self, local_rank: int) -> torch.device:
        """The CPU is everybody's."""
        del local_rank
        return torch.device("cpu")

    def pinning(self) -> dict[str, Any]:
        """Batches are where they are needed."""
        return {}

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

    def devices(self) -> list[Device]:
        """The one CPU that all ranks share, with the machine's memory."""
        name = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)  # x86; others have no such line
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return [Device(name[1] if name else platform.machine(), memory)]

    def describe(self) -> str:
        """Cores and threads."""
        kind = "bf16 in hardware" if self.low_precision else "no bf16 in hardware, computing in fp32"
        return f"{platform.machine()}, {torch.get_num_threads()} thread(s) a rank, {kind}"

    def numerics(self) -> str:
        """With the instructions that torch's kernels use, and the threads that share out their sums."""
        return f"{super().numerics()}, {torch.backends.cpu.get_cpu_capability()}"


accelerator = Cpu()
