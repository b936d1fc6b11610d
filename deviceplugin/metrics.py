"""/metrics, /healthz and /readyz on one port."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.version import version
from deviceplugin.devices import Device

PREFIX = "resnet_device_plugin"
Check = Callable[[], str]
"""Says what is wrong, in one line; empty: nothing."""


class Metrics:
    """The counters, and what is read at a scrape.

    Args:
        resource: the name that Kubernetes knows the devices by.
        devices: those of the node, as they are now.
        listening: whether a kubelet listens.
    """

    def __init__(self, resource: str, devices: Callable[[], Iterable[Device]], listening: Callable[[], bool]) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.registry.register(_Devices(resource, devices))
        info = Gauge(f"{PREFIX}_build_info", "1, with the version", ["version"], registry=self.registry)
        info.labels(version()).set(1)
        heard = Gauge(f"{PREFIX}_listening", "1 while a kubelet listens", ["resource"], registry=self.registry)
        heard.labels(resource).set_function(lambda: float(listening()))
        registrations = Counter(
            f"{PREFIX}_registrations_total", "Times the kubelet was told", ["resource"], registry=self.registry
        )
        self.registrations = registrations.labels(resource)
        self._allocations = Counter(
            f"{PREFIX}_allocations_total",
            "Containers that got devices, by whether these are whole cards",
            ["resource", "aligned"],
            registry=self.registry,
        )
        self._resource = resource
        failures = Counter(
            f"{PREFIX}_health_command_failures_total", "Runs that gave no table", ["resource"], registry=self.registry
        )
        self.command_failures = failures.labels(resource)

    def allocated(self, aligned: bool) -> None:
        """Count an allocation."""
        self._allocations.labels(self._resource, str(aligned).lower()).inc()


class _Devices(Collector):
    def __init__(self, resource: str, devices: Callable[[], Iterable[Device]]) -> None:
        self._resource = resource
        self._devices = devices

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(
            f"{PREFIX}_device_healthy", "1 where the device is usable", labels=["resource", "device", "card"]
        )
        for each in self._devices():
            family.add_metric([self._resource, each.name, each.card], float(not each.trouble))
        yield family


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Handler(WSGIRequestHandler):
    timeout = 10

    def log_message(self, format: str, *args: object) -> None:
        pass


def serve(port: int, registry: CollectorRegistry, checks: dict[str, Check]) -> int:
    """Answer GETs of /metrics, and of the checks' paths with 200, or with 503 and what is wrong; port 0: any.

    Returns:
        The port.

    Raises:
        OSError: the port is taken.
    """
    exposition = make_wsgi_app(registry)

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            exposed: Iterable[bytes] = exposition(environ, start)
            return exposed
        check = checks.get(path)
        wrong = f"no such path: /metrics, {', '.join(checks)}" if check is None else check()
        status = "404 Not Found" if check is None else "503 Service Unavailable" if wrong else "200 OK"
        start(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{wrong or 'ok'}\n".encode()]

    server = make_server("", port, answer, server_class=_Server, handler_class=_Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server.server_port
