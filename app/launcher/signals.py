"""SIGTERM and SIGINT as a count that the launcher's loop looks at. Imports nothing slow: it is installed first."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType

from app.resilience.exit_codes import ExitCode, TrainingError


class Signals:
    """Counts the requests to stop, and wakes the loop that waits for them."""

    def __init__(self) -> None:
        self.count = 0
        self.first = ""
        self._parent = 0
        self._wake, self._woken = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT; only the main thread may call it."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def follow(self, parent: int) -> None:
        """After the end of this parent all requests are one and the same.

        The kernel sends one because the parent has ended (`die_with_parent`), whoever cleans up after it another;
        the parent itself may have sent one before. None of them is the impatience that a second signal stands for.
        """
        self._parent = parent

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.count and self._parent and os.getppid() != self._parent:
            return
        self.count += 1
        self.first = self.first or signal.Signals(number).name

    def wait(self, seconds: float) -> None:
        """Returns after `seconds`, or as soon as a signal arrives."""
        readable, _, _ = select.select([self._wake], [], [], seconds)
        if readable:
            os.read(self._wake, 512)

    def check(self) -> None:
        """For the time before there are ranks to pass a signal on to.

        Raises:
            TrainingError: STOPPED (143), a signal has come.
        """
        if self.count:
            raise TrainingError(ExitCode.STOPPED, f"stopped by {self.first} before the ranks were started")
