"""The launcher of one node: starts the ranks, watches them, and ends with their verdict."""

from __future__ import annotations

import math
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from app.config import TrainConfig
from app.launcher import cpus, digits, ports
from app.launcher.cgroup import oom_kills
from app.launcher.gang import SILENCE_SECONDS, Gang
from app.launcher.ranks import Rank, environment
from app.launcher.roster import TroubleKind
from app.launcher.signals import Signals
from app.launcher.verdict import Verdict, of_code, verdict
from app.launcher.watchdog import stall
from app.resilience.exit_codes import ExitCode, TrainingError
from app.telemetry.identity import Identity
from app.telemetry.metrics import Beats, registry
from app.telemetry.progress import document
from app.telemetry.server import Server


@dataclass(frozen=True)
class Times:
    """Seconds, which tests shrink.

    Attributes:
        poll: between two looks at the ranks.
        others: for the other ranks to say why, after one has failed.
        stacks: between SIGUSR1 and SIGKILL, for the ranks to write their stacks.
        reserve: kept of `--grace_seconds` for the launcher's own end.
        silence: after which a launcher of the gang is lost.
    """

    poll: float = 0.1
    others: float = 10.0
    stacks: float = 3.0
    reserve: float = 5.0
    silence: float = SILENCE_SECONDS


_ASLEEP = 5.0
"""A look at the ranks that comes so late means that this launcher itself was stopped (a frozen container)."""


