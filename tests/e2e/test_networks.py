"""Networks that are cut, and a control plane that goes away, under a training that need not notice."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app.resilience.exit_codes import ExitCode
from app.telemetry.events import read_events
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.waiting import wait_for
from tests.e2e.experiments import SOON, Experiment, Laboratory
from tests.e2e.operator import Operator
from tests.e2e.test_nodes import NODE_LOST, on, other

pytestmark = [pytest.mark.timeout(1800), pytest.mark.faults]
TABLE = "inet resnet-operator-test"
# Longer than any of these faults lasts.
LONG = {"epochs": 25}
# As most clusters have it: nodes are not given up because the API server was away.
PATIENT = {"nodeGracePeriodSeconds": 60}
AWAY_SECONDS = 60.0
CUT_SECONDS = 20.0
SEED = 20


@contextmanager
def dropped(cluster: Cluster, node: str, hook: str, *rules: str) -> Iterator[None]:
    """What matches one of nftables' `rules` at that hook of a node's network is lost meanwhile."""
    commands = [f"add table {TABLE}", f"add chain {TABLE} cut {{ type filter hook {hook} priority -10; }}"]
    _nft(cluster, node, *commands, *(f"add rule {TABLE} cut {rule} drop" for rule in rules))
    try:
        yield
    finally:
        _nft(cluster, node, f"delete table {TABLE}")


def _nft(cluster: Cluster, node: str, *commands: str) -> None:
    enter = ["nsenter", f"--target={cluster.node(node).init_pid()}", "--net", "nft", "--file", "-"]
    subprocess.run(enter, input="\n".join(commands) + "\n", text=True, check=True)


@contextmanager
def cut_between_pods(cluster: Cluster, experiment: Experiment) -> Iterator[None]:
    """Its two pods do not reach each other meanwhile; everything else does."""
    one, two = (experiment.kubectl.get("pod", experiment.pod(index))["status"]["podIP"] for index in range(len(NODES)))
    rules = (f"ip saddr {one} ip daddr {two}", f"ip saddr {two} ip daddr {one}")
    with dropped(cluster, experiment.node(0), "forward", *rules):
        yield


def restart(cluster: Cluster, name: str, away: float) -> None:
    """End a process of the control plane at once, and start it again with the same command after `away` seconds."""
    pid = cluster.processes.pid(name)
    command = [word.decode() for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]]
    cluster.processes.end(name)
    time.sleep(away)
    cluster.processes.start(name, command)


def test_a_cut_of_20_seconds_between_two_pods_is_survived(cluster: Cluster, laboratory: Laboratory) -> None:
    wire = laboratory.experiment("wire", training={"epochs": 5})
    before = wire.trains(1)
    with cut_between_pods(cluster, wire):
        time.sleep(CUT_SECONDS)
        reached = wire.starts[0].reached
        assert reached <= before.reached + wire.interval
    wire.until(lambda _: wire.starts[0].reached > reached, "it does not go on")
    wire.succeeded()
    assert wire.history() == [("Succeeded", False)]


def test_a_cut_between_two_pods_that_lasts_costs_one_attempt(cluster: Cluster, laboratory: Laboratory) -> None:
    wire = laboratory.experiment("wire", training={"epochs": 5})
    wire.trains(1)
    with cut_between_pods(cluster, wire):
        verdict = wire.until(lambda status: status.get("lastVerdict"), "nobody misses its peer")
    assert (verdict["reason"], verdict["exitCode"]) == ("LostPeer", ExitCode.LOST_PEER)
    wire.succeeded()
    assert wire.history() == [("LostPeer", True), ("Succeeded", False)]


def test_a_pod_that_lives_on_where_nobody_can_reach_it_is_fenced(cluster: Cluster, laboratory: Laboratory) -> None:
    node = "node-b"
    alone = on(cluster, laboratory, node, epochs=200, batchSizePerDevice=16)
    alone.trains(1)
    with dropped(cluster, node, "output", f"ip daddr {cluster.block.host}", f"ip daddr {cluster.block.services}"):
        taken_over = alone.trains(2, NODE_LOST)
        assert alone.node() == other(node)
        zombie = alone.starts[0]
        events = wait_for(lambda: stops(alone.folder / "1"), SOON, "the old pod does not end")
    assert [(event["code"], event["message"].partition(" of ")[0]) for event in events] == [
        (ExitCode.LOST_PEER, "superseded by start 2")
    ]
    # It trained on after the new gang had begun, and none of that is on the line of the training.
    assert zombie.reached > taken_over.resumed
    assert taken_over.resumed in zombie.commits
    alone.succeeded()
    assert alone.history() == [("NodeLost", False), ("Succeeded", False)]


def stops(start: Path) -> list[dict[str, Any]]:
    """The ends that a start has written down."""
    return [event for event in read_events(start / "events.jsonl") if event["kind"] == "stop"]


def test_an_api_server_that_is_away_for_a_minute_costs_nothing(cluster: Cluster, laboratory: Laboratory) -> None:
    calm = laboratory.experiment("calm", training=LONG, faultTolerance=PATIENT)
    before = calm.trains(1)
    restart(cluster, "kube-apiserver", AWAY_SECONDS)
    wait_for(lambda: calm.status, SOON, "the API server does not come back")
    assert calm.starts[0].reached >= before.reached + 2 * calm.interval
    calm.succeeded()
    assert calm.history() == [("Succeeded", False)]


def test_an_etcd_that_starts_again_costs_nothing(cluster: Cluster, laboratory: Laboratory) -> None:
    calm = laboratory.experiment("calm", training={"epochs": 6}, faultTolerance=PATIENT)
    calm.trains(1)
    restart(cluster, "etcd", 2.0)
    wait_for(lambda: calm.status, SOON, "the API server does not come back")
    calm.succeeded()
    assert calm.history() == [("Succeeded", False)]


def test_a_controller_that_is_killed_again_and_again_forgets_nothing(
    operator: Operator, laboratory: Laboratory
) -> None:
    dice = random.Random(SEED)
    watched = laboratory.experiment("watched", training={"epochs": 8})
    struck = {1, 2}
    kills = 0
    while watched.status.get("phase") != "Succeeded":
        time.sleep(dice.uniform(1, 12))
        leader = operator.leader()
        if leader:
            operator.kubectl.run("delete", "pod", leader, "--grace-period=0", "--force", "--ignore-not-found")
            kills += 1
        attempt = watched.status.get("attempt", 0)
        if attempt in struck and any(s.attempt == attempt and s.commits for s in watched.starts):
            struck.discard(attempt)
            laboratory.kubectl.delete("pod", watched.pod(1), wait=False)
    assert kills >= 3
    watched.succeeded()
    assert [reason for reason, _ in watched.history()][-1] == "Succeeded"
    # Each end was seen once, and each attempt made once.
    created = laboratory.kubectl.run("get", "pytorchjobs", "--output", "name").split()
    assert created == [f"pytorchjob.kubeflow.org/watched-{watched.status['attempt']}"]
    assert watched.status["attempt"] == 3
