"""The ranks of this node as processes: start, look, signal, reap."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.config import TrainConfig
from app.launcher.cpus import CpuSet, shown
from app.launcher.verdict import RankEnd
from app.launcher.watchdog import Pulse
from app.modules import python_environment
from app.resilience import heartbeat, outcome
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.heartbeat import Beat, Phase
from app.resilience.parent import ENV_LAUNCHER


def environment(
    config: TrainConfig, environ: Mapping[str, str], local_rank: int, folder: Path, threads: int
) -> dict[str, str]:
    """What one rank finds in its environment; `threads` are for its computing, unless the user has said how many."""
    rank = config.node_rank * config.nproc_per_node + local_rank
    result = python_environment(environ)
    result.pop("RESNET_PARENT_PID", None)  # the launcher's parent is not the rank's
    result.setdefault("OMP_NUM_THREADS", str(threads))
    return result | {
        "RANK": str(rank),
        "LOCAL_RANK": str(local_rank),
        "WORLD_SIZE": str(config.world_size),
        "LOCAL_WORLD_SIZE": str(config.nproc_per_node),
        # One node needs no name that a cluster's DNS would have to know.
        "MASTER_ADDR": config.master_addr if config.nnodes > 1 else "127.0.0.1",
        "MASTER_PORT": str(config.master_port),
        ENV_LAUNCHER: str(os.getpid()),
        heartbeat.ENV_HEARTBEAT: str(folder / f"heartbeat-{rank}"),
        outcome.ENV_OUTCOME: str(folder / f"outcome-{rank}.json"),
    }


class Rank:
    """One rank: a process in a session of its own, so that a terminal's Ctrl-C reaches the launcher alone.

    Started from the launcher's main thread: the rank asks the kernel to die with the thread that started it.

    Args:
        command: what it is.
        environ: its whole environment, from `environment`.
        cpus: where it may run, with all that it starts; None: where the launcher may.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cpus: CpuSet | None) -> None:
        self.number = int(environ["RANK"])
        self._heartbeat = Path(environ[heartbeat.ENV_HEARTBEAT])
        self._outcome = Path(environ[outcome.ENV_OUTCOME])
        self._started_at = time.monotonic()
        self._killed = False
        try:
            with _running_on(cpus, f"rank {self.number}"):
                self._process = subprocess.Popen(
                    list(command), env=dict(environ), start_new_session=True, stdin=subprocess.DEVNULL
                )
        except OSError as error:
            message = f"rank {self.number} could not be started: {error.strerror}"
            raise TrainingError(ExitCode.UNCLASSIFIED, message) from None

    def poll(self) -> int | None:
        """The return code (negative: a signal), None while it runs."""
        running = self._process.returncode is None
        code = self._process.poll()
        if running and code is not None:
            self._signal_group()  # loader workers that outlived their rank
        return code

    def signal(self, number: int) -> None:
        """Sends a signal to the rank itself, not to its workers."""
        if self.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the rank and its workers; its end says nothing about a cause from then on."""
        if self.poll() is None:
            self._killed = True
            self._signal_group()

    def wait(self) -> None:
        """Reaps it."""
        self._process.wait()
        self.poll()

    def _signal_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def outcome(self) -> outcome.Outcome | None:
        """What it left in writing."""
        return outcome.read(self._outcome)

    def end(self) -> RankEnd:
        """How it ended; only after `poll` gave a code."""
        code = self.poll()
        if code is None:
            raise ValueError(f"rank {self.number} still runs")
        return RankEnd(self.number, code, self.outcome(), self._killed)

    def beat(self) -> Beat | None:
        """Its last beat."""
        return heartbeat.read(self._heartbeat)

    def pulse(self, awake_since: float) -> Pulse:
        """What the watchdog looks at. The time before `awake_since`, when the launcher stood still too, is left out."""
        beat = self.beat()
        state = process_state(self._process.pid)
        if beat is None:
            return Pulse(self.number, Phase.START, 0, max(self._started_at, awake_since), self._started_at, state)
        return Pulse(self.number, beat.phase, beat.step, max(beat.moved_at, awake_since), beat.beat_at, state)


@contextlib.contextmanager
def _running_on(cpus: CpuSet | None, who: str) -> Iterator[None]:
    """Binds this thread for a moment: a child inherits it, with no moment in which its own threads are unbound."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as error:  # a CPU went offline, or the container forbids it: slower, but no reason not to train
        why = f"{who} can't be bound to CPUs {shown(cpus)} ({error.strerror}), and is not"
        print(f"run_resnet: warning: --cpu_binding: {why}", file=sys.stderr)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, before)


def process_state(pid: int) -> str:
    """The letter of proc(5)'s process state, "" where there is no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat[stat.rindex(")") + 2]
