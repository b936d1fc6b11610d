"""An HTTP gateway in front of an API server: it sees each request, and may hold the answers of some of them back."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.config import load_kube_config

HOP = {"connection", "content-length", "host", "transfer-encoding"}
"""Headers of one connection."""
TRICKLE_SECONDS = 0.2


class Gateway:
    """Forwards as the user of a kubeconfig, until it is closed.

    Attributes:
        silent, slow: say of a method and an address whether nothing is answered; whether an answer comes byte by byte.
    """

    def __init__(self, kubeconfig: Path) -> None:
        configuration = Configuration()
        load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
        self.silent: Callable[[str, str], bool] = lambda *_: False
        self.slow: Callable[[str, str], bool] = lambda *_: False
        self._pool: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
        self._target = configuration.host
        self._closed = threading.Event()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def forward(self) -> None:
                with contextlib.suppress(OSError, urllib3.exceptions.HTTPError):
                    gateway._forward(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, directory: Path) -> Path:
        """The way to it, for anybody."""
        server = {"server": f"http://127.0.0.1:{self._server.server_port}"}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it", "users": [{"name": "it", "user": {}}],
            "clusters": [{"name": "it", "cluster": server}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }  # fmt: skip
        path = directory / "gateway.kubeconfig"
        path.write_text(json.dumps(config))
        return path

    def _forward(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        method, path = request.command, request.path
        if self.silent(method, path):
            self._closed.wait()
            return
        answer = self._pool.request(
            method,
            self._target + path,
            body=body or None,
            headers={name: value for name, value in request.headers.items() if name.lower() not in HOP},
            preload_content=False,
        )
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in HOP:
                request.send_header(name, value)
        request.end_headers()
        with contextlib.closing(answer):
            while piece := answer.read1(1 if self.slow(method, path) else None):
                request.wfile.write(piece)
                if self.slow(method, path) and self._closed.wait(TRICKLE_SECONDS):
                    return
