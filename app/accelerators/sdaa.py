"""Teco cards. One device is one SPA (a quarter of a card), about 16 GB; its matrix unit computes in fp16.

Written against the documented torch_sdaa API; it has not run on a real card.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from contextlib import redirect_stdout

import torch

from app.accelerators import Device
from app.accelerators.base import Accelerator, first_line
from app.resilience.exit_codes import ExitCode, TrainingError

_SMI_SECONDS = 10.0


class Sdaa(Accelerator):
    """fp16 always: bf16 is emulated on this hardware."""

    name = "sdaa"
    compiler = "teco_inductor"
    # Nothing here writes kernels, so that what the runtime reports (SDAA_ERROR_…) is the device's doing.
    device_errors = ("device_lost", "device lost", "heartbeat_error", "sdaa error", "sdaa_error", "sdaaerror")

    def load(self) -> None:
        """Imports torch_sdaa, which registers `torch.sdaa`."""
        try:
            with redirect_stdout(sys.stderr):  # it greets with a table, and stdout may be where a result goes
                importlib.import_module("torch_sdaa")
        except Exception as error:  # noqa: BLE001 - a driver that does not fit is no ImportError
            raise TrainingError(
                ExitCode.FRAMEWORK_MISSING,
                f"--device sdaa: torch_sdaa can't be imported ({first_line(error)}); use the vendor's base image "
                "(conda environment torch_env) in a version that fits this node's driver, or --device cpu",
            ) from None
        super().load()

    def sgd(self) -> type[torch.optim.Optimizer]:
        """The vendor's fused SGD where it is there."""
        try:
            fused: type[torch.optim.Optimizer] = importlib.import_module("torch_sdaa.optim").FusedSGD
        except (ImportError, AttributeError):
            return super().sgd()
        return fused

    def framework(self) -> str:
        """torch_sdaa and its version."""
        return f"torch_sdaa {getattr(importlib.import_module('torch_sdaa'), '__version__', 'of unknown version')}"

    def driver(self) -> str:
        """What the vendor's teco-smi heads its table with."""
        try:
            done = subprocess.run(["teco-smi"], capture_output=True, timeout=_SMI_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        found = re.search(r"SDAADriver:\s*([^\s|]+)", done.stdout.decode("utf-8", "replace"))
        return found[1] if found else ""

    def devices(self) -> list[Device]:
        """One device is one SPA; no documented call names it. A sick one may not answer for its memory."""
        return [Device("SPA", self._total_memory(index)) for index in range(self.count())]

    def _total_memory(self, index: int) -> int:
        try:
            return int(self._module.mem_get_info(index)[1])
        except (AttributeError, RuntimeError):
            return 0


accelerator = Sdaa()
