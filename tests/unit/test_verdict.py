"""Every row of the fault table, as the pods of an attempt show it."""

from __future__ import annotations

import random

import pytest

from controller.api import HistoryEntry
from controller.verdict import Outcome, avoid_node, from_status, judge, stands_at, to_status
from tests.unit.documents import disruption, ended, pod, running, words

UIDS = ("uid-of-pod-1-0", "uid-of-pod-1-1")
LOW_DISK = "The node was low on resource: ephemeral-storage. Container pytorch was using 9Gi, request is 0."


def evicted(message):
    return pod(0, phase="Failed", reason="Evicted", message=message)


# name: (pod 0, outcome, reason, counted); pod 1 runs.
ONE_POD = {
    "bad option": (ended(64, words=words(message="--lr: must be above 0")), "Failed", "BadOption", False),
    "bad data": (ended(65), "Failed", "BadData", False),
    "data set missing": (ended(66), "Failed", "DataMissing", False),
    "framework missing": (ended(69), "Failed", "FrameworkMissing", False),
    "internal error": (ended(70), "Failed", "InternalError", False),
    "diverged": (ended(76), "Failed", "Diverged", False),
    "lowest permanent code": (ended(1), "Failed", "Exit1", False),
    "highest permanent code": (ended(127), "Failed", "Exit127", False),
    "start error": (ended(128, runtime="StartError", words="exec: no such file"), "Failed", "StartError", False),
    "command that can't run": (ended(127, runtime="ContainerCannotRun"), "Failed", "StartError", False),
    "own emptyDir full": (
        evicted('Usage of EmptyDir volume "home" exceeds the limit "1Gi". '), "Failed", "DiskLimitExceeded", False
    ),
    "own disk limit": (
        evicted("Pod ephemeral local storage usage exceeds the total limit of containers 2Gi. "),
        "Failed", "DiskLimitExceeded", False,
    ),
    "own container's disk limit": (
        evicted('Container pytorch exceeded its local ephemeral storage limit "1Gi". '),
        "Failed", "DiskLimitExceeded", False,
    ),
    "out of memory by the runtime": (ended(137, runtime="OOMKilled"), "Failed", "OOMKilled", False),
    "out of memory by the launcher": (ended(137, words=words(reason="OOMKilled")), "Failed", "OOMKilled", False),
    "evicted from a full node": (evicted(LOW_DISK), "Retry", "Evicted", False),
    "drained": (running(conditions=[disruption("EvictionByEvictionAPI")]), "Retry", "Evicted", False),
    "preempted": (running(conditions=[disruption("PreemptionByScheduler")]), "Retry", "Preempted", False),
    "preempted by the kubelet": (pod(phase="Failed", reason="Preempting"), "Retry", "Preempted", False),
    "node lost": (running(conditions=[disruption("DeletionByTaintManager")]), "Retry", "NodeLost", False),
    "node lost, collected": (
        pod(phase="Failed", conditions=[disruption("DeletionByPodGC")]), "Retry", "NodeLost", False
    ),
    "node shut down": (ended(137, reason="Terminated"), "Retry", "NodeShutdown", False),
    "node restarted": (ended(255, runtime="Unknown"), "Retry", "NodeLost", False),
    "container lost": (ended(137, runtime="ContainerStatusUnknown"), "Retry", "NodeLost", False),
    "deleted before it had started": (
        ended(137, runtime="ContainerStatusUnknown", deleting=100.0), "Retry", "PodGone", False
    ),
    "disrupted in a new way": (running(conditions=[disruption("DeletionByMoon")]), "Retry", "Disrupted", False),
    "stopped": (ended(143), "Retry", "Stopped", False),
    "device lost": (ended(141), "Retry", "DeviceLost", True),
    "port in use": (ended(141, words=words(reason="PortInUse")), "Retry", "PortInUse", True),
    "volume": (ended(144), "Retry", "VolumeIO", True),
    "unclassified": (ended(145, words=words(exception="RuntimeError")), "Retry", "Unclassified", True),
    "hang": (ended(142), "Retry", "Hung", True),
    "killed": (ended(137), "Retry", "Killed", True),
    "segmentation fault": (ended(139), "Retry", "Signal11", True),
    "code of no signal": (ended(128), "Retry", "Exit128", True),
    "lost a peer": (ended(140), "Retry", "LostPeer", True),
    "device promised, not there": (
        pod(phase="Failed", reason="UnexpectedAdmissionError"), "Retry", "NotStarted", False
    ),
    "node full after all": (pod(phase="Failed", reason="OutOfcpu"), "Retry", "NotStarted", False),
    "being deleted": (running(deleting=100.0), "Retry", "PodGone", False),
    "another UID": (running(uid="another"), "Retry", "PodGone", False),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_POD)
