"""The directory with all that a cluster keeps: whose it is, and one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class ClusterError(RuntimeError):
    """What stands in the way, one line for each."""


@dataclass(frozen=True)
class State:
    """The directory `path`, of a cluster of that profile; it may not exist."""

    path: Path
    profile: str

    def held(self) -> bool:
        """Whether there is a cluster, running or not.

        Raises:
            ClusterError: the directory is something else's.
        """
        if not self.path.exists():
            return False
        if self._marker.exists():
            if (profile := self._marker.read_text()) != self.profile:
                raise ClusterError(f"{self.path} holds a cluster of profile {profile}: choose another --state")
            return True
        if any(self.path.iterdir()):
            raise ClusterError(f"{self.path} holds something else than a cluster: choose another --state")
        return False

    def take(self) -> None:
        """Say that it is a cluster's: from here on clear() may empty it."""
        self._marker.write_text(self.profile)

    def clear(self) -> None:
        """Remove all that is in it, the mark last: what is interrupted can be taken up again."""
        for path in sorted(self.path.iterdir(), key=lambda path: path == self._marker):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold its lock. It is made if missing; if it is empty at the end, it goes."""
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                # Who held the lock before may have removed it, and somebody else made it anew.
                if self.path.exists() and self.path.stat().st_ino == os.fstat(handle).st_ino:
                    try:
                        yield
                    finally:
                        if not any(self.path.iterdir()):
                            self.path.rmdir()
                    return
            finally:
                os.close(handle)

    @property
    def _marker(self) -> Path:
        return self.path / "profile"
