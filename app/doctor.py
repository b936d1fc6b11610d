"""What this machine can train on, one fact a line: `python -m app.doctor [--device TYPE]`. It works without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app import tools
from app.accelerators import BACKENDS, DEVICE_TYPES
from app.diagnosis import FOR_EXPORT, NEEDED, SHARED_MEMORY, Facts, Family, report
from app.launcher import cgroup, cpus
from app.resilience.exit_codes import ExitCode, TrainingError
from app.version import version

if TYPE_CHECKING:
    from app.accelerators.base import Accelerator

PROGRAM = "doctor"
_WORKERS = 2  # of a rank, by default


def main(argv: Sequence[str]) -> int:
    """Prints the report; returns 0 where the device can train, else what a training would end with (69, 141)."""
    parser = tools.Parser(PROGRAM, "Says what this machine and its torch can train on, and what is missing.")
    parser.add_training_options(device="the best that is there")

    def work() -> int:
        device = parser.read(argv)[1].get("device", "")
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr] # where the locale has no such signs
        lines, code = report(gather(), device)
        for line in lines:
            print(line)
        return code

    return tools.run(PROGRAM, work)


def gather() -> Facts:
    """The facts of this machine, as this process sees it."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        shared = os.statvfs(SHARED_MEMORY)
        shared_memory = shared.f_blocks * shared.f_frsize
    except OSError:
        shared_memory = -1
    return Facts(
        version=_own_version(),
        python=f"Python {platform.python_version()} on {platform.system()} {platform.machine()}",
        cpus=cpus.usable(),
        online=os.cpu_count() or 1,
        memory=page * os.sysconf("SC_PHYS_PAGES"),
        memory_limit=cgroup.memory_limit(),
        shared_memory=shared_memory,
        packages={name: found for name in (*NEEDED, *FOR_EXPORT) if (found := _installed(name))},
        **_of_torch(),
    )


def _own_version() -> str:
    try:
        return version()
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _of_torch() -> dict[str, Any]:
    try:
        import torch  # noqa: PLC0415 - whether it can be imported is the question
    except (ImportError, OSError) as error:
        return {"torch_problem": tools.first_line(error)}
    facts: dict[str, Any] = {"torch": torch.__version__, "families": {name: _family(name) for name in DEVICE_TYPES}}
    try:
        from app.data.loader import READ_AHEAD_BYTES  # noqa: PLC0415
    except ImportError:  # what it lacks is told by the packages
        return facts
    return {**facts, "shared_memory_needed": _WORKERS * READ_AHEAD_BYTES}


def _family(name: str) -> Family:
    import torch  # noqa: PLC0415

    from app.accelerators.find import find  # noqa: PLC0415

    try:
        accelerator = find(name)
        _try(accelerator)
        return Family(
            summary=accelerator.describe(),
            devices=tuple(accelerator.devices()),
            backend=torch.distributed.is_available() and torch.distributed.is_backend_available(BACKENDS[name]),
            precision=(_precision(accelerator, scaled=False), _precision(accelerator, scaled=True)),
        )
    except TrainingError as error:
        return Family(problem=error.message, code=error.code)
    except Exception as error:  # noqa: BLE001 - a sick framework may raise anything, and the other families still count
        return Family(problem=f"its first device fails: {tools.first_line(error)}", code=ExitCode.DEVICE)


def _try(accelerator: Accelerator) -> None:
    """One convolution and its gradient on the first device: a driver that is too old only shows there.

    Raises:
        TrainingError: 141, there is no device.
    """
    import torch  # noqa: PLC0415

    device = accelerator.claim(0)
    layer = torch.nn.Conv2d(3, 8, 3).to(device)
    kind = accelerator.autocast_type(autocast=True, scaled=False)
    with torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None):
        loss = layer(torch.ones(1, 3, 8, 8, device=device)).float().sum()
    loss.backward()
    loss.item()


def _precision(accelerator: Accelerator, *, scaled: bool) -> str:
    kind = accelerator.autocast_type(autocast=True, scaled=scaled)
    return {"None": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}[str(kind)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