def test_the_table_says_how_one_pod_ends_the_attempt(name):
    first, outcome, reason, counted = ONE_POD[name]
    verdict = judge([first, running(1)], replicas=2, uids=UIDS)
    assert verdict is not None
    assert (verdict.outcome, verdict.reason, verdict.counted) == (Outcome(outcome), reason, counted)


def test_running_and_waiting_pods_give_no_verdict():
    assert judge([running(0), pod(1)], replicas=2, uids=UIDS) is None
    assert judge([], replicas=2) is None


def test_success_needs_all_pods():
    assert judge([ended(0, 0), running(1)], replicas=2, uids=UIDS) is None
    assert judge([ended(0, 0)], replicas=2) is None
    verdict = judge([ended(0, 0), ended(0, 1)], replicas=2, uids=UIDS)
    assert verdict is not None
    assert verdict.outcome is Outcome.SUCCEEDED


def test_success_is_not_undone_by_a_deletion():
    pods = [ended(0, 0, deleting=100.0), ended(0, 1)]
    assert judge(pods, replicas=2, uids=UIDS, job_gone=True).outcome is Outcome.SUCCEEDED


def test_a_missing_pod_and_a_deleted_job_are_found():
    assert judge([running(1)], replicas=2, uids=UIDS).reason == "PodGone"
    assert judge([], replicas=2, job_gone=True).reason == "JobDeleted"
    assert judge([running(0), running(1)], replicas=2, uids=UIDS, job_gone=True).reason == "JobDeleted"


def test_a_replacement_is_not_asked_how_it_ended():
    pods = [ended(64, 0, uid="another"), running(1)]
    assert judge(pods, replicas=2, uids=UIDS).reason == "PodGone"


STRONGEST_FIRST = [
    "bad option", "out of memory by the runtime", "node lost", "stopped", "device lost", "port in use", "volume",
    "unclassified", "hang", "killed", "lost a peer", "node full after all", "being deleted",
]  # fmt: skip


def test_a_node_that_lost_a_device_or_has_a_port_taken_is_avoided_and_no_other():
    reasons = ("DeviceLost", "PortInUse", "VolumeIO", "Hung")
    assert [avoid_node(reason, "node-1") for reason in reasons] == ["node-1", "node-1", None, None]


def at(index, name):
    """The pod of a case, as the pod of another index."""
    document = ONE_POD[name][0]
    metadata = document["metadata"] | {"name": f"digits-1-worker-{index}", "uid": f"uid-of-pod-1-{index}"}
    return document | {"metadata": metadata}


def test_the_strongest_pod_wins_whatever_their_order():
    for weak in range(1, len(STRONGEST_FIRST)):
        for strong in range(weak):
            pods = [at(0, STRONGEST_FIRST[weak]), at(1, STRONGEST_FIRST[strong])]
            random.Random(weak).shuffle(pods)
            verdict = judge(pods, replicas=2, uids=UIDS)
            assert verdict.reason == ONE_POD[STRONGEST_FIRST[strong]][2]
            assert verdict.pod == "digits-1-worker-1"


def test_of_two_alike_the_first_one_to_end_is_named():
    verdict = judge([ended(64, 0, at=200.0), ended(64, 1, at=100.0)], replicas=2, uids=UIDS)
    assert verdict.pod == "digits-1-worker-1"


