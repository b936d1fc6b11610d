"""Which experiment is looked at next: each at most once at a time, and never twice for two reasons at once.

What has changed goes before what has only new figures: where the API server takes fewer writes than there are, a pod
that ended is not to wait behind the steps of a thousand others.
"""

from __future__ import annotations

import heapq
import random
import threading
import time

from controller.kube.trim import Key

_PATIENT_TURN = 4
"""Of so many keys one is a patient one, if there is any: they are never left out altogether."""


class Queue:
    """A keyed queue with appointments and a back-off for each key. Threads share it.

    A key that is added while it is worked on comes again afterwards. It has one appointment at most: a later one takes
    the place of an earlier. Keys that are `patient` stand in a line of their own, behind the others.

    Args:
        base, most: seconds of back-off after the first failure in a row, and at most.
    """

    def __init__(self, base: float = 0.2, most: float = 60.0) -> None:
        self._changed = threading.Condition()
        self._ready: dict[Key, None] = {}  # in order of arrival
        self._patient: dict[Key, None] = {}
        self._turn = 0
        self._busy: set[Key] = set()
        self._again: dict[Key, bool] = {}  # whether it is patient
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._base = base
        self._most = most
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker."""
        with self._changed:
            return len(self._ready) + len(self._patient) + len(self._again)

    def add(self, key: Key, *, patient: bool = False) -> None:
        """The key is to be looked at now."""
        with self._changed:
            self._add(key, patient)

    def add_after(self, key: Key, seconds: float) -> None:
        """The key is to be looked at after that time, if nothing else has it looked at before."""
        with self._changed:
            self._due[key] = time.monotonic() + max(0.0, seconds)
            heapq.heappush(self._heap, (self._due[key], key))
            self._changed.notify()

    def failed(self, key: Key) -> float:
        """The key could not be looked at: again after a back-off, which is returned in seconds."""
        with self._changed:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(self._most, self._base * 2.0 ** min(failures - 1, 30))
        delay *= random.uniform(0.75, 1.25)  # noqa: S311 - no secret: keeps those that failed together apart
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Ends the back-off of a key."""
        with self._changed:
            self._failures.pop(key, None)

    def get(self) -> Key | None:
        """Waits for a key and takes it; `done` gives it back. None: the queue is closed."""
        with self._changed:
            while not self._closed:
                wait = self._expire()
                line = self._next_line()
                if line:
                    key = next(iter(line))
                    del line[key]
                    self._due.pop(key, None)
                    self._busy.add(key)
                    return key
                self._changed.wait(wait)
            return None

    def done(self, key: Key) -> None:
        """The work on a key is over."""
        with self._changed:
            self._busy.discard(key)
            if key in self._again:
                self._add(key, self._again.pop(key))

    def close(self) -> None:
        """Nothing is given out any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _add(self, key: Key, patient: bool) -> None:
        if key in self._busy:
            self._again[key] = patient and self._again.get(key, True)
            return
        if patient and key not in self._ready:
            self._patient[key] = None
        else:
            self._patient.pop(key, None)
            self._ready[key] = None
        self._changed.notify()

    def _next_line(self) -> dict[Key, None]:
        self._turn = (self._turn + 1) % _PATIENT_TURN
        return self._patient if self._patient and (self._turn == 0 or not self._ready) else self._ready

    def _expire(self) -> float | None:
        """Makes ready whose time has come; returns the seconds until the next one's."""
        now = time.monotonic()
        while self._heap:
            at, key = self._heap[0]
            if self._due.get(key) == at:
                if at > now:
                    return at - now
                self._add(key, patient=False)
            heapq.heappop(self._heap)  # also an appointment that was moved or has been kept
        return None
