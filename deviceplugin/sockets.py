"""Socket files: whose they are, whether somebody listens, whether one can be made."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

Fingerprint = tuple[int, int, int]
"""Device, inode and time of change of a file: an inode's number alone is given again."""
_CONNECT_SECONDS = 2.0
MAX_PATH = 107
"""Bytes in the path of a Unix socket."""


class SocketError(Exception):
    """A socket can't be used, in one line that says why. Another try may help."""


def fingerprint(path: Path) -> Fingerprint | None:
    """Which file is there now; None: none, or no socket."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_ctime_ns) if stat.S_ISSOCK(found.st_mode) else None


def listens(path: Path) -> bool:
    """Whether a living process listens at a socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


def check_room(path: Path) -> None:
    """Check that a socket can be made at `path`; gRPC itself replaces the one that a killed process left.

    Raises:
        SocketError: it can't; gRPC would not say why.
    """
    if listens(path):
        raise SocketError(f"{path}: another process serves this socket; is there a second plugin on this node?")
    # The kubelet passes over names with a dot before them.
    trial = path.with_name(f".{os.getpid()}")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.bind(str(trial))
    except OSError as error:
        raise SocketError(f"{path.parent}: no socket can be made there: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            trial.unlink(missing_ok=True)


def remove(path: Path, own: Fingerprint | None) -> None:
    """Remove a socket if it is still that file."""
    if own is not None and fingerprint(path) == own:
        with suppress(OSError):
            path.unlink()