def test_a_pod_is_disrupted_whatever_code_its_container_ends_with():
    verdict = judge([ended(145, conditions=[disruption("EvictionByEvictionAPI")])], replicas=1)
    assert (verdict.reason, verdict.counted) == ("Evicted", False)


def test_an_error_that_repeats_at_the_same_step_is_permanent():
    last_word = words(step=70, exception="RuntimeError", message="shape mismatch")
    earlier = HistoryEntry(attempt=1, reason="Unclassified", step=70, exception="RuntimeError")
    between = HistoryEntry(attempt=2, reason="Evicted", step=75)
    verdict = judge([ended(145, words=last_word)], replicas=1, history=[earlier, between])
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "RepeatedError")
    assert "RuntimeError at step 70 again" in verdict.message
    assert "shape mismatch" in verdict.message


@pytest.mark.parametrize(
    "earlier",
    [
        HistoryEntry(attempt=1, reason="Unclassified", step=71, exception="RuntimeError"),
        HistoryEntry(attempt=1, reason="Unclassified", step=70, exception="ValueError"),
        HistoryEntry(attempt=1, reason="Hung", step=70, exception="RuntimeError"),
    ],
)
def test_another_error_is_no_repetition(earlier):
    last_word = words(step=70, exception="RuntimeError")
    assert judge([ended(145, words=last_word)], replicas=1, history=[earlier]).reason == "Unclassified"


def test_the_message_names_pod_and_limit_when_memory_ran_out():
    verdict = judge([ended(137, runtime="OOMKilled", limit="64Gi")], replicas=1)
    assert verdict.message == "OOMKilled in pod digits-1-worker-0 (limit 64Gi)"


def test_the_message_is_the_pods_own_where_it_left_one():
    verdict = judge([ended(66, words=words(message="/data/train: no such folder"))], replicas=1)
    assert verdict.message == "/data/train: no such folder (pod digits-1-worker-0, exit code 66)"
    assert (verdict.exit_code, verdict.node) == (66, "node-0")


@pytest.mark.parametrize(
    ("last_words", "message"),
    [
        ("\x1b[31mboom\x00\n", "[31mboom (pod digits-1-worker-0, exit code 1)"),
        (
            "a log\n" * 500 + "Traceback:\n\x1b[31mboom\x00\n\n",
            "its log ends with: [31mboom (pod digits-1-worker-0, exit code 1)",
        ),
        ("\n \n", "pod digits-1-worker-0 ended with exit code 1 (Exit1)"),
    ],
)
def test_a_last_word_that_is_no_document_is_shown_as_one_clean_line(last_words, message):
    assert judge([ended(1, words=last_words)], replicas=1).message == message


def test_a_verdict_comes_back_from_status_as_it_was():
    for first, *_ in ONE_POD.values():
        verdict = judge([first, running(1)], replicas=2, uids=UIDS)
        kept = from_status(to_status(verdict))
        assert (kept.outcome, kept.counted, kept.strength) == (verdict.outcome, verdict.counted, verdict.strength)


def stands(pods, uids=UIDS):
    return stands_at(judge(pods, replicas=2, uids=uids), pods, uids=uids, since=0, settle=30, peer_wait=120)


def test_a_verdict_stands_at_once_when_all_have_ended():
    assert stands([ended(140, 0), ended(142, 1)]) == 0


def test_a_permanent_verdict_stands_at_once():
    assert stands([ended(64, 0), running(1)]) == 0


def test_a_fault_waits_for_the_others():
    assert stands([ended(142, 0), running(1)]) == 30


def test_lost_peers_wait_longer_for_a_pod_that_may_be_on_a_lost_node():
    assert stands([ended(140, 0), running(1)]) == 120


def test_lost_peers_wait_no_longer_where_the_peer_is_known_to_be_gone():
    assert stands([ended(140, 0), running(1, deleting=5.0)]) == 30
    assert stands([ended(140, 0), running(2, uid="uid-of-pod-1-2")], uids=(*UIDS, "uid-of-pod-1-2")) == 30
