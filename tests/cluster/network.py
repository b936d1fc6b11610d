"""Addresses and links: each node is a network namespace, tied to the host and to the other nodes by cables of its own.

The host has the bridge `rnx0` with nothing in it. It carries the host's address and the route of the whole block, so
that packets to a node that is off are lost as on a real network, and never leave this machine.
"""

from __future__ import annotations

import json
import random
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

BRIDGE = "rnx0"
CANDIDATES = tuple(IPv4Network(f"10.{second}.0.0/16") for second in range(200, 251))
# Below the range that the kernel gives to outgoing connections (/proc/sys/net/ipv4/ip_local_port_range).
PORTS = range(20000, 30000)
CNI_PLUGINS = "/usr/lib/cni"


@dataclass(frozen=True)
class Block:
    """The addresses of one cluster, all in one /16."""

    network: IPv4Network

    @property
    def host(self) -> IPv4Address:
        """Where API server and DNS listen."""
        return self.network[1]

    @property
    def services(self) -> IPv4Network:
        """The addresses of Services; the first is the API server's."""
        return IPv4Network(f"{self.network[128 * 256]}/20")

    def node(self, index: int) -> IPv4Address:
        """The address of a node."""
        return self.network[11 + index]

    def pods(self, index: int) -> IPv4Network:
        """The addresses of a node's pods."""
        return IPv4Network(f"{self.network[(1 + index) * 256]}/24")


def free_block(routes: Iterable[IPv4Network]) -> Block:
    """The first block that none of `routes` (the default route left out) leads into.

    Raises:
        RuntimeError: all are taken.
    """
    taken = [route for route in routes if route.prefixlen]
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(route) for route in taken):
            return Block(candidate)
    raise RuntimeError(f"no free subnet: this machine has routes into each of {CANDIDATES[0]} … {CANDIDATES[-1]}")


def routes() -> list[IPv4Network]:
    """Where this machine has routes to."""
    listed = subprocess.run(["ip", "-json", "-4", "route", "show", "table", "all"], capture_output=True, check=True)
    return [
        IPv4Network("0.0.0.0/0" if route["dst"] == "default" else route["dst"], strict=False)
        for route in json.loads(listed.stdout or "[]")
    ]


def free_ports(address: str, count: int) -> list[int]:
    """TCP ports that nobody listens on at `address` now.

    Raises:
        RuntimeError: there are fewer than `count` of them.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} free TCP ports on {address} in {PORTS.start}-{PORTS.stop - 1}")


def exists(link: str) -> bool:
    """Whether the host has a network device of that name."""
    return Path("/sys/class/net", link).exists()


def attach_host(block: Block) -> None:
    """Give the host its address and the route into the block."""
    _ip(
        f"link add {BRIDGE} type bridge",
        f"address add {block.host}/{block.network.prefixlen} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    )


def detach_host() -> None:
    """Remove it; the cables of nodes go with their namespaces."""
    if exists(BRIDGE):
        _ip(f"link delete {BRIDGE}")


def cable(index: int) -> str:
    """The host's end of the cable to a node."""
    return f"rnx-{index}"


def attach_node(block: Block, index: int, pid: int, others: dict[int, int]) -> None:
    """Connect the namespace of process `pid` as node `index`: to the host, and to each of `others` ({index: pid}).

    Inside, `host` leads to the host and to all that is off, and `node-<index>` to that node and its pods.
    """
    _ip(
        f"link add {cable(index)} type veth peer name host netns {pid}",
        *_towards(block, index, cable(index), block.host),
    )
    _ip(
        "link set lo up",
        f"address add {block.node(index)}/{block.network.prefixlen} dev host",
        "link set host up",
        inside=pid,
    )
    for other, other_pid in others.items():
        _ip(f"link add node-{other} netns {pid} type veth peer name node-{index} netns {other_pid}")
        _ip(*_towards(block, other, f"node-{other}", block.node(index)), inside=pid)
        _ip(*_towards(block, index, f"node-{index}", block.node(other)), inside=other_pid)


def unplug(index: int, others: Iterable[int]) -> None:
    """Pull a node's cables, from the other ends: not one more packet of it gets out."""
    if exists(cable(index)):
        _ip(f"link delete {cable(index)}")
    for pid in others:
        if f"node-{index}:" in Path(f"/proc/{pid}/net/dev").read_text():
            _ip(f"link delete node-{index}", inside=pid)


def cni_config(block: Block, index: int) -> str:
    """How containerd connects the pods of a node: all to one bridge, routed, their addresses never rewritten."""
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(block.pods(index))}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni",
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, portmap]}, indent=1) + "\n"


def _towards(block: Block, index: int, device: str, source: IPv4Address) -> Sequence[str]:
    """How the owner of the address `source` reaches a node and its pods by `device`."""
    return (
        f"link set {device} up",
        f"route add {block.node(index)}/32 dev {device} src {source}",
        f"route add {block.pods(index)} via {block.node(index)} dev {device} src {source}",
    )


def _ip(*commands: str, inside: int | None = None) -> None:
    enter = ["nsenter", "--net", "--target", str(inside)] if inside is not None else []
    done = subprocess.run(
        [*enter, "ip", "-batch", "-"], input="\n".join(commands) + "\n", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"ip {'; '.join(commands)}: {done.stderr.strip()}")
