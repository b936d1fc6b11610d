"""The plugin as a process: looks at the devices, serves the kubelet, and begins anew whenever either side was away."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc

from app.resilience.exit_codes import ExitCode
from app.version import version
from deviceplugin.api.services import CLASSIC_SOCKET, device_plugin, registrant
from deviceplugin.board import Board
from deviceplugin.command import CommandError, HealthCommand
from deviceplugin.devices import Change
from deviceplugin.discovery import device_numbers
from deviceplugin.events import Api, Events
from deviceplugin.metrics import Metrics, serve
from deviceplugin.options import PROGRAM, Options, parse
from deviceplugin.registration import Registry, register_in
from deviceplugin.service import Service
from deviceplugin.sockets import Fingerprint, SocketError, check_room, fingerprint, remove

_LOG = logging.getLogger(__name__)
_THREADS = 16
"""One stays with each kubelet that listens; old streams end within a second or two."""
_LONGEST_RETRY = 5.0
"""Seconds; the kubelet's own restart takes about as long."""
_REPEAT_SECONDS = 600.0
"""The same trouble is told again after so long."""
_STUCK_SECONDS = 60.0
_END_SECONDS = 1.0


class Plugin:
    """All parts of one process, tied together.

    Args:
        options: the flags.
        events: where changes of devices are told besides the log; None: nowhere.
    """

    def __init__(self, options: Options, events: Events | None) -> None:
        self._options = options
        self._events = events
        self._board = Board(options.rules, self._tell)
        self.metrics = Metrics(options.resource, self._board.devices, lambda: not self._service.silence())
        self._service = Service(self._board, options.extras, self.metrics.allocated)
        self._command = HealthCommand(options.health_command, options.health_timeout)
        self._known: set[int] = set()
        self._looked = time.monotonic()
        self._troubles = _Troubles()

    def run(self, stop: threading.Event) -> None:
        """Serves until `stop` is set."""
        self._look()
        loops: list[tuple[Callable[[], None], float]] = [(self._look, self._options.poll)]
        if self._options.health_command:
            # Before the first list: cards have the names that it tells.
            self._ask()
            loops.append((self._ask, self._options.health_interval))
        for work, seconds in loops:
            threading.Thread(target=_repeat, args=(work, seconds, stop), daemon=True).start()
        delay = 0.0
        while not stop.wait(delay):
            try:
                self._serve(stop)
                delay = 0.0
            except SocketError as error:
                self._troubles.say(str(error))
                delay = min(max(self._options.retry, 2 * delay), _LONGEST_RETRY)

    def alive(self) -> str:
        """What only a restart mends; empty: nothing."""
        silent = time.monotonic() - self._looked
        return f"the device files have not been looked at for {silent:.0f} s" if silent > _STUCK_SECONDS else ""

    def ready(self) -> str:
        """Why no kubelet gives the devices out; empty: one does."""
        return (self._troubles.now or "no kubelet listens yet") if self._service.silence() else ""

    def _look(self) -> None:
        rules = self._options.rules
        directory = self._options.host_root / rules.directory.lstrip("/")
        numbers = device_numbers(directory, rules.prefix)
        self._looked = time.monotonic()
        new = numbers - self._known
        if new or not self._known:
            self._known |= new
            names = " ".join(f"{rules.prefix}{number}" for number in sorted(self._known))
            if names:
                _LOG.info("%d devices: %s", len(self._known), names)
            else:
                self._troubles.note(f"there is no device {rules.path}N (a character device) on this node")
        self._board.files(numbers)

    def _ask(self) -> None:
        try:
            rows = self._command.rows()
        except CommandError as error:
            self.metrics.command_failures.inc()
            self._troubles.note(f"the health command failed, what it said last still counts: {error}")
        else:
            self._board.rows(rows)

    def _tell(self, change: Change) -> None:
        bad = bool(change.device.trouble)
        _LOG.log(logging.WARNING if bad else logging.INFO, "%s", change.message)
        if self._events is not None:
            self._events.tell(bad=bad, reason=change.reason, message=change.message)

    def _serve(self, stop: threading.Event) -> None:
        """Until the kubelet, its directory or our socket is another one.

        Raises:
            SocketError: it can't, or nobody listens.
        """
        with self._serving() as own:
            options = self._options
            kubelet = self._register() if options.classic else None
            while not stop.wait(options.poll):
                silence = self._service.silence()
                if not silence:
                    self._troubles.over()
                if fingerprint(options.socket) != own:
                    _LOG.info("%s was removed: serving anew", options.socket)
                    return
                if kubelet is not None and fingerprint(options.socket_directory / CLASSIC_SOCKET) != kubelet:
                    _LOG.info("the kubelet has started again: registering anew")
                    return
                if silence > options.silence:
                    raise SocketError(
                        f"{options.socket}: no kubelet has listened for {options.silence:g} s; does it run, does it "
                        f"look into this directory, does another plugin advertise {options.resource}?"
                    )

    @contextmanager
    def _serving(self) -> Iterator[Fingerprint]:
        path = self._options.socket
        check_room(path)
        handlers = [device_plugin(self._service)]
        if not self._options.classic:
            handlers.append(registrant(Registry(self._options.resource, self._registered)))
        pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="kubelet")
        server = grpc.server(pool, handlers=handlers)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError:
            raise SocketError(f"{path}: no socket can be made there") from None
        self._service.begin()
        server.start()
        own = fingerprint(path)
        try:
            if own is None:
                raise SocketError(f"{path}: the socket was removed at once")
            yield own
        finally:
            server.stop(_END_SECONDS).wait()
            pool.shutdown()
            remove(path, own)

    def _register(self) -> Fingerprint:
        options = self._options
        kubelet = register_in(options.socket_directory, options.resource, options.socket.name)
        self._registered("")
        return kubelet

    def _registered(self, refusal: str) -> None:
        if refusal:
            self._troubles.say(f"the kubelet refuses {self._options.resource}: {refusal}")
        else:
            self.metrics.registrations.inc()
            _LOG.info("registered %s", self._options.resource)


