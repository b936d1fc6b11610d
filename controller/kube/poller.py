"""Asks the pods how far they are: many at a time, but never more than so many, and each no more often than so often."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from controller.kube.trim import Key
from controller.progress import Identity, Reading, read

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """Where /progress of an attempt is."""

    address: str
    port: int
    identity: Identity


class Poller:
    """Reads /progress of every running attempt.

    Args:
        changed: told of an experiment that has a new reading.
        interval: seconds from one answer to the next question.
        readers: questions under way at a time; each takes 2 s at most.
        ask: reads one target.
    """

    def __init__(
        self,
        changed: Callable[[Key], None],
        interval: float,
        readers: int = 16,
        ask: Callable[[str, int, Identity], Reading] = read,
    ) -> None:
        self._changed = changed
        self._interval = interval
        self._ask = ask
        self._wake = threading.Condition()
        self._targets: dict[Key, Target] = {}
        self._readings: dict[Key, Reading] = {}
        self._silent_since: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key, Target]] = []
        self._count = 0  # tells entries of the same moment apart
        self._free = readers
        self._closed = False
        self._pool = ThreadPoolExecutor(readers, thread_name_prefix="progress")

    def start(self) -> None:
        """Begins, in threads of its own."""
        threading.Thread(target=self._run, name="poller", daemon=True).start()

    def close(self) -> None:
        """Asks nothing any more."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def follow(self, key: Key, target: Target | None) -> None:
        """From now on this target is asked for the experiment; None: none is."""
        with self._wake:
            if self._targets.get(key) == target:
                return
            self._readings.pop(key, None)
            self._silent_since.pop(key, None)
            self._targets.pop(key, None)
            if target is not None:
                self._targets[key] = target
                self._push(key, target, 0.0)

    def take(self, key: Key) -> Reading | None:
        """The newest reading, once: taken twice it would look like a second one that shows no movement."""
        with self._wake:
            return self._readings.pop(key, None)

    def _run(self) -> None:
        while (due := self._next()) is not None:
            try:
                self._pool.submit(self._read, *due)
            except RuntimeError:  # closed meanwhile
                return

    def _next(self) -> tuple[Key, Target] | None:
        """Waits for a target whose time has come and a free reader."""
        with self._wake:
            while not self._closed:
                wait = None
                while self._heap and self._free:
                    at, _, key, target = self._heap[0]
                    if self._targets.get(key) is not target:
                        heapq.heappop(self._heap)
                        continue
                    wait = at - time.monotonic()
                    if wait > 0:
                        break
                    heapq.heappop(self._heap)
                    self._free -= 1
                    return key, target
                self._wake.wait(wait)
            return None

    def _read(self, key: Key, target: Target) -> None:
        reading = None
        try:
            reading = self._ask(target.address, target.port, target.identity)
        except Exception:  # noqa: BLE001 - no answer of a pod may end the asking
            _LOG.exception("%s/%s: reading /progress", *key)
        with self._wake:
            self._free += 1
            current = self._targets.get(key) is target
            if current:
                self._push(key, target, self._interval)
                if reading is not None:
                    self._readings[key] = self._timed(key, reading)
            else:
                self._wake.notify()
        if current and reading is not None:
            self._changed(key)

    def _timed(self, key: Key, reading: Reading) -> Reading:
        """The reading with the time for which there has been no answer."""
        if reading.answered:
            self._silent_since.pop(key, None)
            return reading
        now = time.monotonic()
        return replace(reading, silent=now - self._silent_since.setdefault(key, now))

    def _push(self, key: Key, target: Target, delay: float) -> None:
        self._count += 1
        heapq.heappush(self._heap, (time.monotonic() + delay, self._count, key, target))
        self._wake.notify()
