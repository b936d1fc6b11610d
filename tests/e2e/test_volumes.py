"""Checkpoints on a volume that is full or read-only, that were damaged by hand, or that belong to somebody else."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace

import pytest

from app.resilience.exit_codes import ExitCode
from tests.cluster.cluster import Cluster
from tests.cluster.waiting import wait_for
from tests.e2e import inside
from tests.e2e.disks import ALONE, filled, small_disk
from tests.e2e.experiments import KIND, SOON, Experiment, Laboratory

pytestmark = pytest.mark.timeout(1800)
BIG_BATCH = 16


def alone(laboratory: Laboratory, name: str, epochs: int, **changes: object) -> Experiment:
    """An experiment of one rank, on the node that has the small disk."""
    training = {"epochs": epochs, "batchSizePerDevice": BIG_BATCH}
    return laboratory.experiment(name, **ALONE, training=training, **changes)


def make_read_only(pid: int, path: str) -> None:
    """From now on nothing new can be written at `path` in the container of a process."""
    inside_it = ["nsenter", f"--target={pid}", "--mount"]
    subprocess.run([*inside_it, "mount", "--bind", path, path], check=True)
    subprocess.run([*inside_it, "mount", "-o", "remount,bind,ro", path], check=True)


def failures(experiment: Experiment) -> float:
    """Checkpoints that could not be written, as its metrics say."""
    found = re.search(r"^resnet_checkpoint_failures_total{.*} (\S+)$", experiment.metrics(), re.MULTILINE)
    assert found
    return float(found[1])


def test_a_full_volume_is_outlived_and_where_it_stays_full_the_next_attempt_goes_on(
    cluster: Cluster, laboratory: Laboratory
) -> None:
    with small_disk(cluster, laboratory.checkpoints) as disk:
        there = replace(laboratory, checkpoints=disk)
        crowded = alone(there, "crowded", 16, checkpoint={"keep": 1})
        crowded.trains(1)
        with filled(disk):
            wait_for(lambda: failures(crowded) >= 1, SOON, "no checkpoint has failed")
        before = crowded.starts[0].commits
        crowded.until(lambda _: crowded.starts[0].commits[len(before) :], "there is no checkpoint again")
        assert crowded.history() == []

        with filled(disk):
            verdict = crowded.until(lambda status: status.get("lastVerdict"), "it does not end for its volume's sake")
        assert (verdict["reason"], verdict["exitCode"]) == ("VolumeIO", ExitCode.VOLUME_IO)
        assert "No space left on device" in verdict["message"]
        # Five checkpoints in a row are what such a volume costs, and a moment in which the ranks agree on the end.
        status = crowded.succeeded(intervals=6)
        # The events of the last steps are on that volume as well, and lack: the launcher's last word has the step.
        assert status["history"][0]["step"] - crowded.starts[1].resumed <= 6 * crowded.interval
        assert set(crowded.history()[:-1]) == {("VolumeIO", True)}


def test_a_volume_that_turns_read_only_under_a_pod_costs_that_pod_alone(
    cluster: Cluster, laboratory: Laboratory
) -> None:
    stuck = alone(laboratory, "stuck", 9)
    stuck.trains(1)
    make_read_only(inside.ranks(cluster, laboratory.kubectl, stuck.pod())[0], "/checkpoints")
    verdict = stuck.until(lambda status: status.get("lastVerdict"), "it does not end for its volume's sake")
    assert verdict["reason"] == "VolumeIO"
    assert "Read-only file system" in verdict["message"]
    stuck.succeeded(intervals=6)
    assert stuck.history() == [("VolumeIO", True), ("Succeeded", False)]


def test_a_claim_that_may_not_be_written_is_named_at_once(laboratory: Laboratory) -> None:
    os.chown(laboratory.checkpoints, 0, 0)
    laboratory.checkpoints.chmod(0o755)
    refused = alone(laboratory, "refused", 2)
    status = refused.phase("Failed")
    assert (status["lastVerdict"]["exitCode"], refused.history()) == (ExitCode.BAD_OPTION, [("BadOption", False)])
    assert re.search(r"--checkpoint_dir /checkpoints/.*: Permission denied", status["message"])


def test_a_damaged_checkpoint_is_passed_over_and_another_experiments_is_not_taken_unasked(
    laboratory: Laboratory,
) -> None:
    first = alone(laboratory, "again", 8)
    first.trains(1)
    first.change(suspend=True)
    first.phase("Suspended")
    newest = first.checkpoint()
    with (newest / "tensors.safetensors").open("r+b") as file:
        file.truncate(1_000_000)
    first.change(suspend=False)
    second = first.trains(2)
    assert newest.name == f"step-{first.starts[0].commits[-1]}"
    assert second.resumed == first.starts[0].commits[-2]
    first.change(suspend=True)
    first.phase("Suspended")
    assert first.history() == [("Suspended", False)] * 2
    reached = first.starts[-1].reached
    folder = f"/checkpoints/{laboratory.kubectl.namespace}/again"

    for changes, why in (
        ({"checkpoint": {"adopt": True}, "model": "resnet34"}, r"--model_name resnet18 there, resnet34 here"),
        ({}, r"belongs to the experiment with UID .*checkpoint\.adopt: true"),
    ):
        laboratory.kubectl.delete(KIND, "again")
        stranger = alone(laboratory, "again", 8, **changes)
        message = stranger.phase("Failed")["message"]
        assert folder in message
        assert re.search(why, message), message
        assert stranger.history() == [("BadOption", False)]

    laboratory.kubectl.delete(KIND, "again")
    heir = alone(laboratory, "again", 8, checkpoint={"adopt": True})
    heir.succeeded()
    assert heir.starts[-1].resumed == reached
    assert heir.history() == [("Succeeded", False)]
