"""Who of the gang has been heard, and when that means trouble. Pure: times come in as numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from app.resilience.exit_codes import ExitCode


class TroubleKind(Enum):
    """What a launcher does about a peer."""

    UNEVEN = "uneven"  # it has another number of devices: this gang can't be, with any of its launchers
    GONE = "gone"  # silent, or replaced by another process: its ranks can't be waited for
    FAILED = "failed"  # it said that it ended with an error: this node's ranks get a moment to say why
    STOPPED = "stopped"  # it said that it stopped in good order: this node's ranks are about to do the same


@dataclass(frozen=True)
class Trouble:
    """A peer that will not go on, and the line that says so."""

    kind: TroubleKind
    message: str


@dataclass
class _Peer:
    boot: str
    heard_at: float


class Roster:
    """The peers that this launcher listens to: every other node on node 0, node 0 on the others.

    Args:
        node: this launcher's own node rank.
        devices: how many ranks it starts.
        expected: node ranks of these peers.
        silence: seconds without a word after which a peer is lost.
    """

    def __init__(self, node: int, devices: int, expected: Iterable[int], silence: float) -> None:
        self._node = node
        self._devices = devices
        self._expected = sorted(expected)
        self._silence = silence
        self._peers: dict[int, _Peer] = {}
        self._ended: dict[int, int] = {}
        self._replaced: int | None = None
        self.uneven = ""
        """The line about a node whose number of devices is not that of node 0, once there is one."""
        self.sealed = False
        """The gang was complete once: from now on every peer must stay, and stay the same process."""

    def heard(self, node: int, boot: str, now: float, devices: int, code: int | None = None) -> bool:
        """Notes a word from `node`, whose launcher calls itself `boot`.

        Args:
            node: its node rank.
            boot: another word means another process.
            now: time.monotonic().
            devices: how many ranks it starts.
            code: what it ended with, if it has.

        Returns whether it comes from a launcher that belongs to this gang now.
        """
        peer = self._peers.get(node)
        if peer is None or peer.boot != boot:
            if self.sealed:
                self._replaced = node
                return False
            if code is not None:
                return False  # the last word of an earlier attempt's launcher: its successor is still to come
            self._ended.pop(node, None)
        self._peers[node] = _Peer(boot, now)
        if devices != self._devices and not self.uneven:
            (first, ours), (second, theirs) = sorted([(self._node, self._devices), (node, devices)])
            self.uneven = (
                f"--nproc_per_node: is {ours} on node {first} and {theirs} on node {second}: "
                "all nodes need the same number of devices"
            )
        if code is not None:
            self._ended[node] = code
        return True

    def told(self, node: int, code: int) -> None:
        """Notes what node 0 says of another node's end."""
        self._ended.setdefault(node, code)

    def missing(self, now: float) -> list[int]:
        """Peers that are not there (any more)."""
        there = {node for node, peer in self._peers.items() if now - peer.heard_at <= self._silence}
        return [node for node in self._expected if node not in there]

    def ended(self, node: int) -> bool:
        """Whether `node` has said that it ended."""
        return node in self._ended

    def failure(self) -> tuple[int, int] | None:
        """The first known end with an error: (node, code)."""
        failed = [(node, code) for node, code in self._ended.items() if code not in (ExitCode.DONE, ExitCode.STOPPED)]
        return failed[0] if failed else None

    def trouble(self, now: float, awake_since: float = 0.0) -> Trouble | None:
        """The strongest reason not to go on, or None.

        Args:
            now: time.monotonic().
            awake_since: when this launcher itself last came back from being stopped; silence counts from there.
        """
        if self.uneven:
            return Trouble(TroubleKind.UNEVEN, self.uneven)
        failure = self.failure()
        if failure:
            return Trouble(TroubleKind.FAILED, f"lost a peer: node {failure[0]} ended with code {failure[1]}")
        if self._replaced is not None:
            return Trouble(TroubleKind.GONE, f"lost a peer: node {self._replaced} was started anew")
        if not self.sealed:
            return None
        for node, peer in sorted(self._peers.items()):
            silent = now - max(peer.heard_at, awake_since)
            if node not in self._ended and silent > self._silence:
                return Trouble(TroubleKind.GONE, f"lost a peer: node {node} silent for {silent:.0f} s")
        stopped = [node for node, code in self._ended.items() if code == ExitCode.STOPPED]
        return Trouble(TroubleKind.STOPPED, f"node {stopped[0]} has stopped") if stopped else None
