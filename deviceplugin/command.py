"""Runs the health command: with a limit of time, and never two at once."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

from deviceplugin.smi import Row, parse

_END_SECONDS = 2.0
MAX_BYTES = 262_144
"""What it may print: a table of hundreds of devices is a tenth of it."""


class CommandError(Exception):
    """The command gave no table, in one line that says why."""


class _TooMuchError(Exception):
    pass


class HealthCommand:
    """The command, and the run of it that would not end.

    Args:
        command: program and arguments.
        timeout: seconds.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._command = list(command)
        self._timeout = timeout
        self._stuck: subprocess.Popen[bytes] | None = None

    def rows(self) -> dict[int, Row]:
        """What it says now.

        Raises:
            CommandError: it can't be started, fails, hangs, or prints something else.
        """
        name = self._command[0]
        if self._stuck is not None and self._stuck.poll() is None:
            raise CommandError(f"{name}: still hangs, and can't be killed (process {self._stuck.pid})")
        self._stuck = None
        try:
            # A session of its own: what it starts is killed with it.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror or error}") from None
        try:
            output = _read(process, self._timeout)
            code = process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill(process)
            raise CommandError(f"{name}: does not end within {self._timeout:g} s") from None
        except _TooMuchError:
            self._kill(process)
            raise CommandError(f"{name}: prints more than {MAX_BYTES} bytes") from None
        finally:
            assert process.stdout is not None
            process.stdout.close()
        rows = parse(output.decode("utf-8", "replace"))
        # A tool that found a sick device may well fail: what it says of devices counts.
        if not rows:
            raise CommandError(f"{name}: exit code {code}, and no table of devices in what it printed")
        return rows

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # it waits for a driver that does not answer
            self._stuck = process


def _read(process: subprocess.Popen[bytes], timeout: float) -> bytes:
    """All that it prints until it, and whatever it started, closes its output."""
    assert process.stdout is not None
    late = time.monotonic() + timeout
    printed = b""
    ready = select.poll()
    ready.register(process.stdout, select.POLLIN)
    while True:
        if not ready.poll(max(0.0, late - time.monotonic()) * 1000):
            raise subprocess.TimeoutExpired(process.args, timeout)
        piece = os.read(process.stdout.fileno(), 65_536)
        if not piece:
            return printed
        printed += piece
        if len(printed) > MAX_BYTES:
            raise _TooMuchError
