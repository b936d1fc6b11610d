"""A TCP proxy in front of an API server, with a switch: a network that fails for one client only."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlparse


class Proxy:
    """Passes bytes on while `up`; cut, it drops what is open and what is new; frozen, it says nothing at all."""

    def __init__(self, url: str) -> None:
        found = urlparse(url)
        self._target = (found.hostname or "", found.port or 443)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self.up = True
        self._flows = threading.Event()
        self._flows.set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """The API server is away: connections end, new ones are closed at once."""
        self.up = False
        with self._lock:
            for pair in self._pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
            self._pairs.clear()

    def freeze(self) -> None:
        """Nobody answers any more, and nothing says so: connections stay open, new ones are taken."""
        self._flows.clear()

    def mend(self) -> None:
        """It is back."""
        self.up = True
        self._flows.set()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self.up:
                near.close()
                continue
            far = socket.create_connection(self._target)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(source, sink), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._flows.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.close()


def behind(proxy: Proxy, kubeconfig: Path, directory: Path) -> Path:
    """A copy of a kubeconfig that goes through the proxy."""
    config: dict[str, Any] = json.loads(kubeconfig.read_text())
    for cluster in config["clusters"]:
        cluster["cluster"]["server"] = proxy.url
    path = directory / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


def server_of(kubeconfig: Path) -> str:
    return str(json.loads(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