class _Troubles:
    """Says each line once, and again after _REPEAT_SECONDS while it lasts."""

    def __init__(self) -> None:
        self.now = ""
        self._said: dict[str, float] = {}

    def say(self, line: str) -> None:
        """What keeps the kubelet from giving devices out."""
        self.now = line
        self.note(line)

    def note(self, line: str) -> None:
        """Anything else that would be said again and again."""
        now = time.monotonic()
        self._said = {each: at for each, at in self._said.items() if now - at < _REPEAT_SECONDS}
        if line not in self._said:
            self._said[line] = now
            _LOG.warning("%s", line)

    def over(self) -> None:
        """A kubelet listens."""
        self.now = ""


def _repeat(work: Callable[[], None], seconds: float, stop: threading.Event) -> None:
    while not stop.wait(seconds):
        try:
            work()
        except Exception:  # noqa: BLE001 - the next look may succeed
            _LOG.exception("unexpected")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the plugin until SIGTERM or SIGINT; returns the exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(
        level=logging.DEBUG if options.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    api = Api.of_pod() if options.node else None
    events = Events(api, options.node, os.uname().nodename) if api is not None else None
    plugin = Plugin(options, events)
    try:
        port = serve(options.metrics_port, plugin.metrics.registry, {"/healthz": plugin.alive, "/readyz": plugin.ready})
    except OSError as error:
        print(f"{PROGRAM}: --metrics-port {options.metrics_port}: {error.strerror or error}", file=sys.stderr)
        return ExitCode.BAD_OPTION
    _LOG.info(
        "resnet-operator %s advertises %s in %s: metrics on port %d",
        version(), options.resource, options.socket, port,
    )  # fmt: skip
    plugin.run(stop)
    _LOG.info("stopped")
    return ExitCode.DONE
