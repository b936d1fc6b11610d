"""Experiments that ask for what can't be had, end in time or are stopped: each says why, and none is tried in vain."""

from __future__ import annotations

import pytest

from app.resilience.exit_codes import ExitCode
from tests.cluster.kubectl import Object
from tests.cluster.waiting import wait_for
from tests.e2e.claims import Claim
from tests.e2e.experiments import SOON, Experiment, Laboratory

pytestmark = [pytest.mark.timeout(1800), pytest.mark.faults]
NO_IMAGE = "localhost/no-such-image:1"
BATCH = 16
# A container that stops within its grace, and what the kubelet and the garbage collector take.
GONE = 60.0


def small(
    laboratory: Laboratory, name: str, epochs: int = 3, training: Object | None = None, **changes: object
) -> Experiment:
    """An experiment of one rank."""
    common: Object = {"epochs": epochs, "batchSizePerDevice": BATCH}
    return laboratory.experiment(name, nodes=1, training=common | (training or {}), **changes)


def failed(experiment: Experiment, reason: str, code: int | None) -> str:
    """Wait until its first attempt has failed for good; the message."""
    status = experiment.phase("Failed")
    assert (status["attempt"], status["restarts"]) == (1, 0)
    assert experiment.history() == [(reason, False)]
    assert status["lastVerdict"].get("exitCode") == code
    assert experiment.condition("Failed")[:2] == ("True", reason)
    assert reason in experiment.told()
    return str(status["message"])


def jobs(experiment: Experiment) -> list[str]:
    """Its PyTorchJobs."""
    return [job["metadata"]["name"] for job in experiment.owned("pytorchjobs")]


def test_too_little_memory_names_pod_and_limit(laboratory: Laboratory) -> None:
    resources = {"requests": {"memory": "100Mi"}, "limits": {"memory": "150Mi"}}
    greedy = small(laboratory, "greedy", podTemplate={"resources": resources})
    assert "OOMKilled in pod greedy-1-worker-0 (limit 150Mi)" in failed(greedy, "OOMKilled", ExitCode.KILLED)


def test_an_image_that_can_not_be_pulled_is_waited_for_and_named(laboratory: Laboratory) -> None:
    blank = small(laboratory, "blank", image=NO_IMAGE)

    def named() -> bool:
        held, reason, message = blank.condition("Running")
        return (held, reason) in (("False", "ErrImagePull"), ("False", "ImagePullBackOff")) and NO_IMAGE in message

    blank.until(lambda _: named(), "it does not name its image")
    assert NO_IMAGE in blank.why()
    # What is rendered into the pods holds from the next attempt on.
    blank.change(image=None)
    laboratory.kubectl.delete("pytorchjob", "blank-1")
    blank.succeeded()
    assert blank.history() == [("JobDeleted", False), ("Succeeded", False)]


def test_a_pod_that_fits_nowhere_waits_and_says_what_it_lacks(laboratory: Laboratory) -> None:
    lost = small(laboratory, "lost", podTemplate={"nodeSelector": {"kubernetes.io/hostname": "node-z"}})
    lost.until(lambda _: lost.condition("PodsScheduled")[1] == "Unschedulable", "it does not say that it fits nowhere")
    assert "node affinity/selector" in lost.condition("PodsScheduled")[2]
    assert (lost.status["phase"], lost.status["restarts"]) == ("Pending", 0)


def test_a_volume_without_the_data_is_named(laboratory: Laboratory, claim: Claim) -> None:
    claim("nothing")
    volume = {"persistentVolumeClaim": {"claimName": "nothing", "readOnly": True}}
    hungry = small(laboratory, "hungry", dataset={"volume": volume})
    assert "/datasets/digits/train" in failed(hungry, "DataMissing", ExitCode.DATA_MISSING)


def test_a_learning_rate_that_is_too_high_fails_with_the_step_and_is_not_tried_again(laboratory: Laboratory) -> None:
    wild = small(laboratory, "wild", training={"learningRate": 1000, "warmupEpochs": 0})
    message = failed(wild, "Diverged", ExitCode.DIVERGED)
    assert "not finite" in message
    assert "1000" in message


def test_a_deadline_ends_it_in_time_and_frees_its_node(laboratory: Laboratory) -> None:
    late = small(laboratory, "late", epochs=1000, activeDeadlineSeconds=20)
    status = late.phase("Failed")
    assert late.condition("Failed")[1] == "DeadlineExceeded"
    assert "activeDeadlineSeconds" in status["message"]
    wait_for(lambda: not laboratory.kubectl.find("pods"), GONE, "its pod still runs")
    assert jobs(late) == []


def test_what_is_suspended_checkpoints_holds_nothing_and_goes_on_where_it_was(laboratory: Laboratory) -> None:
    paused = small(laboratory, "paused", epochs=5)
    paused.trains(1)
    paused.change(suspend=True)
    paused.phase("Suspended")
    assert paused.condition("Suspended")[:2] == ("True", "Suspended")
    assert (jobs(paused), laboratory.kubectl.find("pods")) == ([], [])
    paused.change(suspend=False)
    paused.succeeded()
    assert paused.history() == [("Suspended", False), ("Succeeded", False)]
    assert paused.lost() == [0]


def test_a_finished_job_is_deleted_after_its_time_to_live_and_the_experiment_stays(laboratory: Laboratory) -> None:
    brief = small(laboratory, "brief", epochs=1, ttlSecondsAfterFinished=10)
    brief.succeeded()
    wait_for(lambda: jobs(brief) == [], SOON, "its job is still there")
    assert brief.status["phase"] == "Succeeded"
