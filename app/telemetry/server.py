"""The launcher's HTTP server: /metrics, /progress, /healthz, each answered from the last heartbeats."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from app.telemetry.progress import encode

REQUESTS_AT_ONCE = 32
"""Connections served at the same time; one more is closed at once."""


class Server(ThreadingHTTPServer):
    """Serves from a listening socket in threads of its own until it is closed."""

    daemon_threads = True

    def __init__(
        self, listener: socket.socket, progress: Callable[[], dict[str, Any]], registry: CollectorRegistry
    ) -> None:
        address = listener.getsockname()
        super().__init__(address, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.port: int = address[1]
        self.progress = progress
        self.registry = registry
        self._places = threading.BoundedSemaphore(REQUESTS_AT_ONCE)
        self._thread = threading.Thread(target=self.serve_forever, name="http", daemon=True)

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stops answering and frees the port."""
        self.shutdown()
        self.server_close()
        self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        """One thread a request, up to REQUESTS_AT_ONCE."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the request's thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away while it is answered is no event; anything else is shown."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version = "resnet-operator"
    sys_version = ""
    timeout = 10  # seconds for a client to send its request and take the answer

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, content_type, encoder(self.server.registry))
        elif path == "/progress":
            self._answer(HTTPStatus.OK, "application/json", encode(self.server.progress()) + b"\n")
        elif path == "/healthz":
            self._answer(HTTPStatus.OK, "text/plain; charset=utf-8", b"ok\n")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics, /progress or /healthz\n")

    def _answer(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Requests are not logged: the launcher's output belongs to the training."""
