"""Which of several replicas acts: the holder of a Lease.

All waiting is on this machine's monotonic clock: a lease is old when it has not changed for its duration since *we*
first saw it like that, whatever the clocks of others say. A request takes less than the renew deadline, and a holder
that could not renew in time stops before anybody else may begin: renew deadline < lease duration.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from controller.kube.client import LEASES, ApiError, Client
from controller.times import to_text

_LOG = logging.getLogger(__name__)
_NOT_FOUND = 404
_CONFLICT = 409  # somebody else was faster


@dataclass(frozen=True)
class Terms:
    """Seconds: a lease lasts so long, is given up so long after the last renewal, and is renewed so often."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class Election:
    """One replica's part in it.

    Args:
        client: its time-out must be below `terms.deadline`.
        namespace, name: of the Lease.
        identity: of this replica, different from every other's.
        terms: the times.
    """

    def __init__(self, client: Client, namespace: str, name: str, identity: str, terms: Terms) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._terms = terms
        self._renewed = float("-inf")
        self._seen: tuple[Any, float] = (None, 0.0)  # what the lease was like, and since when we have known
        self._stop = threading.Event()

    def leading(self) -> bool:
        """Whether nobody else can be the leader now."""
        return time.monotonic() < self._renewed + self._terms.deadline

    def wait(self, stop: threading.Event) -> bool:
        """Waits until this replica leads; False: `stop` was set before."""
        while not stop.is_set():
            if self._try():
                _LOG.info("leading as %s", self._identity)
                return True
            stop.wait(self._terms.retry)
        return False

    def keep(self, lost: threading.Event) -> threading.Thread:
        """Renews in a thread of its own; sets `lost` and ends once it could not in time."""

        def run() -> None:
            while not self._stop.wait(self._terms.retry):
                if not self._try() and not self.leading():
                    _LOG.error("the lease %s/%s is lost", self._namespace, self._name)
                    lost.set()
                    return

        thread = threading.Thread(target=run, name="election", daemon=True)
        thread.start()
        return thread

    def release(self, keeper: threading.Thread | None = None) -> None:
        """Lets another replica lead at once. Nothing may be written by this one any more."""
        self._stop.set()
        if keeper is not None:
            keeper.join(self._terms.deadline)
        if not self.leading():
            return
        self._renewed = float("-inf")
        try:
            lease = self._client.get(LEASES, self._namespace, self._name)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
                self._client.replace(LEASES, self._namespace, self._name, lease)
        except ApiError as error:
            _LOG.warning("the lease could not be released: %s", error.message)

    def _try(self) -> bool:
        """Takes or renews the lease; whether it is ours now."""
        began = time.monotonic()
        try:
            held = self._write(began)
        except ApiError as error:
            if error.code != _CONFLICT:
                _LOG.warning("the lease %s/%s: %s", self._namespace, self._name, error.message)
            return False
        if held:
            # From the moment of asking on: the answer may have been long on its way.
            self._renewed = began
        return held

    def _write(self, now: float) -> bool:
        try:
            lease = self._client.get(LEASES, self._namespace, self._name)
        except ApiError as error:
            if error.code != _NOT_FOUND:
                raise
            document = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": self._spec(_micro_time(), 0),
            }
            self._client.create(LEASES, self._namespace, document)
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired(spec, now):
            return False
        ours = holder == self._identity
        acquired = spec.get("acquireTime") if ours else _micro_time()
        lease["spec"] = self._spec(acquired or _micro_time(), int(spec.get("leaseTransitions") or 0) + (not ours))
        self._client.replace(LEASES, self._namespace, self._name, lease)
        return True

    def _expired(self, spec: dict[str, Any], now: float) -> bool:
        what = (spec.get("holderIdentity"), spec.get("renewTime"), spec.get("leaseTransitions"))
        if what != self._seen[0]:
            self._seen = (what, now)
        return now >= self._seen[1] + float(spec.get("leaseDurationSeconds") or self._terms.duration)

    def _spec(self, acquired: str, transitions: int) -> dict[str, Any]:
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._terms.duration)),
            "acquireTime": acquired,
            "renewTime": _micro_time(),
            "leaseTransitions": transitions,
        }


def _micro_time() -> str:
    """Now, as a MicroTime: people read it, nobody here counts on it."""
    text = to_text(time.time()).removesuffix("Z")
    seconds, _, fraction = text.partition(".")
    return f"{seconds}.{fraction:0<6}Z"
