"""What is known of the node's devices, shared by the threads that look, serve and tell."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from deviceplugin.devices import Change, Device, Rules, Seen, Unit, changes, devices, units
from deviceplugin.smi import Row


class Board:
    """The newest list of units, with a number that grows with each change.

    Args:
        rules: how devices are counted and judged.
        tell: takes each change of a device.
    """

    def __init__(self, rules: Rules, tell: Callable[[Change], None]) -> None:
        self.rules = rules
        self._tell = tell
        self._changed = threading.Condition()
        self._seen = Seen()
        self._devices: list[Device] = []
        self._units: tuple[Unit, ...] = ()
        self._version = 0

    def files(self, numbers: Iterable[int]) -> None:
        """After a look at the device files."""
        with self._changed:
            self._update(self._seen.with_files(numbers))

    def rows(self, rows: Mapping[int, Row]) -> None:
        """After an answer of the health command."""
        with self._changed:
            self._update(self._seen.with_rows(rows))

    def units(self) -> tuple[Unit, ...]:
        """The list as it is now."""
        with self._changed:
            return self._units

    def devices(self) -> list[Device]:
        """The devices as they are now."""
        with self._changed:
            return self._devices

    def after(self, version: int, timeout: float) -> tuple[int, tuple[Unit, ...]]:
        """The number of the newest list and the list, as soon as it is newer than `version`, or after the time-out."""
        with self._changed:
            self._changed.wait_for(lambda: self._version > version, timeout)
            return self._version, self._units

    def _update(self, seen: Seen) -> None:
        found = devices(seen, self.rules)
        for change in changes(self._devices, found):
            self._tell(change)
        listed = tuple(units(seen, self.rules))
        if not self._version or listed != self._units:
            self._version += 1
            self._changed.notify_all()
        self._seen, self._devices, self._units = seen, found, listed
