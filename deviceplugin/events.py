"""Kubernetes Events of the node: Kubernetes itself does not say which device is sick.

One POST to the API server with the pod's own service account. The official client would take 105 MB on every node for
it (measured), three times what the plugin needs without.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import queue
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)
COMPONENT = "resnet-device-plugin"
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
NAMESPACE = "default"
"""Where Events of objects without a namespace are kept, as the kubelet's own are."""
_SECONDS = 10.0
_WAITING = 256
_NOT_FOUND = 404
_NORMAL, _WARNING = "Normal", "Warning"


@dataclass(frozen=True)
class Api:
    """The API server as a pod finds it.

    Args:
        url: without a path.
        account: folder with `token` and `ca.crt`; the token is read anew each time, since it expires.
    """

    url: str
    account: Path = SERVICE_ACCOUNT

    @classmethod
    def of_pod(cls) -> Api | None:
        """That of the pod that this is; None outside of one."""
        host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
        if not host or not port or not (SERVICE_ACCOUNT / "token").exists():
            return None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}")

    def send(self, method: str, path: str, body: dict[str, Any], content: str) -> None:
        """One request.

        Raises:
            OSError: no answer, or a refusal (urllib.error.HTTPError, with its code).
        """
        headers = {"Authorization": f"Bearer {(self.account / 'token').read_text().strip()}", "Content-Type": content}
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, headers, method=method)  # noqa: S310 - of our own making
        trusted = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
        )
        with opener.open(request, timeout=_SECONDS) as answer:
            answer.read()


class Events:
    """Tells Events of a node, in a thread of its own; one that can't be told is logged and forgotten.

    Args:
        api: where to.
        node: the node's name.
        instance: the name of this pod.
    """

    def __init__(self, api: Api, node: str, instance: str) -> None:
        self._api = api
        self._node = node
        self._instance = instance
        self._queue: queue.Queue[tuple[str, str, str]] = queue.Queue(_WAITING)
        self._counts: dict[str, int] = {}
        threading.Thread(target=self._work, name="events", daemon=True).start()

    def tell(self, *, bad: bool, reason: str, message: str) -> None:
        """Tell one, soon."""
        try:
            self._queue.put_nowait((_WARNING if bad else _NORMAL, reason, message))
        except queue.Full:
            _LOG.warning("event %s is dropped: %d wait already", reason, _WAITING)

    def _work(self) -> None:
        while True:
            kind, reason, message = self._queue.get()
            try:
                self._send(kind, reason, message)
            except (OSError, ValueError) as error:
                _LOG.warning("event %s can't be told: %s", reason, error)

    def _send(self, kind: str, reason: str, message: str) -> None:
        digest = hashlib.sha256("\0".join((self._instance, kind, reason, message)).encode()).hexdigest()[:16]
        name = f"{self._node}.{digest}"
        count = self._counts[name] = self._counts.get(name, 0) + 1
        path = f"/api/v1/namespaces/{NAMESPACE}/events"
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        if count > 1:
            try:
                patch = {"count": count, "lastTimestamp": now}
                self._api.send("PATCH", f"{path}/{name}", patch, "application/merge-patch+json")
                return
            except urllib.error.HTTPError as error:
                if error.code != _NOT_FOUND:  # the API server keeps one for an hour
                    raise
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": NAMESPACE},
            # The kubelet's Events of a node have its name for a UID as well.
            "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": self._node, "uid": self._node},
            "type": kind,
            "reason": reason,
            "message": message,
            "count": count,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": COMPONENT, "host": self._node},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }
        self._api.send("POST", path, event, "application/json")
