"""What resnetctl says of experiments in a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from controller.story import moment, story, table, well
from controller.times import to_text

NOW = 1_800_000_000.0


def experiment(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "digits", "namespace": "team", "creationTimestamp": to_text(NOW - 7200)},
        "spec": {"model": "resnet50", "accelerator": {"type": "sdaa"}},
        "status": status,
    }


RUNNING = {
    "phase": "Running", "attempt": 3, "restarts": 1, "devices": "2x16 sdaa", "progress": "12/50", "step": 900,
    "top1Percent": "76.09", "imagesPerSecond": 20480.5, "loss": 1.25, "eta": "3h12m", "trainingPhase": "train",
    "jobName": "digits-3", "message": "attempt 3: train", "attemptStartTime": to_text(NOW - 600), "lastCheckpoint": 800,
    "history": [
        {"attempt": 2, "reason": "DeviceLost", "counted": True, "step": 500,
         "start": to_text(NOW - 3600), "end": to_text(NOW - 1800)},
    ],
    "lastVerdict": {"reason": "DeviceLost", "pod": "digits-2-worker-0", "node": "n1", "exitCode": 141,
                    "message": "gone"},
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Valid", "message": "the spec is valid"},
        {"type": "ProgressReachable", "status": "False", "reason": "Unreachable", "message": "no answer"},
    ],
}  # fmt: skip


def test_the_table_has_the_columns_of_kubectl_aligned() -> None:
    lines = table([experiment(**RUNNING), experiment()], NOW, namespaces=True, wide=False)
    head, row, new = (line.split() for line in lines)
    assert head[:3] == ["NAMESPACE", "NAME", "MODEL"]
    assert row == ["team", "digits", "resnet50", "2x16", "sdaa", "Running", "12/50", "76.09", "20480.5", "3h12m", "1",
                   "2h00m"]  # fmt: skip
    assert new == ["team", "digits", "resnet50", "2h00m"]
    assert lines[0].index("PHASE") == lines[1].index("Running")
    assert "digits-3" in table([experiment(**RUNNING)], NOW, namespaces=False, wide=True)[1]


def test_a_moment_of_a_running_one_is_its_figures_and_of_another_its_message() -> None:
    assert moment(RUNNING) == (
        "Running, attempt 3, train, epoch 12/50, step 900, 20480.5 img/s, loss 1.250, top-1 76.09 %, 3h12m left"
    )
    assert moment({"phase": "Queued", "attempt": 1, "message": "no quota"}) == "Queued, attempt 1, no quota"
    assert moment({}) == "Pending"


def test_the_story_tells_attempts_verdict_what_is_wrong_and_events_in_order() -> None:
    def event(reason: str, ago: float, version: int, **more: Any) -> dict[str, Any]:
        metadata = {"resourceVersion": str(version)}
        return {"reason": reason, "lastTimestamp": to_text(NOW - ago), "message": "m", "metadata": metadata} | more

    events = [event("B", 5, 10), event("A", 5, 9, count=3, type="Warning"), event("First", 60, 20)]
    events += [event("FailedCreatePod", 4, 21, involvedObject={"kind": "PyTorchJob"})]
    text = "\n".join(story(experiment(**RUNNING), events, NOW))
    assert text == (
        "team/digits: resnet50 on 2x16 sdaa, Running\n"
        "  attempt 3: train\n"
        "\n"
        "attempts: 3, 1 of them ended by a fault that counts\n"
        "  the first 1 are not on record any more\n"
        "    2  DeviceLost           step 500, after 30m00s, counts\n"
        "    3  is under way         began 10m00s ago\n"
        "last verdict: DeviceLost (pod digits-2-worker-0, node n1, exit code 141): gone\n"
        "newest checkpoint: step 800\n"
        "\n"
        "conditions:\n"
        "  ProgressReachable=False (Unreachable): no answer\n"
        "\n"
        "events:\n"
        "   1m00s ago  First: m\n"
        "!     5s ago  A (x3): m\n"
        "      5s ago  B: m\n"
        "      4s ago  FailedCreatePod (PyTorchJob): m"
    )


def test_one_that_nobody_looks_at_says_so() -> None:
    assert "is it running?" in story(experiment(), [], NOW)[1]


@pytest.mark.parametrize(
    ("phase", "reachable", "expected"),
    [
        ("Running", "True", True),
        ("Running", "False", False),
        ("Running", None, False),
        ("Succeeded", "False", True),
        ("Suspended", None, True),
        *((phase, "True", False) for phase in ("Pending", "Queued", "Starting", "Restarting", "Failed")),
    ],
)
def test_it_is_well_where_it_trains_and_says_so_or_nothing_is_left_to_do(
    phase: str, reachable: str | None, expected: bool
) -> None:
    conditions = [{"type": "ProgressReachable", "status": reachable}] if reachable else []
    assert well({"phase": phase, "conditions": conditions}) is expected


def test_what_nobody_has_looked_at_is_not_well() -> None:
    assert not well({})
