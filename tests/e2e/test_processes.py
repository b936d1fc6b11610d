"""An experiment on two nodes from its start to its exported network, whatever happens to its processes and pods."""

from __future__ import annotations

import re
from pathlib import Path
from signal import SIGKILL, SIGSTOP

import pytest

from app.resilience.exit_codes import ExitCode
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.waiting import wait_for
from tests.e2e import inside
from tests.e2e.experiments import KIND, SOON, Experiment, Laboratory

pytestmark = pytest.mark.timeout(1800)
# The fields of `kubectl get` between RUNNING and RESTARTS: epoch, top-1 (not before the first validation), speed, ETA.
MOVING = re.compile(r"Running +(\d+)/(\d+) +(?:([\d.]+) +)?([\d.]+) +(\w+) +0 +\w+$", re.MULTILINE)
# A container that gets so much of a CPU computes several times as long.
THROTTLED = 0.2


def test_two_nodes_of_two_ranks_train_and_kubectl_shows_it(laboratory: Laboratory, tmp_path: Path) -> None:
    accelerator = {"type": "cpu", "cardsPerNode": 2}
    plain = laboratory.experiment("plain", accelerator=accelerator, training={"epochs": 6, "batchSizePerDevice": 4})
    watched = tmp_path / "watched"
    with laboratory.kubectl.following(watched, "get", KIND, "plain", "--watch"):
        assert {plain.node(0, plain.trains(1).attempt), plain.node(1)} == set(NODES)
        status = plain.succeeded()
        wait_for(lambda: "Succeeded" in watched.read_text(), SOON, "kubectl does not show the end")

    assert (status["attempt"], status["restarts"], plain.lost()) == (1, 0, [])
    shown = MOVING.findall(watched.read_text())
    epochs = [int(epoch) for epoch, *_ in shown]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) >= 3, watched.read_text()
    assert {of for _, of, *_ in shown} == {"6"}
    assert len({eta for *_, eta in shown}) >= 3, watched.read_text()


def test_killed_ranks_launchers_pods_and_jobs_cost_at_most_what_is_not_in_a_checkpoint(
    cluster: Cluster, laboratory: Laboratory
) -> None:
    kubectl = laboratory.kubectl
    struck = laboratory.experiment("struck", training={"epochs": 8})

    struck.trains(1)
    inside.strike(inside.ranks(cluster, kubectl, struck.pod(1))[1], SIGKILL)
    struck.trains(2)
    inside.strike(inside.launcher(cluster, kubectl, struck.pod(0)), SIGKILL)
    struck.trains(3)
    kubectl.delete("pod", struck.pod(1), wait=False)
    struck.trains(4)
    kubectl.delete("pytorchjob", f"{struck.name}-4", wait=False)

    struck.succeeded()
    killed, gone = ("Killed", True), ("Stopped", False)
    assert struck.history() == [killed, killed, gone, gone, ("Succeeded", False)]
    assert struck.status["restarts"] == 2
    assert {"Killed", "Stopped"} <= struck.told()
    # What is deleted has time for a checkpoint.
    assert struck.lost()[2:] == [0, 0]


def test_a_rank_that_stands_still_is_named_with_the_stacks_of_all_and_the_training_goes_on(
    cluster: Cluster, laboratory: Laboratory, tmp_path: Path
) -> None:
    accelerator = {"type": "cpu", "cardsPerNode": 2}
    training = {"watchdogSeconds": 15, "epochs": 3}
    frozen = laboratory.experiment("frozen", nodes=1, accelerator=accelerator, training=training)
    frozen.trains(1)
    log = tmp_path / "log"
    with laboratory.kubectl.following(log, "logs", "--follow", frozen.pod()):
        rank = inside.ranks(cluster, laboratory.kubectl, frozen.pod())[1]
        inside.strike(rank, SIGSTOP)
        verdict = frozen.until(lambda status: status.get("lastVerdict"), "the rank that stands still is not noticed")
        wait_for(lambda: "the threads of rank 1:" in log.read_text(), SOON, "no stacks in the log")

    assert (verdict["reason"], verdict["exitCode"]) == ("Hung", ExitCode.HUNG)
    assert re.search(r"rank 1 has not moved for \d+ s \(.*, its process is stopped\)", verdict["message"])
    assert re.search(r"the threads of rank 0:\n(.*\n)*?.*File .*train\.py", log.read_text())
    frozen.succeeded()
    assert frozen.history() == [("Hung", True), ("Succeeded", False)]


def test_a_rank_whose_node_is_slow_is_named_and_nothing_is_restarted(cluster: Cluster, laboratory: Laboratory) -> None:
    slow = laboratory.experiment("slow", training={"epochs": 12})
    slow.trains(1)
    rank = inside.ranks(cluster, laboratory.kubectl, slow.pod(1))[1]
    inside.throttle(rank, THROTTLED)

    slow.until(lambda status: "rank 1 is slow" in status.get("message", ""), "the slow rank is not named")
    assert "rank 1 is slow, and the others wait for it" in slow.why()
    assert slowdown(slow, 1) > 1.25
    inside.throttle(rank, None)
    slow.until(lambda status: "is slow" not in status.get("message", ""), "the rank is still called slow")

    slow.succeeded()
    assert slow.history() == [("Succeeded", False)]


def slowdown(experiment: Experiment, rank: int) -> float:
    """How much slower than the others a rank is, as its own pod's metrics say."""
    found = re.search(
        rf'^resnet_training_rank_slowdown_ratio{{.*rank="{rank}".*}} (\S+)$', experiment.metrics(rank), re.MULTILINE
    )
    assert found
    return float(found[1])
