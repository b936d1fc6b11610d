"""What `--nproc_per_node auto` means on this node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from app.accelerators.count import ANSWER
from app.config import TrainConfig, check
from app.launcher import cpus, helper
from app.launcher.signals import Signals
from app.resilience.exit_codes import ExitCode, TrainingError


def counted(config: TrainConfig, environ: Mapping[str, str], signals: Signals, poll: float) -> TrainConfig:
    """The configuration with the number of this node's devices in the place of "auto".

    Devices are counted by a process that imports their framework; on the CPU, NUMA nodes are counted here.

    Raises:
        TrainingError: see `helper.run`; DEVICE (141) where there is none; HUNG (142) where a driver does not answer.
        ConfigError: there are more than `--nproc_per_node` may be.
    """
    if config.nproc_per_node:
        return config
    if config.device == "cpu":
        return replace(config, nproc_per_node=cpus.ranks_at_full_speed(cpus.usable()))
    late = (
        f"--nproc_per_node auto: the {config.device} devices could not be counted within "
        f"{config.watchdog_seconds:g} s (--watchdog_seconds)"
    )
    said = helper.run(
        "app.accelerators.count", ["--device", config.device], environ=environ, signals=signals, poll=poll,
        limit=(config.watchdog_seconds, late),
    )  # fmt: skip
    answers = re.findall(rf"^{ANSWER}(\d+)$", said, re.MULTILINE)
    number = int(answers[-1]) if answers else 0
    if not number:
        message = f"--nproc_per_node auto: no {config.device} device is visible on this node"
        raise TrainingError(ExitCode.DEVICE, f"{message}: give this container its devices")
    found = replace(config, nproc_per_node=number)
    check(found)
    return found
