"""The Kubernetes API on plain dicts: config and authentication are the official client's, the rest is HTTP and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import urllib3
from kubernetes.client import ApiClient, Configuration

from controller.api import GROUP, VERSION
from controller.targets import DEFAULT, TARGETS

PAGE = 500
"""Objects of one LIST request: the answer of thousands at once would be in memory as a whole."""
WATCH_SECONDS = 60
"""The API server ends a watch after so long; it is taken up where it ended, without a new list."""
WATCH_SILENCE = 75.0
"""A watch that has neither spoken nor ended after this time, in seconds, is taken for a half-open connection."""
MERGE_PATCH = "application/merge-patch+json"
_GONE = 410
_CONNECTIONS = 64

Document = dict[str, Any]
Values = Mapping[str, str | int | bool]


class ApiError(Exception):
    """The API refused a request or did not answer, in one line.

    Args:
        code: HTTP status; 0: no answer.
        reason: the API's own word ("Conflict", "AlreadyExists", "Invalid" …); "Unreachable" without an answer.
        message: what it said.
        kind: the kind of object that it speaks of, as the API names it ("pods"); empty: not said.
    """

    def __init__(self, code: int, reason: str, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.kind = kind


@dataclass(frozen=True)
class Resource:
    """A kind of object, as its address names it."""

    group: str
    version: str
    plural: str

    def path(self, namespace: str | None, name: str = "", sub: str = "") -> str:
        """The address of a collection, an object or a subresource; namespace None: of the whole cluster."""
        parts = ["", "apis", self.group, self.version] if self.group else ["", "api", self.version]
        parts += ["namespaces", quote(namespace, safe="")] if namespace else []
        return "/".join([*parts, self.plural, *(quote(part, safe="") for part in (name, sub) if part)])


EXPERIMENTS = Resource(GROUP, VERSION, "resnetexperiments")
JOBS_OF = {kind: Resource(target.group, target.version, target.plural) for kind, target in TARGETS.items()}
"""Value of spec.target -> the kind of its jobs."""
JOBS = JOBS_OF[DEFAULT]
"""The jobs where a spec names no target."""
PODS = Resource("", "v1", "pods")
EVENTS = Resource("", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")


class Client:
    """One API server. Threads may share it.

    Args:
        configuration: of the official client; see `controller.kube.config`.
        timeout: seconds for one request, besides watches and logs.
    """

    def __init__(self, configuration: Configuration, timeout: float = 10.0) -> None:
        configuration.connection_pool_maxsize = _CONNECTIONS
        self._configuration = configuration
        self._pool: urllib3.PoolManager = ApiClient(configuration).rest_client.pool_manager
        self._timeout = timeout

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Values | None = None,
        body: Document | None = None,
        content: str = "application/json",
        timeout: float | None = None,
    ) -> Document:
        """One request and its JSON answer.

        Raises:
            ApiError: refused, or no answer.
        """
        try:
            response = self._send(
                method, path, query or {}, body=body, content=content, timeout=timeout or self._timeout
            )
            answer: Document = json.loads(response.data) if response.data else {}
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _unreachable(error) from None
        return answer

    def get(self, resource: Resource, namespace: str, name: str) -> Document:
        """One object."""
        return self.call("GET", resource.path(namespace, name))

    def create(self, resource: Resource, namespace: str, document: Document) -> Document:
        """POST."""
        return self.call("POST", resource.path(namespace), body=document)

    def replace(self, resource: Resource, namespace: str, name: str, document: Document, sub: str = "") -> Document:
        """PUT; with a resourceVersion in the document, only if the object is still that one."""
        return self.call("PUT", resource.path(namespace, name, sub), body=document)

    def patch(self, resource: Resource, namespace: str, name: str, patch: Document) -> Document:
        """A merge patch: null removes a field, lists are replaced as a whole."""
        return self.call("PATCH", resource.path(namespace, name), body=patch, content=MERGE_PATCH)

    def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        """DELETE, if the object is still the one of that UID; what it owns goes after it."""
        body = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        self.call("DELETE", resource.path(namespace, name), body=body)

    def pages(self, resource: Resource, namespace: str | None, query: Values | None = None) -> Iterator[Document]:
        """A LIST, page by page.

        Raises:
            ApiError: as `call`; 410 where the list has grown too old between two pages.
        """
        token = ""
        while True:
            asked = dict(query or {}) | {"limit": PAGE} | ({"continue": token} if token else {})
            page = self.call("GET", resource.path(namespace), query=asked)
            yield page
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    def items(self, resource: Resource, namespace: str | None, selector: str = "") -> list[Document]:
        """The few objects with these labels, as they are now. The API server may read all of that kind for it."""
        query = {"labelSelector": selector} if selector else {}
        found: list[Document] = self.call("GET", resource.path(namespace), query=query)["items"]
        return found

    def watch(
        self, resource: Resource, namespace: str | None, version: str, query: Values
    ) -> Iterator[tuple[str, Document]]:
        """Changes after that resourceVersion, bookmarks included, until the server ends the watch.

        Raises:
            ApiError: as `call`; 410: that version is too old, list again.
        """
        asked = dict(query) | {
            "watch": True,
            "allowWatchBookmarks": True,
            "resourceVersion": version,
            "timeoutSeconds": WATCH_SECONDS,
        }
        try:
            response = self._send("GET", resource.path(namespace), asked, timeout=WATCH_SILENCE, preload=False)
            try:
                for line in _lines(response):
                    change = json.loads(line)
                    document = change["object"]
                    if change["type"] == "ERROR":
                        raise _refused(int(document.get("code") or _GONE), document)
                    yield change["type"], document
            finally:
                response.close()
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _unreachable(error) from None

    def log(self, namespace: str, pod: str, *, follow: bool, tail: int | None) -> Iterator[bytes]:
        """What a pod has written, in pieces.

        Raises:
            ApiError: as `call`.
        """
        query: Values = {"follow": follow} | ({"tailLines": tail} if tail is not None else {})
        try:
            # Following has no time-out: a training may be silent for as long as an epoch takes.
            limit = None if follow else self._timeout
            response = self._send("GET", PODS.path(namespace, pod, "log"), query, timeout=limit, preload=False)
            yield from response.stream(2**16)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(error) from None

    def _send(
        self,
        method: str,
        path: str,
        query: Values,
        *,
        body: Document | None = None,
        content: str = "",
        timeout: float | None,
        preload: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", "User-Agent": "resnet-operator"}
        token = self._configuration.auth_settings().get("BearerToken")
        if token is not None and token["value"]:
            headers[token["key"]] = token["value"]
        words = {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in query.items()}
        response = self._pool.request(
            method,
            f"{self._configuration.host}{path}{'?' if words else ''}{urlencode(words)}",
            body=None if body is None else json.dumps(body, allow_nan=False).encode(),
            headers=headers if body is None else headers | {"Content-Type": content},
            timeout=urllib3.Timeout(connect=self._timeout, read=timeout),
            retries=False,
            preload_content=preload,
        )
        if response.status >= 300:
            raise _refused(response.status, _status(response.data))
        return response


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(2**16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line)


def _status(raw: bytes) -> Document:
    try:
        found = json.loads(raw)
    except ValueError:
        found = {"message": raw[:500].decode("utf-8", "replace")}
    return found if isinstance(found, dict) else {}


def _refused(code: int, status: Document) -> ApiError:
    message = " ".join(str(status.get("message") or f"HTTP status {code}").split())
    kind = str((status.get("details") or {}).get("kind") or "")
    return ApiError(code, str(status.get("reason") or code), message, kind)


def _unreachable(error: Exception) -> ApiError:
    return ApiError(0, "Unreachable", f"the API server does not answer: {' '.join(str(error).split())}")
