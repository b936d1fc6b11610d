"""What the node has: device files, and the NUMA nodes of their cards."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path

PCI = Path("/sys/bus/pci/devices")


def device_numbers(directory: Path, prefix: str) -> set[int]:
    """The numbers of the character devices in `directory` that are called `prefix` and a number.

    A directory that is missing holds none.
    """
    name = re.compile(re.escape(prefix) + r"(0|[1-9][0-9]{0,4})")
    found = set()
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            number = name.fullmatch(entry.name)
            with suppress(OSError):
                if number and stat.S_ISCHR(entry.stat().st_mode):
                    found.add(int(number[1]))
    return found


def numa_node(bus: str, pci: Path = PCI) -> int | None:
    """The NUMA node of a PCI address as the vendor's tool writes it; None: not known, or the machine has only one."""
    domain, _, rest = bus.partition(":")
    try:
        node = int((pci / f"{domain[-4:].rjust(4, '0')}:{rest}" / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None
