"""Starting, watching and ending the processes that stand for pods; nothing here knows of Kubernetes."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class Waker:
    """Wakes a waiting loop from a thread or a signal handler (a pipe: no lock that a handler could find taken)."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)

    def wake(self) -> None:
        """Ends the wait that is on, or the next one at once."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"x")

    def wait(self, seconds: float) -> None:
        """Returns after `seconds`, or as soon as somebody calls `wake`."""
        select.select([self._read], [], [], max(0.0, seconds))
        with contextlib.suppress(BlockingIOError):
            while os.read(self._read, 4096):
                pass


@dataclass(frozen=True)
class Mark:
    """Tells one process from every other that had or will have its number.

    Attributes:
        pid: its number.
        started: clock ticks from the machine's start to its own.
        boot: identifies the machine's start.
    """

    pid: int
    started: int
    boot: str

    @staticmethod
    def of(pid: int) -> Mark | None:
        """The mark of a running process; None where there is none (a zombie counts as none)."""
        try:
            # The name, in brackets, may hold anything: the fields are counted from its end.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        return None if fields[0] in "ZX" else Mark(pid, int(fields[19]), boot)

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return Mark.of(self.pid) == self


class Process:
    """One process in a session of its own, so that Ctrl-C on the terminal does not reach it.

    When it ends, what it left behind in its process group is killed, as a container's processes are.

    Attributes:
        pid: its number.
        exit_code: None while it runs; 128 + n after signal n.
        ended_at: unix seconds, 0 while it runs.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path, waker: Waker) -> None:
        with open(log, "ab") as output:
            self._popen = subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self.exit_code: int | None = None
        self.ended_at = 0.0
        self._waker = waker
        self._thread = threading.Thread(target=self._watch, name=f"wait-{self.pid}", daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        # Left as a zombie until its group is killed: so the number can't be somebody else's by then.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        self._kill_group()
        code = self._popen.wait()
        self.ended_at = time.time()
        self.exit_code = code if code >= 0 else 128 - code
        self._waker.wake()

    def terminate(self) -> None:
        """SIGTERM to the process alone: a launcher tells its ranks itself."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                self._popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the process and its group."""
        if self.exit_code is None:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within `seconds`."""
        self._thread.join(seconds)
        return self.exit_code is not None


def end_leftovers(marks: Sequence[Mark], grace_seconds: float) -> int:
    """Ends the processes of an earlier run that still live: SIGTERM, after `grace_seconds` SIGKILL to their groups.

    Returns:
        How many there were.
    """
    alive = [mark for mark in marks if mark.alive()]
    for mark in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(mark.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_seconds
    left = alive
    while left and time.monotonic() < deadline:
        time.sleep(0.1)
        left = [mark for mark in left if mark.alive()]
    for mark in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(mark.pid, signal.SIGKILL)
    while left:
        time.sleep(0.05)
        left = [mark for mark in left if mark.alive()]
    return len(alive)


def free_ports(count: int) -> list[int]:
    """Numbers of TCP ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
