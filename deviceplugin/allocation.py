"""What a container gets with its devices: device nodes, environment, mounts. PURE."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

from deviceplugin.devices import Device, Rules, Unit

Numbering = Literal["container", "host"]


class AllocationError(Exception):
    """These devices can't be given, in one line that says why."""


@dataclass(frozen=True)
class Mount:
    """A path of the host, and where the container finds it."""

    host: str
    container: str
    read_only: bool = True


@dataclass(frozen=True)
class Extras:
    """What is given beside the devices' nodes.

    Args:
        permissions: of the nodes, of r, w and m (mknod).
        visible: the variable with the devices' indices; empty: none is set.
        numbering: the indices count the devices that the container has, from 0, or are those of the host.
        env: further variables.
        mounts: further mounts.
    """

    permissions: str = "rw"
    visible: str = "SDAA_VISIBLE_DEVICES"
    numbering: Numbering = "container"
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True)
class Allocation:
    """What one container gets; `nodes` are (path on the host, path in the container)."""

    nodes: tuple[tuple[str, str], ...]
    env: Mapping[str, str]


def allocate(units: Collection[Unit], ids: Collection[str], rules: Rules, extras: Extras) -> Allocation:
    """The allocation of the units with these ids.

    The container finds its devices in /dev, under the host's names.

    Raises:
        AllocationError: there is no such unit, or it is unusable by now.
    """
    known = {each.id: each for each in units}
    found: list[Device] = []
    for each in ids:
        unit = known.get(each)
        if unit is None:
            raise AllocationError(
                f"there is no device {each} on this node: it has {', '.join(sorted(known)) or 'none'}"
            )
        if unit.trouble:
            raise AllocationError(f"{each} is unusable: {unit.trouble}")
        found += unit.devices
    found.sort(key=lambda device: device.number)
    env = dict(extras.env)
    if extras.visible:
        numbers = range(len(found)) if extras.numbering == "container" else [device.number for device in found]
        env[extras.visible] = ",".join(map(str, numbers))
    nodes = tuple((f"{rules.directory}{device.name}", f"/dev/{device.name}") for device in found)
    return Allocation(nodes, env)
