"""Which checkpoint a start continues from, and which start may write."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from app.resilience.checkpoint import (
    BadCheckpoint,
    CheckpointInfo,
    checkpoints,
    kept,
    remove,
    step_of,
    sweep,
    sync_directory,
    verify,
)
from app.resilience.end import End
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.identity import Identity, claim_identity
from app.resilience.starts import STARTS, Link, claim, line, numbers, parent_name, read_records
from app.resilience.writer import CheckpointWriter
from app.telemetry.events import finite

END = "END.json"

_PERMANENT = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}
"""Errors of a directory that will be the same at the next attempt. Others (ENOSPC, EIO, ESTALE …) may pass."""


@dataclass
class Lineage:
    """One start of a run, held by global rank 0. Made by `Lineage.open`.

    Attributes:
        root: the checkpoint directory of the run.
        start: this start's number.
        parent: the checkpoint to continue from, its hashes checked; None: begin at step 0.
        finished: where the run in this directory is done already, its end. Nothing was claimed then, and `start` is
            the one that finished.
        warnings: lines for a person.
    """

    root: Path
    start: int
    parent: Path | None = None
    finished: End | None = None
    warnings: list[str] = field(default_factory=list)
    links: tuple[Link, ...] = ()

    @classmethod
    def open(
        cls,
        root: Path,
        identity: Identity,
        *,
        attempt: int,
        resume: str = "auto",
        adopt: bool = False,
        pod: str = "",
    ) -> Lineage:
        """Checks whose directory it is, claims the next start and chooses the checkpoint to continue from.

        Args:
            root: the checkpoint directory; made where absent.
            identity: who trains what.
            attempt: the controller's number, kept in the claim.
            resume: "auto" (the newest good checkpoint on the line), "none" (begin at step 0) or a checkpoint's path.
            adopt: take over the directory of another experiment.
            pod: kept in the claim.

        Raises:
            TrainingError: BAD_OPTION, the directory can't be written, or is another run's, or `resume` names no good
                checkpoint; VOLUME_IO, an error that may pass (ENOSPC, EIO, ESTALE …).
        """
        root = root.absolute()
        with volume_errors(f"--checkpoint_dir {root}"):
            (root / STARTS).mkdir(parents=True, exist_ok=True)
            used = any(checkpoints(root / str(n)) or (root / str(n) / END).exists() for n in numbers(root))
            claim_identity(root, identity, adopt=adopt, empty=not used)
        if resume == "auto" and (done := _finished(root)):
            return done
        given = None if resume in ("auto", "none") else _given(Path(resume))
        with volume_errors(f"--checkpoint_dir {root}"):
            number, fd = claim(root)
            lineage = cls(root, number, parent=given)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                # Claimed first, chosen second: from here on older starts commit nothing more that could be missed.
                if resume == "auto":
                    lineage._choose()
                parent = lineage.parent and parent_name(lineage.parent, root)
                record = {"attempt": attempt, "parent": parent, "time": time.time(), "pod": pod}
                file.write(json.dumps({**record, "host": socket.gethostname()}) + "\n")
                file.flush()
                os.fsync(file.fileno())
            lineage.links = tuple(link for link in line(read_records(root), number) if isinstance(link, Link))
            lineage.directory.mkdir(exist_ok=True)
            sync_directory(root)
        return lineage

    @property
    def directory(self) -> Path:
        """The only directory that this start writes to."""
        return self.root / str(self.start)

    def superseded(self) -> int | None:
        """The newest start, if it is newer than this one.

        A network file system may show a new start late (NFS: up to a minute). The line of training does not depend
        on this answer; it only ends a zombie early.
        """
        newest = max(numbers(self.root / STARTS), default=0)
        return newest if newest > self.start else None

    def fence(self) -> None:
        """Asked before every commit and every pruning.

        Raises:
            TrainingError: LOST_PEER, a newer start owns the run.
        """
        newest = self.superseded()
        if newest:
            raise TrainingError(
                ExitCode.LOST_PEER,
                f"superseded by start {newest} of {self.root}: this is start {self.start}, it writes no more there",
            )

    def writer(self, *, keep: int) -> CheckpointWriter:
        """The writer of this start's checkpoints; it keeps the `keep` newest of the whole line, and the best."""
        return CheckpointWriter(
            self.directory, fence=self.fence, tidy=lambda info, best: self.prune(info, keep=keep, best=best)
        )

    def prune(self, committed: CheckpointInfo, *, keep: int, best: int | None) -> None:
        """Removes what is too old on this line, after a commit. Other lines (before a --resume none) stay.

        Raises:
            OSError: something can't be read or removed.
        """
        on_line = [path for link in self.links for path in _stretch(self.root, link)]
        stay = kept([path for path in on_line if _is_good(path)], keep=keep, best=best) | {committed.path}
        for path in on_line:
            if path not in stay:
                remove(path)
        for number in numbers(self.root):
            if number <= self.start:
                sweep(self.root / str(number))

    def finish(self, end: End) -> None:
        """Notes that the run is done: later starts with --resume auto find nothing to do. Called last.

        Raises:
            TrainingError: LOST_PEER, a newer start owns the run; VOLUME_IO, BAD_OPTION: it can't be written.
        """
        with volume_errors(f"--checkpoint_dir {self.root}"):
            self.fence()
            temporary = self.directory / f".{END}.tmp-{os.getpid()}"
            with open(temporary, "w", encoding="utf-8") as file:
                file.write(json.dumps(finite({"time": time.time(), **asdict(end)}), allow_nan=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.directory / END)
            sync_directory(self.directory)

    def finished_line(self) -> str:
        """What to tell a person who starts a run that is done."""
        assert self.finished is not None
        step = self.finished.step
        return f"the run in {self.root} is finished (step {step}): nothing to do; --resume none starts afresh"

    def _choose(self) -> None:
        before = max((n for n in read_records(self.root) if n < self.start), default=0)
        for path in on_line(self.root, before):
            try:
                verify(path, deep=True)
            except BadCheckpoint as error:
                self.warnings.append(f"{error}; falling back to the one before it")
            else:
                self.parent = path
                return
        if self.warnings:
            self.warnings.append(f"no good checkpoint is left in {self.root}: the run begins at step 0")


@contextmanager
def volume_errors(what: str) -> Iterator[None]:
    """Turns an OSError into the one line and the exit code that it deserves.

    Raises:
        TrainingError: BAD_OPTION where the next attempt would fail alike, else VOLUME_IO.
    """
    try:
        yield
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        if error.errno in _PERMANENT:
            raise TrainingError(
                ExitCode.BAD_OPTION,
                f"{what}: {error.strerror}{place}; give a directory that user {os.geteuid()} may read and write",
            ) from None
        raise TrainingError(ExitCode.VOLUME_IO, f"{what}: {error.strerror or error}{place}") from None


def on_line(root: Path, start: int) -> Iterator[Path]:
    """The checkpoints on the line of training back from a start, newest first, good or not.

    Raises:
        OSError: a directory can't be read.
    """
    for place in line(read_records(root), start):
        yield from [place] if isinstance(place, Path) else _stretch(root, place)


def _stretch(root: Path, link: Link) -> Sequence[Path]:
    found = checkpoints(root / str(link.start))
    return [path for path in found if link.limit is None or step_of(path) <= link.limit]


def _is_good(path: Path) -> bool:
    try:
        verify(path)
    except BadCheckpoint:
        return False
    return True


def _given(path: Path) -> Path:
    """The checkpoint of ours that `--resume PATH` names."""
    path = Path(os.path.realpath(path))
    with volume_errors(f"--resume {path}"):
        if not path.is_dir():
            raise TrainingError(
                ExitCode.BAD_OPTION,
                f"--resume {path}: does not exist; give a checkpoint (…/step-<number>), a .pth file, auto or none",
            )
        try:
            verify(path, deep=True)
        except BadCheckpoint as error:
            raise TrainingError(
                ExitCode.BAD_OPTION, f"--resume {error}; give a checkpoint (…/step-<number>), auto or none"
            ) from None
    return path


def _finished(root: Path) -> Lineage | None:
    """The newest start, if the run ended in it."""
    with volume_errors(f"--checkpoint_dir {root}"):
        for number, record in sorted(read_records(root).items(), reverse=True):
            try:
                return Lineage(root, number, finished=End.of(json.loads((root / str(number) / END).read_bytes())))
            except (FileNotFoundError, ValueError, TypeError):
                if record:
                    return None
    return None
