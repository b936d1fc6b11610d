"""Listening sockets, with an error that names the port and the flag."""

from __future__ import annotations

import errno
import socket

from app.resilience.exit_codes import PORT_IN_USE, ExitCode, TrainingError


def listen(port: int, flag: str) -> socket.socket:
    """A socket that listens on all addresses of this machine, IPv6 and IPv4 where both exist.

    Raises:
        TrainingError: DEVICE (141) where the port is taken, BAD_OPTION (64) where it may not be opened.
    """
    try:
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
        return socket.create_server(("", port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"{flag}: port {port} is in use on this machine, give a free one"
            raise TrainingError(ExitCode.DEVICE, message, PORT_IN_USE) from None
        message = f"{flag}: port {port} can't be opened: {error.strerror}"
        raise TrainingError(ExitCode.BAD_OPTION, message) from None


def check_free(port: int, flag: str) -> None:
    """Looks whether `listen` would succeed, for a port that a rank opens later.

    Raises:
        TrainingError: as `listen`.
    """
    listen(port, flag).close()
