"""What a watch has shown last, by object and by the experiment it belongs to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from controller.kube.trim import Key

Document = dict[str, Any]


class Store:
    """Documents of one kind. Threads may share it; a document in it is never changed, only replaced.

    Args:
        key_of: the experiment that a document belongs to; None: none, and it is left out.
    """

    def __init__(self, key_of: Callable[[Document], Key | None]) -> None:
        self._key_of = key_of
        self._lock = threading.Lock()
        self._groups: dict[Key, dict[str, Document]] = {}

    def of(self, key: Key) -> tuple[Document, ...]:
        """The documents of an experiment."""
        with self._lock:
            return tuple(self._groups.get(key, {}).values())

    def keys(self) -> list[Key]:
        """Every experiment that has a document."""
        with self._lock:
            return list(self._groups)

    def all(self) -> list[Document]:
        """Every document."""
        with self._lock:
            return [document for group in self._groups.values() for document in group.values()]

    def put(self, document: Document) -> Key | None:
        """Takes a document over; returns whose it is, None: nobody's, or it is here already, as that or a newer one.

        So what `update` has taken over is not told as a change again when the watch brings it.
        """
        key = self._key_of(document)
        if key is None:
            return None
        with self._lock:
            group = self._groups.setdefault(key, {})
            name = document["metadata"]["name"]
            if name in group and _version(group[name]) >= _version(document):
                return None
            group[name] = document
        return key

    def update(self, document: Document) -> None:
        """Takes over what a write has answered, if the same object is there in an older version.

        The watch will bring it too, a moment later: until then a look would see what was there before the write.
        """
        key = self._key_of(document)
        metadata = document["metadata"]
        with self._lock:
            group = self._groups.get(key, {}) if key is not None else {}
            old = group.get(metadata["name"])
            if old is not None and old["metadata"]["uid"] == metadata["uid"] and _version(old) < _version(document):
                group[metadata["name"]] = document

    def remove(self, document: Document) -> Key | None:
        """Forgets a document; returns whose it was."""
        key = self._key_of(document)
        if key is not None:
            with self._lock:
                group = self._groups.get(key, {})
                group.pop(document["metadata"]["name"], None)
                if not group:
                    self._groups.pop(key, None)
        return key

    def replace(self, documents: Iterable[Document]) -> set[Key]:
        """Takes a whole list over; returns the experiments of which anything has changed."""
        groups: dict[Key, dict[str, Document]] = {}
        for document in documents:
            key = self._key_of(document)
            if key is not None:
                groups.setdefault(key, {})[document["metadata"]["name"]] = document
        with self._lock:
            old, self._groups = self._groups, groups
        return {key for key in old.keys() | groups.keys() if _versions(old.get(key)) != _versions(groups.get(key))}


def _version(document: Document) -> int:
    """The resourceVersion, which counts up: the API server compares it as a number."""
    text = str(document["metadata"].get("resourceVersion", ""))
    return int(text) if text.isascii() and text.isdigit() else 0


def _versions(group: dict[str, Document] | None) -> dict[str, int]:
    return {name: _version(document) for name, document in (group or {}).items()}
