"""What a rank learns of the others at an exchange, besides when to end: bad files, non-finite steps, stragglers."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable

from app.data.bad_files import BadFiles
from app.ranks import Rank
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.heartbeat import Heart
from app.resilience.report import Verdict
from app.resilience.stragglers import Change, Stragglers


class GangNews:
    """Takes each verdict, and puts what it says into heartbeat and log. Every rank makes one at the same point.

    Args:
        rank: this rank.
        heart: gets the gang's counters, and how slow this rank is.
        bad_files: the loader's.
        name: index of a training image -> where it lies.
        say: prints one line of log; called on rank 0 only.
    """

    def __init__(
        self, rank: Rank, heart: Heart, bad_files: BadFiles, name: Callable[[int], str], say: Callable[[str], None]
    ) -> None:
        self._rank, self._heart, self._bad_files, self._name, self._say = rank, heart, bad_files, name, say
        self._stragglers = Stragglers()
        pod = os.environ.get("RESNET_POD")
        place = f"pod {pod}" if pod else f"host {socket.gethostname()}"
        self._places: list[str] = rank.gather(f"local rank {rank.local_rank}, {place}")

    def take(self, verdict: Verdict) -> None:
        """Must be called by every rank for every verdict, before the next step.

        Raises:
            TrainingError: 65, the ranks together met too many bad files; alike on all of them.
        """
        if verdict.bad_files:
            self._bad_files.learn(self._rank.gather(self._bad_files.untold))
            self._heart.beat(bad_images=len(self._bad_files))
            line = self._bad_files.too_many(self._name)
            if line:
                raise TrainingError(ExitCode.BAD_DATA, line)
        for change in self._stragglers.take(verdict.busy_seconds):
            if self._rank.is_first:
                self._say(f"train: {self._line(change)}")
        ratios, worst = self._stragglers.ratios, self._stragglers.worst()
        self._heart.beat(
            nonfinite_steps=verdict.nonfinite_steps,
            slowdown_ratio=ratios[self._rank.rank] if ratios else math.nan,
            straggler_rank=worst[0] if worst else -1,
            straggler_ratio=worst[1] if worst else math.nan,
        )

    def _line(self, change: Change) -> str:
        who = f"rank {change.rank} ({self._places[change.rank]})"
        what = "is a straggler" if change.begins else "is a straggler no more"
        return f"{who} {what}: it computes {change.ratio:.2f} times as long per step as the median of the others"
