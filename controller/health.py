"""/healthz and /readyz: whether the process should be restarted, and whether it does its work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_LOG = logging.getLogger(__name__)
Check = Callable[[], str]
"""Says what is wrong, in one line; empty: nothing."""


def serve(port: int, checks: dict[str, Check]) -> ThreadingHTTPServer:
    """Answers GETs of these paths with 200, or with 503 and what is wrong, in threads of its own; port 0: any.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0
        said: dict[str, str] = {}  # noqa: RUF012 - one for all: it is told once when an answer changes

        def do_GET(self) -> None:
            check = checks.get(self.path.partition("?")[0])
            wrong = f"no such path: {', '.join(checks)}" if check is None else check()
            if check is not None and self.said.get(self.path) != wrong:
                if wrong:
                    _LOG.warning("%s: %s", self.path, wrong)
                self.said[self.path] = wrong
            body = f"{wrong or 'ok'}\n".encode()
            self.send_response(404 if check is None else 503 if wrong else 200)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server
