"""The processes of a cluster: each is known by its id and its start, and ended by them, whoever started it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# It writes down who it is before it becomes the program: a process that runs is always recorded.
RECORD_THEN_RUN = 'read -r stat </proc/$$/stat; echo "$(cat /proc/sys/kernel/random/boot_id) $stat" >"$0"; exec "$@"'
RECORD_SECONDS = 10.0
# A proxy of the user's can't reach the cluster, and Go's programs would ask it.
NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}
ENDED_STATES = ("Z", "X")


@dataclass(frozen=True)
class Identity:
    """What tells a process from all others: `started` is in clock ticks after the boot `boot`."""

    boot: str
    pid: int
    started: int


def identity(record: str) -> Identity:
    """The process of a record: the boot id, a space, and its line of /proc/<pid>/stat (see proc(5))."""
    boot, _, stat = record.partition(" ")
    return Identity(boot, int(stat.split(" ", 1)[0]), int(_after_name(stat)[19]))


def _after_name(stat: str) -> list[str]:
    """The fields of a stat line from the third on: the second is a name, which may hold anything."""
    return stat[stat.rindex(")") + 2 :].split()


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            stat = (directory / "stat").read_text()
        except OSError:
            continue
        if int(_after_name(stat)[1]) == pid:
            found.append(int(directory.name))
    return found


class Processes:
    """Those of one cluster: a record of each lies in `records`, its output in `logs`."""

    def __init__(self, records: Path, logs: Path) -> None:
        self.records = records
        self.logs = logs

    def start(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
        """Start `command`, away from this process's session, its output appended to its log."""
        for directory in (self.records, self.logs):
            directory.mkdir(parents=True, exist_ok=True)
        record = self.records / name
        record.unlink(missing_ok=True)
        with self.log(name).open("ab") as log:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", RECORD_THEN_RUN, record, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **NO_PROXY, **(environment or {})},
                check=True,
            )
        late = time.monotonic() + RECORD_SECONDS
        while self._identity(name) is None:
            if time.monotonic() > late:
                raise RuntimeError(f"{name} did not start: {self.last_lines(name)}")
            time.sleep(0.005)

    def log(self, name: str) -> Path:
        """The file with the output of `name`."""
        return self.logs / f"{name}.log"

    def last_lines(self, name: str, count: int = 5) -> str:
        """The end of its output."""
        path = self.log(name)
        return "\n".join(path.read_text(errors="replace").splitlines()[-count:]) if path.exists() else ""

    def names(self) -> list[str]:
        """All that were started and not ended by end()."""
        records = self.records.iterdir() if self.records.exists() else ()
        return sorted(path.name for path in records)

    def pid(self, name: str) -> int | None:
        """Its process id, None if it does not run (it ended, or its id is another process's by now)."""
        found = self._identity(name)
        return found.pid if found is not None and runs(found) else None

    def resident_bytes(self, name: str) -> int:
        """The memory of it and of its children (what runs on a node is the child of an nsenter); 0 if it is gone."""
        pid, pages = self.pid(name), 0
        for each in (pid, *children(pid)) if pid is not None else ():
            with suppress(OSError):
                pages += int(Path(f"/proc/{each}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self, name: str) -> None:
        """End it at once: what it keeps goes with it. Nothing happens if it does not run."""
        found = self._identity(name)
        if found is not None:
            end(found)
        (self.records / name).unlink(missing_ok=True)

    def _identity(self, name: str) -> Identity | None:
        try:
            record = (self.records / name).read_text()
        except FileNotFoundError:
            return None
        return identity(record) if record.endswith("\n") else None


def runs(process: Identity) -> bool:
    """Whether that very process still runs."""
    if process.boot != BOOT_ID.read_text().strip():
        return False
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except OSError:
        return False
    fields = _after_name(stat)
    return int(fields[19]) == process.started and fields[0] not in ENDED_STATES


def end(process: Identity) -> None:
    """SIGKILL that very process and wait until it is gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # From here on the handle stands for one process, whatever becomes of its number.
        if not runs(process):
            return
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        gone = select.poll()
        gone.register(handle, select.POLLIN)
        gone.poll()
    finally:
        os.close(handle)
