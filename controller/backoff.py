"""How long things are waited for. PURE."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """The controller's own times, in seconds (a user's are in the spec). Tests and the local backend shrink them.

    Attributes:
        backoff_base, backoff_max: a new attempt waits base x 2^k, at most max.
        settle: after the first failure the other pods are waited for so long.
        peer_extra: where all that ended lost a peer, the pods that have not ended are waited for
            nodeGracePeriodSeconds plus this: a lost node is marked as such only then.
        pick_up: training-operator has to pick up a job in this time.
        progress_interval: the numbers in status change at most so often, besides once an epoch.
        reachable_after: a running attempt may be silent so long before it counts as unreachable.
        create_retry: a POST that was refused is tried again after this time.
        dead_node: a terminating pod of a lost node is given up so long after its grace period.
        resync: look again after this time while something else is waited for.
    """

    backoff_base: float = 10.0
    backoff_max: float = 300.0
    settle: float = 30.0
    peer_extra: float = 60.0
    pick_up: float = 60.0
    progress_interval: float = 10.0
    reachable_after: float = 30.0
    create_retry: float = 30.0
    dead_node: float = 30.0
    resync: float = 30.0


def delay(attempts_without_progress: int, timing: Timing) -> float:
    """Seconds to wait before the next attempt: none after progress, else base x 2^k up to the maximum."""
    if attempts_without_progress == 0:
        return 0.0
    return min(timing.backoff_max, timing.backoff_base * 2.0 ** min(attempts_without_progress, 64))


def jitter(uid: str, attempt: int) -> float:
    """A number in [0, 1) that differs between experiments and attempts, and is the same for one at each look.

    Two gangs that each hold half of the nodes must not try again at the same moment.
    """
    digest = hashlib.sha256(f"{uid}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64
