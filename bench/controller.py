"""How fast is the operator, and what does it cost?

    python -m bench.controller [--counts 100 1000 5000] [--steady 1000] [--kopf PYTHON | --no-kopf] [--json FILE]

On a real API server (etcd and kube-apiserver on this machine, no nodes: the bench writes what training-operator and the
kubelets would). Each stage is prepared while no operator runs, so that everything happens at once for it, and is timed
from the moment it leads until the last experiment shows it: jobs made, all Running, all Succeeded.

The limit is a client that writes the same objects (statuses, jobs, events) over as many connections and decides
nothing. The peer is a minimal kopf operator (bench/kopf_peer.py), in a Python of its own.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.controller_tables import STAGES, Found, report
from bench.fleet import (
    CONNECTIONS,
    Launchers,
    Seen,
    create,
    each,
    end_pod,
    jobs_seen,
    name_of,
    phase_seen,
    run_pod,
)  # fmt: skip
from bench.processes import Measured, cpu_seconds
from bench.report import versions
from controller.api import API_VERSION, KIND
from controller.crd import definition
from controller.events import Event
from controller.kube.client import EXPERIMENTS, JOBS, Client
from controller.kube.config import connect
from controller.kube.recorder import Recorder
from controller.refused import as_experiment
from tests.cluster.cache import built, entry
from tests.cluster.cluster import CONTROL_PLANE, Cluster
from tests.integration.kube import Namespace, install

LIMIT_SECONDS = 1800.0
PEERS = Path(__file__).parents[1] / "requirements" / "peers.txt"
_LATENCY_SHARE, _LATENCY_MOST, _LATENCY_PAUSE = 5, 200, 0.1  # one in 5, at most 200, 10 a second
_SETTLE_SECONDS = 20.0
Document = dict[str, Any]


@dataclass
class Bench:
    """One run of it, on one API server."""

    client: Client
    cluster: Cluster
    directory: Path
    samples: dict[str, Document] = field(default_factory=dict)  # stage -> a status as ours wrote it

    def servers_cpu(self) -> float:
        """Seconds that the API server and its etcd have used."""
        pids = (self.cluster.processes.pid(name) for name in CONTROL_PLANE)
        return sum(cpu_seconds(pid) for pid in pids if pid is not None)

    def operator(self, team: Namespace, *flags: str) -> Measured:
        """`python -m controller` for one namespace."""
        command = [
            *(
                sys.executable,
                "-m",
                "controller",
                "--kubeconfig",
                str(self.cluster.kubeconfig),
                "--namespace",
                team.name,
            ),
            *("--metrics-port", "0", "--health-port", "0", "--lease-name", team.name, "--workers", str(CONNECTIONS)),
        ]
        return Measured([*command, *flags], "leading as", self.directory)

    def ours(self, count: int, steady: float) -> Found:
        """All stages; with `steady` seconds also what it costs while all run, and how soon a change is written."""
        team, found = Namespace.made(self.client), Found()
        launchers = Launchers(team, count)
        create(team, count, podTemplate={"ports": {"metrics": launchers.port}})
        self._stage(found, team, "jobs", count, jobs_seen(self.client, team))
        each(lambda number: run_pod(team, number), range(count))
        self._stage(found, team, "running", count, phase_seen(self.client, team, "Running"))
        if steady:
            self._steady(found, team, count, launchers, steady)
        rest = range(len(found.latency), count)
        each(lambda number: end_pod(team, number), rest)
        self._stage(found, team, "succeeded", len(rest), phase_seen(self.client, team, "Succeeded"))
        launchers.shutdown()
        launchers.server_close()
        return found

    def _stage(self, found: Found, team: Namespace, stage: str, count: int, seen: Seen) -> None:
        running = self.operator(team)
        began, cpu, theirs = time.monotonic(), running.cpu_seconds(), self.servers_cpu()
        found.wall[stage] = seen.wait(count, LIMIT_SECONDS) - began
        found.cpu[stage], found.done[stage] = running.cpu_seconds() - cpu, count
        found.servers[stage] = self.servers_cpu() - theirs
        seen.stop()
        time.sleep(1)  # for what follows the last one
        last = team.job(1, name_of(count - 1))
        kept = {name: last["metadata"][name] for name in ("labels", "ownerReferences")}
        self.samples["job"] = {"apiVersion": last["apiVersion"], "kind": last["kind"], "metadata": kept} | {
            "spec": last["spec"]
        }
        self.samples[stage] = team.status(name_of(count - 1))
        found.peak = max(found.peak, running.peak_mebibytes())
        running.stop()

    def _steady(self, found: Found, team: Namespace, count: int, launchers: Launchers, seconds: float) -> None:
        running = self.operator(team)
        time.sleep(_SETTLE_SECONDS)
        found.steady["all"] = running.cpu_percent(seconds)
        seen = phase_seen(self.client, team, "Succeeded")
        at = {}
        for number in range(min(_LATENCY_MOST, count // _LATENCY_SHARE)):
            end_pod(team, number)
            at[name_of(number)] = time.monotonic()
            time.sleep(_LATENCY_PAUSE)
        seen.wait(len(at), LIMIT_SECONDS)
        seen.stop()
        found.latency = sorted(max(0.0, seen.at[name] - ended) for name, ended in at.items())
        launchers.still = True
        time.sleep(_SETTLE_SECONDS)
        found.steady["reading"] = running.cpu_percent(seconds)
        found.peak = max(found.peak, running.peak_mebibytes())
        running.stop()
        idle = self.operator(team, "--progress-seconds", "86400")
        time.sleep(_SETTLE_SECONDS)
        found.steady["idle"] = idle.cpu_percent(seconds)
        idle.stop()

    def limit(self, count: int) -> Found:
        """The writes of each stage, by a client that decides nothing."""
        team, found = Namespace.made(self.client), Found()
        create(team, count)
        known: dict[int, Document] = {}
        for page in self.client.pages(EXPERIMENTS, team.name):
            known |= {int(item["metadata"]["name"][1:]): item for item in page["items"]}
        recorder = Recorder(self.client, "limit")

        def status(number: int, stage: str) -> None:
            metadata = known[number]["metadata"]
            document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "status": self.samples[stage]}
            known[number] = self.client.replace(EXPERIMENTS, team.name, metadata["name"], document, "status")

        def tell(number: int, stage: str) -> None:
            recorder.tell(as_experiment(known[number]), Event("Normal", stage, f"{name_of(number)}: {stage}"))

        def jobs(number: int) -> None:
            status(number, "jobs")
            metadata = known[number]["metadata"]
            self.client.create(JOBS, team.name, self.job(metadata["name"], team.name, metadata["uid"]))
            tell(number, "jobs")

        def later(stage: str, number: int) -> None:
            status(number, stage)
            tell(number, stage)

        for stage in STAGES:
            began, cpu, theirs = time.monotonic(), time.process_time(), self.servers_cpu()
            each(jobs if stage == "jobs" else partial(later, stage), range(count))
            found.wall[stage], found.done[stage] = time.monotonic() - began, count
            found.cpu[stage], found.servers[stage] = time.process_time() - cpu, self.servers_cpu() - theirs
        return found

    def job(self, name: str, namespace: str, uid: str) -> Document:
        """A job as ours made it, of another experiment."""
        job = copy.deepcopy(self.samples["job"])
        job["metadata"] |= {"name": f"{name}-1", "namespace": namespace}
        job["metadata"]["ownerReferences"][0] |= {"name": name, "uid": uid}
        return job

    def peer(self, count: int, python: str) -> Found:
        """The first stage by kopf."""
        team, found = Namespace.made(self.client), Found()
        create(team, count)
        seen = jobs_seen(self.client, team)
        template = self.directory / "job.json"
        template.write_text(json.dumps(self.samples["job"]))
        script = str(Path(__file__).with_name("kopf_peer.py"))
        running = Measured(
            [python, script, str(self.cluster.kubeconfig), team.name, str(template), str(CONNECTIONS)],
            "",
            self.directory,
        )
        try:
            # From its first job on: it says nothing when it is ready.
            began = seen.wait(1, LIMIT_SECONDS)
            cpu, theirs = running.cpu_seconds(), self.servers_cpu()
            found.wall["jobs"], found.done["jobs"] = seen.wait(count, LIMIT_SECONDS) - began, count
            found.cpu["jobs"], found.peak = running.cpu_seconds() - cpu, running.peak_mebibytes()
            found.servers["jobs"] = self.servers_cpu() - theirs
        finally:
            seen.stop()
            running.stop()
        return found


def kopf_python() -> str:
    """A Python with kopf, made in the cache if it is not there."""

    def make(at: Path) -> None:
        uv = Path(sys.executable).with_name("uv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", at], check=True)
        command = [uv, "pip", "sync", "--quiet", "--python", at / "bin/python", "--require-hashes", PEERS]
        subprocess.run([str(word) for word in command], check=True)

    return str(built(entry("peers", [PEERS], sys.version), make) / "bin/python")


def main() -> None:
    """Measures, and prints the section."""
    parser = argparse.ArgumentParser(prog="python -m bench.controller", description="how fast the operator is")
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 1000, 5000], metavar="N", help="experiments")
    parser.add_argument(
        "--steady", type=int, default=1000, metavar="N", help="of these, what so many cost while they run"
    )
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="for which that is measured")
    parser.add_argument("--kopf", metavar="PYTHON", help="a Python with kopf; absent: one is made in the cache")
    parser.add_argument("--no-kopf", action="store_true", help="without the peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for python -m bench.report")
    args = parser.parse_args()
    python = None if args.no_kopf else args.kopf or kopf_python()
    directory = Path(tempfile.mkdtemp(prefix="rnxb"))
    cluster = Cluster(directory / "api", "api", say=lambda _: None)
    found = {}
    try:
        cluster.up()
        client = connect(str(cluster.kubeconfig), timeout=120.0)
        install(client, definition())
        bench = Bench(client, cluster, directory)
        about = versions("kubernetes", "urllib3", "pydantic")
        about |= {"Kubernetes": client.call("GET", "/version")["gitVersion"].removeprefix("v")}
        about |= dict(re.findall(r"^(kopf)==(\S+)", PEERS.read_text(), re.MULTILINE)) if python else {}
        for count in args.counts:
            us = bench.ours(count, args.seconds if count == args.steady else 0.0)
            found[count] = us, bench.limit(count), bench.peer(count, python) if python else None
            result = report(found, f"python -m bench.controller --counts {' '.join(map(str, found))}", about)
            print(f"{count} experiments: done", file=sys.stderr, flush=True)
            if args.json:  # now already: the largest count takes longest
                result.save(args.json)
        print(result.section())
    finally:
        cluster.down()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
