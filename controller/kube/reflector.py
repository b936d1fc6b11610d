"""Keeps a store current: a list page by page, then a watch; a new list only where the watch can't be taken up."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from controller.kube.client import ApiError, Client, Resource
from controller.kube.store import Store
from controller.kube.trim import Key

_LOG = logging.getLogger(__name__)
_GONE = 410
_NOT_FOUND = 404
Document = dict[str, Any]


class Reflector:
    """One watched kind.

    Args:
        client, resource, namespace, selector: what is watched; namespace None: the whole cluster.
        store: kept current with trimmed documents.
        trim: what is kept of a document.
        changed: told of every experiment whose documents have changed.
        retry: seconds to wait after a failure, and at most (it doubles).

    Attributes:
        synced: set once the store holds a whole list.
        contact: monotonic time of the last word from the API server.
        trouble: why it can't be read just now, in one line; empty: it can.
        absent: whether the cluster does not have this kind.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        store: Store,
        *,
        namespace: str | None,
        selector: str,
        trim: Callable[[Document], Document],
        changed: Callable[[Key], None],
        retry: tuple[float, float] = (0.5, 10.0),
    ) -> None:
        self.synced = threading.Event()
        self.contact = time.monotonic()
        self.trouble = ""
        self.absent = False
        self.resource = resource
        self._client = client
        self._store = store
        self._namespace = namespace
        self._query = {"labelSelector": selector} if selector else {}
        self._trim = trim
        self._changed = changed
        self._retry = retry
        self._version = ""
        self._stop = threading.Event()

    def start(self) -> None:
        """Begins, in a thread of its own."""
        self.contact = time.monotonic()
        threading.Thread(target=self._run, name=f"watch-{self.resource.plural}", daemon=True).start()

    def stop(self) -> None:
        """Ends it after its next word from the server: a read can't be interrupted."""
        self._stop.set()

    def _run(self) -> None:
        delay = self._retry[0]
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                delay = self._retry[0]
                self._watch()
            except ApiError as error:
                self._failed(error)
                self._stop.wait(delay * random.uniform(0.75, 1.25))  # noqa: S311 - no secret: spreads reconnections
                delay = min(self._retry[1], 2 * delay)
            except Exception:  # noqa: BLE001 - a document that nobody foresaw must not end the thread: everything hangs on it
                _LOG.exception("watch of %s: unexpected", self.resource.plural)
                self._version = ""
                self._stop.wait(delay)

    def _list(self) -> None:
        version = ""

        def documents() -> Iterator[Document]:
            nonlocal version
            for page in self._client.pages(self.resource, self._namespace, self._query):
                self.contact = time.monotonic()
                version = page["metadata"]["resourceVersion"]
                yield from (self._take(item) for item in page["items"])

        touched = self._store.replace(documents())
        self._version = version
        self._heard()
        self.absent = False
        self.synced.set()
        for key in touched:
            self._changed(key)

    def _watch(self) -> None:
        for kind, document in self._client.watch(self.resource, self._namespace, self._version, self._query):
            self._heard()
            self._version = document["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                trimmed = self._take(document)
                key = self._store.remove(trimmed) if kind == "DELETED" else self._store.put(trimmed)
                if key is not None:
                    self._changed(key)
            if self._stop.is_set():
                return
        self._heard()

    def _take(self, document: Document) -> Document:
        """The items of a list don't name their kind."""
        group = f"{self.resource.group}/" if self.resource.group else ""
        return self._trim({"apiVersion": f"{group}{self.resource.version}", "kind": "", **document})

    def _heard(self) -> None:
        self.contact = time.monotonic()
        self.trouble = ""

    def _failed(self, error: ApiError) -> None:
        if error.code:
            self.contact = time.monotonic()
        if error.code == _GONE:
            self._version = ""  # what was missed can't be told any more
            return
        if error.code == _NOT_FOUND and not self._version:
            # The cluster does not know this kind: there is none of it, and one may come later.
            self.absent = True
            self._store.replace(())
            self.synced.set()
        message = error.message
        if self.absent:
            message = f"the cluster does not know {self.resource.plural}.{self.resource.group}: is its CRD installed?"
        if message != self.trouble:
            _LOG.warning("watch of %s: %s", self.resource.plural, message)
        self.trouble = message
