"""Events of experiments: the same one again raises a count instead of filling the API server."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from typing import Any

from controller.api import API_VERSION, KIND, Experiment
from controller.events import Event
from controller.kube.client import EVENTS, ApiError, Client
from controller.times import to_text

_LOG = logging.getLogger(__name__)
COMPONENT = "resnet-operator"
_KEPT = 4096
"""Events that are remembered, to count them up."""
_NOT_FOUND = 404
_REPEAT_SECONDS = 3600.0  # the API server keeps an event for so long


class Recorder:
    """Writes Events. A failure is logged and forgotten: an event is never worth a retry."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def tell(self, experiment: Experiment, event: Event) -> None:
        """Tells an event of an experiment."""
        metadata, now = experiment.metadata, time.time()
        name = f"{metadata.name}.{self._digest(experiment, event)}"
        count = self._counted(f"{metadata.namespace}/{name}", now)
        try:
            if count > 1:
                patch = {"count": count, "lastTimestamp": to_text(int(now))}
                try:
                    self._client.patch(EVENTS, metadata.namespace, name, patch)
                    return
                except ApiError as error:
                    if error.code != _NOT_FOUND:
                        raise
            self._client.create(EVENTS, metadata.namespace, self._document(experiment, event, name, now))
        except ApiError as error:
            _LOG.warning("%s/%s: event %s: %s", metadata.namespace, metadata.name, event.reason, error.message)

    def _counted(self, key: str, now: float) -> int:
        with self._lock:
            count, since = self._known.pop(key, (0, now))
            if now - since > _REPEAT_SECONDS:
                count = 0
            self._known[key] = (count + 1, now)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
            return count + 1

    def _document(self, experiment: Experiment, event: Event, name: str, now: float) -> dict[str, Any]:
        metadata = experiment.metadata
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": metadata.uid or "",
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "count": 1,
            "firstTimestamp": to_text(int(now)),
            "lastTimestamp": to_text(int(now)),
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
        }

    def _digest(self, experiment: Experiment, event: Event) -> str:
        """The same for the same event, told by the same controller."""
        words = [self._instance, experiment.metadata.uid or "", event.type, event.reason, event.message]
        return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]
