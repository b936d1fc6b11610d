"""A real Prometheus on the host, which finds its targets through the cluster's API."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import LOOPBACK
from tests.cluster.network import free_ports
from tests.cluster.toolchain import tool
from tests.cluster.waiting import wait_for

NAME = "prometheus"
START_SECONDS = 30.0
INTERVAL = "1s"
METRICS_PORT_NAME = "metrics"

Sample = tuple[dict[str, str], float]


@dataclass(frozen=True)
class Prometheus:
    """One that listens at `url`."""

    url: str

    def query(self, expression: str) -> list[Sample]:
        """The series of an instant query, as (labels, value)."""
        answer = self._get("query", query=expression)
        return [(each["metric"], float(each["value"][1])) for each in answer["result"]]

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing, with their labels, annotations and state."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    def _get(self, what: str, **parameters: str) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=10) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data


@contextmanager
def prometheus(cluster: Cluster, rules: Sequence[Path] = ()) -> Iterator[Prometheus]:
    """One that scrapes every pod's port `metrics`, as a PodMonitor with honorLabels has it, until the end.

    Args:
        cluster: where the pods are.
        rules: files of rules that it evaluates.
    """
    directory = cluster.state / NAME
    directory.mkdir(exist_ok=True)
    config = directory / "prometheus.yml"
    config.write_text(json.dumps(_config(cluster, rules)))
    (port,) = free_ports(LOOPBACK, 1)
    cluster.processes.start(
        NAME,
        [
            *(tool("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"),
            f"--web.listen-address={LOOPBACK}:{port}",
        ],
    )
    found = Prometheus(f"http://{LOOPBACK}:{port}")
    try:
        wait_for(lambda: found.query("vector(1)"), START_SECONDS, "Prometheus does not answer")
        yield found
    finally:
        cluster.processes.end(NAME)


def _config(cluster: Cluster, rules: Sequence[Path]) -> dict[str, Any]:
    keep = {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": METRICS_PORT_NAME}
    return {
        "global": {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL},
        "rule_files": [str(path) for path in rules],
        "scrape_configs": [
            {
                "job_name": "pods",
                "honor_labels": True,
                "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(cluster.kubeconfig)}],
                "relabel_configs": [
                    {**keep, "action": "keep"},
                    {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
                    {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
                ],
            }
        ],
    }