class Launcher:
    """One run of this node's ranks. A context manager: at its end no process, port or file of it is left.

    Args:
        config: the checked options.
        identity: whose run it is.
        rank_command: what a rank is, without what the launcher adds.
        environ: the launcher's environment, which the ranks inherit.
        signals: the requests to stop.
        times: see `Times`.
    """

    def __init__(
        self,
        config: TrainConfig,
        identity: Identity,
        *,
        rank_command: Sequence[str],
        environ: Mapping[str, str],
        signals: Signals,
        times: Times,
    ) -> None:
        self._config = config
        self._identity = identity
        self._rank_command = list(rank_command)
        self._environ = environ
        self._signals = signals
        self._times = times
        self._since = time.time()
        self._folder: Path | None = None
        self._server: Server | None = None
        self._gang: Gang | None = None
        self._ranks: list[Rank] = []
        self._kill_at = math.inf
        self._kill_cause = ""
        self._stop_passed_on = False
        self._hang = ""
        self._lost_peer = ""
        self._looked_at = time.monotonic()
        self._awake_since = 0.0
        self._watch_at = 0.0

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill_all()
        if self._gang is not None:
            self._gang.end(ExitCode.INTERNAL)
        if self._server is not None:
            self._server.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def run(self) -> Verdict:
        """From the ports to the verdict. An end before the ranks run (a TrainingError) becomes a verdict as well."""
        try:
            result = self._run()
        except TrainingError as error:
            result = of_code(error.code, error.message, reason=error.reason)
        if self._gang is not None:
            self._gang.end(result.code)
            self._gang = None
        return result

    def progress(self) -> dict[str, Any]:
        """The /progress document of this moment, from this node's first rank."""
        first = self._ranks[0] if self._ranks else None
        left = first.outcome() if first else None
        return document(
            self._identity,
            first.beat() if first else None,
            since=self._since,
            exported=left.exported if left else None,
            export_error=left.export_error if left else None,
        )

    def _run(self) -> Verdict:
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="resnet-launcher-"))
        except OSError as error:
            message = f"TMPDIR: no temporary folder can be made: {error.strerror}"
            raise TrainingError(ExitCode.VOLUME_IO, message) from None
        self._open_ports()
        if self._config.dataset == "digits":
            digits.prepare(self._config.dataset_path, self._environ, self._signals, self._times.poll)
        if self._gang is not None:
            self._wait_for_gang(self._gang)
        self._signals.check()
        killed_before = oom_kills()
        self._start_ranks(self._folder)
        self._supervise()
        return verdict(
            [rank.end() for rank in self._ranks],
            oom_kills=oom_kills() - killed_before,
            stop_asked=self._stop_passed_on,
            hang=self._hang,
            lost_peer=self._lost_peer,
            kill_cause=self._kill_cause,
        )

    # Before the ranks

    def _open_ports(self) -> None:
        config = self._config
        if config.metrics_port:
            listener = ports.listen(config.metrics_port, "--metrics_port")
            self._server = Server(listener, self.progress, registry(self._identity, config, self._beats))
            self._server.start()
        if config.node_rank == 0 and config.world_size > 1:
            ports.check_free(config.master_port, "--master_port")
        if config.nnodes > 1:
            who = self._identity
            self._gang = Gang(
                f"{who.namespace}/{who.experiment}/{who.uid}/{who.attempt}/{config.nnodes}",
                node=config.node_rank,
                nodes=config.nnodes,
                devices=config.nproc_per_node,
                address=config.master_addr,
                port=config.gang_port,
                listener=ports.listen(config.gang_port, "--gang_port") if config.node_rank == 0 else None,
                silence=self._times.silence,
            )
            self._gang.start()

    def _beats(self) -> Beats:
        beats: Beats = {rank.number: rank.beat() for rank in self._ranks}
        return beats or {self._config.node_rank * self._config.nproc_per_node: None}

    def _wait_for_gang(self, gang: Gang) -> None:
        """Returns when all nodes have met, so that the ranks of all nodes start together.

        Raises:
            TrainingError: LOST_PEER (140) where that takes longer than `--rendezvous_timeout`, or one failed;
                BAD_OPTION (64) where a node has another number of devices.
        """
        deadline = time.monotonic() + self._config.rendezvous_timeout
        while not gang.complete:
            self._signals.wait(self._times.poll)
            self._signals.check()
            trouble = gang.trouble(time.monotonic())
            if trouble is not None:
                uneven = trouble.kind is TroubleKind.UNEVEN
                raise TrainingError(ExitCode.BAD_OPTION if uneven else ExitCode.LOST_PEER, trouble.message)
            if time.monotonic() > deadline:
                waited = f"after {self._config.rendezvous_timeout:g} s (--rendezvous_timeout)"
                raise TrainingError(ExitCode.LOST_PEER, f"the gang is not complete {waited}: {gang.absence()}")

    def _start_ranks(self, folder: Path) -> None:
        number = self._config.nproc_per_node
        usable = cpus.usable()
        sets = cpus.bind(usable, number) if self._config.cpu_binding == "auto" else None
        threads = cpus.threads(usable, number, sets)
        for local_rank in range(number):
            environ = environment(self._config, self._environ, local_rank, folder, threads)
            self._ranks.append(Rank(self._rank_command, environ, sets[local_rank] if sets else None))

    # While the ranks run

    def _supervise(self) -> None:
        while True:
            codes = [rank.poll() for rank in self._ranks]
            if None not in codes:
                return
            now = time.monotonic()
            if now - self._looked_at > _ASLEEP + self._times.poll:
                self._awake_since = now
            self._looked_at = now
            self._heed_signals(now)
            self._heed_ends(now, [code for code in codes if code is not None])
            self._heed_gang(now)
            self._heed_watchdog(now)
            if now >= self._kill_at:
                self._kill_all()
                return
            self._signals.wait(self._times.poll)

    def _kill_by(self, when: float, cause: str) -> None:
        """The ranks that still run at that time are killed; the earliest time counts."""
        if when < self._kill_at:
            self._kill_at = when
            self._kill_cause = cause

    def _kill_all(self) -> None:
        for rank in self._ranks:
            rank.kill()
        for rank in self._ranks:
            rank.wait()

    @property
    def _patience(self) -> float:
        """Seconds that ranks which are asked to stop get."""
        return self._config.grace_seconds - self._times.reserve

    def _heed_signals(self, now: float) -> None:
        if self._signals.count and not self._stop_passed_on:
            self._stop_passed_on = True
            for rank in self._ranks:
                rank.signal(signal.SIGTERM)
            cause = f"killed: the ranks had not stopped {self._patience:g} s after {self._signals.first}"
            self._kill_by(now + self._patience, cause)
        if self._signals.count > 1:
            self._kill_by(now, "killed: a second signal came before the ranks had stopped")

    def _heed_ends(self, now: float, codes: list[int]) -> None:
        fine = {0, int(ExitCode.STOPPED)} | ({-signal.SIGTERM} if self._stop_passed_on else set())
        if any(code not in fine for code in codes):
            self._kill_by(now + self._times.others, "killed after another rank had failed")
        elif any(code == ExitCode.STOPPED for code in codes):
            # All ranks agree on a stop; the one that writes the checkpoint takes the longest.
            self._kill_by(now + self._patience, "killed: other ranks had stopped long before")

    def _heed_gang(self, now: float) -> None:
        trouble = self._gang.trouble(now, self._awake_since) if self._gang else None
        if trouble is None:
            return
        if trouble.kind is TroubleKind.STOPPED:
            self._kill_by(now + self._patience, f"killed: {trouble.message} long before")
            return
        self._lost_peer = self._lost_peer or trouble.message
        self._kill_by(now + (self._times.others if trouble.kind is TroubleKind.FAILED else 0), trouble.message)

    def _heed_watchdog(self, now: float) -> None:
        if now < self._watch_at:
            return
        self._watch_at = now + min(1.0, self._config.watchdog_seconds / 10)
        running = [rank for rank in self._ranks if rank.poll() is None]
        found = stall([rank.pulse(self._awake_since) for rank in running], now, self._config.watchdog_seconds)
        if found is None or self._hang:
            return
        self._hang = found.message
        for rank in running:
            # One after the other: they write to the same log, and a stack doesn't say whose it is.
            print(f"run_resnet: the threads of rank {rank.number}:", file=sys.stderr, flush=True)
            rank.signal(signal.SIGUSR1)
            time.sleep(min(0.1, 2.0 / len(running)))
        self._kill_by(time.monotonic() + self._times.stacks, found.message)
