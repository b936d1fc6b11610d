"""The caches against an API server that answers as this test says: pages, ends of watches, 410, silence."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
from kubernetes.client import Configuration

from controller.api import LABEL_EXPERIMENT
from controller.kube import client as client_module
from controller.kube import trim
from controller.kube.client import JOBS, PODS, ApiError, Client
from controller.kube.reflector import Reflector
from controller.kube.store import Store
from tests.integration.kube import wait_for

Query = dict[str, str]


def pod(number: int, version: int, phase: str = "Running") -> dict[str, Any]:
    labels = {LABEL_EXPERIMENT: f"e{number}", "foreign": "x" * 1000}
    return {
        "metadata": {
            "name": f"p{number}",
            "namespace": "team",
            "uid": f"u{number}",
            "resourceVersion": str(version),
            "labels": labels,
            "managedFields": [{"manager": "m"}],
        },
        "spec": {"containers": [{"name": "pytorch", "image": "i", "env": [{"name": "A", "value": "b"}]}]},
        "status": {"phase": phase},
    }


class Server:
    """Answers lists with `pages` and each watch with what `watches` gives for it."""

    def __init__(self) -> None:
        self.lists: list[Query] = []
        self.watched: list[Query] = []
        self.pages: list[list[dict[str, Any]]] = [[]]
        self.version = "100"
        self.watches: Callable[[int, Callable[[str, dict[str, Any]], None]], None] = lambda *_: time.sleep(0.2)
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = {key: values[0] for key, values in parse_qs(urlparse(self.path).query).items()}
                if outer.status != 200:
                    self._json(outer.status, {"message": "no", "reason": "No"})
                elif "watch" in query:
                    outer.watched.append(query)
                    self.send_response(200)
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    outer.watches(len(outer.watched), self._event)
                    self._chunk(b"")
                else:
                    outer.lists.append(query)
                    number = int(query.get("continue", "0"))
                    metadata = {"resourceVersion": outer.version}
                    if number + 1 < len(outer.pages):
                        metadata["continue"] = str(number + 1)
                    self._json(200, {"metadata": metadata, "items": outer.pages[number]})

            def _json(self, code: int, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _event(self, kind: str, document: dict[str, Any]) -> None:
                self._chunk(json.dumps({"type": kind, "object": document}).encode() + b"\n")

            def _chunk(self, data: bytes) -> None:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.flush()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @property
    def client(self) -> Client:
        configuration = Configuration()
        configuration.host = f"http://127.0.0.1:{self.http.server_address[1]}"
        return Client(configuration)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


class Cache:
    """A reflector of pods and what it told."""

    def __init__(self, server: Server, resource: Any = PODS) -> None:
        self.store = Store(trim.experiment_of)
        self.told: list[tuple[str, str]] = []
        self.reflector = Reflector(
            server.client, resource, self.store, namespace=None, selector=LABEL_EXPERIMENT, trim=trim.pod,
            changed=self.told.append, retry=(0.05, 0.2),
        )  # fmt: skip
        self.reflector.start()

    def phases(self) -> dict[str, str]:
        return {each["metadata"]["name"]: each["status"]["phase"] for each in self.store.all()}


@pytest.fixture
def cache(server: Server) -> Iterator[Cache]:
    server.pages = [[pod(1, 1), pod(2, 2)], [pod(3, 3)]]
    found = Cache(server)
    yield found
    found.reflector.stop()


def test_a_list_comes_page_by_page_and_is_trimmed(server: Server, cache: Cache) -> None:
    assert cache.reflector.synced.wait(10)
    assert cache.phases() == {"p1": "Running", "p2": "Running", "p3": "Running"}
    assert [query["limit"] for query in server.lists] == ["500", "500"]
    assert server.lists[1]["continue"] == "1"
    assert sorted(cache.told) == [("team", "e1"), ("team", "e2"), ("team", "e3")]
    kept = json.dumps(cache.store.all())
    assert "managedFields" not in kept
    assert "foreign" not in kept
    assert "env" not in kept


def test_a_watch_takes_up_where_the_last_one_ended(server: Server) -> None:
    def watches(number: int, send: Any) -> None:
        if number == 1:
            send("MODIFIED", pod(1, 101, "Failed"))
            send("BOOKMARK", {"metadata": {"resourceVersion": "150"}})
        elif number == 2:
            send("DELETED", pod(1, 160))
        time.sleep(0.05)

    server.watches, server.pages = watches, [[pod(1, 1)]]
    cache = Cache(server)
    wait_for(lambda: len(server.watched) >= 3)
    cache.reflector.stop()
    assert [query["resourceVersion"] for query in server.watched[:3]] == ["100", "150", "160"]
    assert all(query["allowWatchBookmarks"] == "true" for query in server.watched)
    assert len(server.lists) == 1
    assert cache.phases() == {}
    assert cache.told.count(("team", "e1")) == 3


@pytest.mark.parametrize("how", ["event", "answer"])
def test_a_version_that_is_too_old_means_a_new_list(server: Server, how: str) -> None:
    def watches(number: int, send: Any) -> None:
        if number == 1:
            server.pages, server.version = [[pod(2, 7, "Succeeded")]], "200"
            if how == "event":
                send("ERROR", {"code": 410, "reason": "Expired", "message": "too old resource version"})
        time.sleep(0.1)

    if how == "answer":
        server.status = 410
    server.watches, server.pages = watches, [[pod(1, 1)]]
    cache = Cache(server)
    if how == "answer":
        wait_for(lambda: cache.reflector.trouble == "" and not cache.reflector.synced.is_set())
        server.status = 200
    else:
        wait_for(lambda: len(server.lists) == 2)
        wait_for(lambda: cache.phases() == {"p2": "Succeeded"})
        assert server.watched[-1]["resourceVersion"] in ("100", "200")
        assert {("team", "e1"), ("team", "e2")} <= set(cache.told)
    assert cache.reflector.synced.wait(10)
    cache.reflector.stop()


def test_a_half_open_connection_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WATCH_SILENCE", 0.3)
    server.watches = lambda *_: time.sleep(3)
    cache = Cache(server)
    wait_for(lambda: len(server.watched) >= 2, seconds=10)
    cache.reflector.stop()
    assert len(server.lists) == 1


def test_a_kind_that_the_cluster_does_not_know_is_none_of_it(server: Server) -> None:
    server.status = 404
    cache = Cache(server, JOBS)
    assert cache.reflector.synced.wait(10)
    assert cache.reflector.absent
    wait_for(lambda: "is its CRD installed?" in cache.reflector.trouble)
    server.status = 200
    wait_for(lambda: not cache.reflector.absent and not cache.reflector.trouble)
    cache.reflector.stop()


def test_what_a_person_must_mend_is_said_and_not_taken_for_nothing(server: Server) -> None:
    server.status = 403
    cache = Cache(server)
    wait_for(lambda: cache.reflector.trouble == "no")
    assert not cache.reflector.synced.is_set()
    cache.reflector.stop()


def test_an_answer_of_a_write_is_not_undone_by_an_older_word_of_the_watch() -> None:
    store = Store(trim.experiment_of)
    store.put(pod(1, 5))
    store.update(pod(1, 9, "Failed"))
    store.put(pod(1, 7, "Pending"))
    assert store.all()[0]["status"]["phase"] == "Failed"
    store.remove(pod(1, 10))
    store.update(pod(1, 11))
    assert store.all() == []
    assert store.keys() == []


def test_what_a_write_has_answered_is_not_told_again_when_the_watch_brings_it() -> None:
    store = Store(trim.experiment_of)
    assert store.put(pod(1, 5)) == ("team", "e1")
    store.update(pod(1, 9, "Failed"))
    assert store.put(pod(1, 7)) is None
    assert store.put(pod(1, 9, "Failed")) is None
    assert store.put(pod(1, 10)) == ("team", "e1")


def test_nobody_there_is_an_error_in_one_line() -> None:
    configuration = Configuration()
    configuration.host = "http://127.0.0.1:1"
    with pytest.raises(ApiError, match="the API server does not answer: ") as caught:
        Client(configuration).call("GET", "/version")
    assert (caught.value.code, caught.value.reason) == (0, "Unreachable")
