"""Many experiments of one namespace, what their pods do, and when the API server shows what a controller wrote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from controller.kube.client import EXPERIMENTS, JOBS, ApiError, Client, Resource
from tests.integration.kube import Namespace

CONNECTIONS = 8
"""Of the operator (its workers), of the bare client and of the peer."""
Document = dict[str, Any]


def each(what: Callable[[int], Any], numbers: range) -> None:
    """Does something for every experiment."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(what, numbers))


def name_of(number: int) -> str:
    """Of an experiment."""
    return f"e{number}"


def create(team: Namespace, count: int, **changes: Any) -> None:
    """So many experiments of one pod each."""
    each(lambda number: team.create(name_of(number), nodes=1, **changes), range(count))


def run_pod(team: Namespace, number: int) -> None:
    """What training-operator and a kubelet write."""
    job = team.client.get(JOBS, team.name, f"{name_of(number)}-1")
    team.make_pod(job, 0)
    team.set_running(f"{name_of(number)}-1-worker-0", address_of(number))


def end_pod(team: Namespace, number: int) -> None:
    """The pod ends well."""
    words = team.words(name=name_of(number), phase="done", top1=0.76)
    team.end(f"{name_of(number)}-1-worker-0", 0, words, address=address_of(number))


def address_of(number: int) -> str:
    """Each pod has an address of its own on this machine, by which `Launchers` knows whose it is."""
    return f"127.{1 + number // 60_000}.{number // 250 % 240}.{1 + number % 250}"


class Launchers(ThreadingHTTPServer):
    """/progress of all experiments: each has done one step more whenever it is asked, unless `still`."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, team: Namespace, count: int) -> None:
        self.still = False
        names = {address_of(number): name_of(number) for number in range(count)}
        steps = dict.fromkeys(names, 10)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                own = self.connection.getsockname()[0]
                steps[own] += not outer.still
                figures: Document = {"images_per_second": 1000.0, "loss": 1.0, "eta_seconds": 3600.0}
                body = team.words(name=names[own], step=steps[own], last_checkpoint=5, **figures).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("0.0.0.0", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        """Of all addresses."""
        return int(self.server_address[1])


class Seen:
    """When something became true of each experiment, as a watch shows it: name -> monotonic seconds."""

    def __init__(self, client: Client, resource: Resource, team: Namespace, what: Callable[[Document], bool]) -> None:
        self.at: dict[str, float] = {}
        self._client, self._resource, self._team, self._what = client, resource, team, what
        self._changed = threading.Condition()
        self._stop = threading.Event()
        page = client.call("GET", resource.path(team.name), query={"limit": 1})
        self._version = str(page["metadata"]["resourceVersion"])
        threading.Thread(target=self._run, daemon=True).start()

    def wait(self, count: int, seconds: float) -> float:
        """When the last of so many was seen.

        Raises:
            TimeoutError: not in that time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.at) >= count, seconds):
                raise TimeoutError(f"{len(self.at)} of {count} {self._resource.plural} in {seconds:g} s")
            return max(self.at.values())

    def stop(self) -> None:
        """Watches no longer."""
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for kind, document in self._client.watch(self._resource, self._team.name, self._version, {}):
                    self._version = document["metadata"]["resourceVersion"]
                    if kind in ("ADDED", "MODIFIED") and self._what(document):
                        with self._changed:
                            self.at.setdefault(document["metadata"]["name"], time.monotonic())
                            self._changed.notify()
                    if self._stop.is_set():
                        return
            except ApiError:
                time.sleep(0.1)


def jobs_seen(client: Client, team: Namespace) -> Seen:
    """When each job was there."""
    return Seen(client, JOBS, team, lambda _: True)


def phase_seen(client: Client, team: Namespace, phase: str) -> Seen:
    """When each experiment was in that phase."""
    return Seen(client, EXPERIMENTS, team, lambda document: (document.get("status") or {}).get("phase") == phase)
