"""How a pod's ranks ended, in one verdict. Pure: values in, value out."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from app.resilience.exit_codes import OOM_KILLED, ExitCode, permanent
from app.resilience.exit_codes import reason as reason_of
from app.resilience.outcome import Outcome


@dataclass(frozen=True)
class RankEnd:
    """The end of one rank.

    Attributes:
        rank: global rank.
        returncode: as subprocess gives it: negative for a signal.
        outcome: what the rank left in writing, None where it left nothing.
        killed: the launcher had sent it SIGKILL, so that its end says nothing about the cause.
    """

    rank: int
    returncode: int
    outcome: Outcome | None = None
    killed: bool = False

    @property
    def code(self) -> int:
        """The exit code, 128 + n for signal n."""
        return self.returncode if self.returncode >= 0 else 128 - self.returncode

    @property
    def said(self) -> Outcome | None:
        """The outcome, where it speaks of this end (a rank may crash after it has written "done")."""
        return self.outcome if self.outcome and self.outcome.code == self.code else None


@dataclass(frozen=True)
class Verdict:
    """How this launcher ends.

    Attributes:
        code: its exit code.
        reason: one word: exit_codes.reason, or one that says more.
        message: one line for a person.
        exception: type name of the rank's error, "" where there was none.
        exported: path of the ONNX file, where one was written.
        export_error: why there is none.
    """

    code: int
    reason: str
    message: str = ""
    exception: str = ""
    exported: str | None = None
    export_error: str | None = None


class Strength(IntEnum):
    """Classes of ends, the strongest first: one that names a cause wins over one that merely lost its peer."""

    PERMANENT = 0
    OUT_OF_MEMORY = 1
    STOPPED = 2
    DEVICE = 3
    VOLUME = 4
    UNCLASSIFIED = 5
    HANG = 6
    SIGNAL = 7
    LOST_PEER = 8
    LAUNCHER_KILL = 9


_BY_CODE: dict[int, Strength] = {
    ExitCode.DEVICE: Strength.DEVICE,
    ExitCode.VOLUME_IO: Strength.VOLUME,
    ExitCode.UNCLASSIFIED: Strength.UNCLASSIFIED,
    ExitCode.HUNG: Strength.HANG,
    ExitCode.LOST_PEER: Strength.LOST_PEER,
}


def of_code(code: int, message: str, exception: str = "", reason: str = "") -> Verdict:
    """The verdict that a code and its message make; `reason` where it is not the code's own."""
    return Verdict(code, reason or reason_of(code), message, exception)


def verdict(
    ends: Sequence[RankEnd],
    *,
    oom_kills: int = 0,
    stop_asked: bool = False,
    hang: str = "",
    lost_peer: str = "",
    kill_cause: str = "",
) -> Verdict:
    """The strongest of what the ranks and the launcher saw.

    Args:
        ends: one for each rank that was started.
        oom_kills: by how much the cgroup's counter rose during the run.
        stop_asked: the launcher was asked to stop and passed it on.
        hang: what the watchdog saw, "" if nothing.
        lost_peer: what the gang's heartbeat saw, "" if nothing.
        kill_cause: why the launcher killed its ranks, used where nothing else explains their end.
    """
    written = [end.outcome for end in ends if end.outcome and (end.outcome.exported or end.outcome.export_error)]
    exported = written[0].exported if written else None
    export_error = written[0].export_error if written else None
    if ends and all(end.code == 0 for end in ends):
        return Verdict(0, reason_of(0), exported=exported, export_error=export_error)
    own = [end for end in ends if end.code and not end.killed]
    stopped = stop_asked and all(end.code in (ExitCode.STOPPED, ExitCode.LOST_PEER) for end in own)
    found: list[tuple[Strength, bool, int, Verdict]] = []
    for end in own:
        strength = _strength(end, oom_kills, stopped)
        found.append((strength, end.said is None, end.rank, _verdict_of(end, strength, oom_kills)))
    last = max((end.rank for end in ends), default=0) + 1
    for strength, code, message in (
        (Strength.HANG, ExitCode.HUNG, hang),
        (Strength.LOST_PEER, ExitCode.LOST_PEER, lost_peer),
        (Strength.LAUNCHER_KILL, ExitCode.KILLED, kill_cause),
    ):
        if message:
            found.append((strength, False, last, of_code(code, message)))
    if not found:
        return of_code(ExitCode.INTERNAL, "the launcher killed its ranks and can't say why")
    strongest = min(found, key=lambda item: item[:3])[3]
    return replace(strongest, exported=exported, export_error=export_error)


def _strength(end: RankEnd, oom_kills: int, stopped: bool) -> Strength:
    if permanent(end.code):
        return Strength.PERMANENT
    # A loader worker that the kernel killed for memory shows in its rank as an unclassified error.
    if oom_kills > 0 and end.code in (ExitCode.KILLED, ExitCode.UNCLASSIFIED):
        return Strength.OUT_OF_MEMORY
    if end.code == ExitCode.STOPPED and stopped:
        return Strength.STOPPED
    return _BY_CODE.get(end.code, Strength.SIGNAL)


def _verdict_of(end: RankEnd, strength: Strength, oom_kills: int) -> Verdict:
    if strength is Strength.OUT_OF_MEMORY:
        message = f"rank {end.rank}: out of memory, the kernel killed {oom_kills} of this container's processes"
        return Verdict(ExitCode.KILLED, OOM_KILLED, message, end.said.exception if end.said else "")
    if end.said is not None and end.said.message:
        # A permanent end is every rank's alike, and its line begins with the flag or file it is about.
        prefix = "" if strength is Strength.PERMANENT else f"rank {end.rank}: "
        return of_code(end.code, prefix + " ".join(end.said.message.split()), end.said.exception, end.said.reason)
    if end.returncode < 0:
        name = _signal_name(-end.returncode)
        how = "was stopped by SIGTERM before it could checkpoint" if name == "SIGTERM" else f"was killed by {name}"
        return of_code(end.code, f"rank {end.rank} {how}")
    return of_code(end.code, f"rank {end.rank} ended with code {end.code} and left no message")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
