"""What the controller does about each row of the fault table, and when."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from controller.api import Status
from controller.backoff import Timing, delay, jitter
from controller.figures import duration
from controller.progress import Identity, Reading, parse
from controller.reconcile import CreateError, Decision, Observed, reconcile, reporter
from controller.times import to_text
from tests.unit.documents import START, disruption, ended, experiment, job, pod, progress, running, words

TIMING = Timing()


@dataclass
class Scene:
    """An experiment, what is seen of it, and the decisions about it."""

    spec: dict[str, Any] = field(default_factory=dict)
    status: Status = field(default_factory=Status)
    now: float = START
    events: list[str] = field(default_factory=list)

    def look(self, jobs=(), pods=(), after=0.0, **seen) -> Decision:
        """Time passes, then one look; its status is written."""
        self.now += after
        observed = Observed(jobs=tuple(jobs), pods=tuple(pods), **seen)
        decision = reconcile(experiment(self.status, **self.spec), observed, self.now, TIMING)
        if not decision.confirm:
            self.status = decision.status
        self.events += [event.reason for event in decision.events]
        return decision

    def start(self, attempt=1, **spec) -> Scene:
        """Claims an attempt, creates its job and sees its pods run."""
        self.spec |= spec
        assert self.look().create is None
        assert self.look().create == attempt
        self.look([job(attempt, created=self.now)], self.pods(attempt), after=1)
        assert self.status.phase == "Running"
        return self

    def pods(self, attempt=1):
        return [running(i, attempt, since=self.now) for i in range(2)]

    def reading(self, **values) -> Reading:
        raw = json.dumps(progress(self.status.attempt, **values)).encode()
        return Reading(True, parse(raw, Identity("team", "digits", self.status.attempt)))

    def condition(self, kind):
        found = [c for c in self.status.conditions if c.type == kind]
        return (found[0].status, found[0].reason) if found else None

    def fail(self, *pods, after=0.0) -> Decision:
        """The newest attempt's pods end like that."""
        return self.look([job(self.status.attempt, created=self.now)], pods, after=after)

    def next_attempt(self, attempt) -> None:
        """The job and its pods are gone and the back-off is over: the next attempt begins and runs."""
        self.look(after=400)
        assert self.status.attempt == attempt
        assert self.look().create == attempt
        self.look([job(attempt, created=self.now)], self.pods(attempt), after=1)
        assert self.status.phase == "Running"


def deleted(decision):
    return [reference.name for reference in decision.delete]


# --- starting ------------------------------------------------------------------------------------------------------


def test_an_attempt_is_claimed_in_one_look_and_created_in_the_next():
    scene = Scene()
    first = scene.look()
    assert (first.status.attempt, first.create, first.look_again_at) == (1, None, scene.now)
    assert scene.look().create == 1
    assert scene.status.phase == "Pending"


def test_it_is_running_when_all_pods_run_and_their_uids_are_kept():
    scene = Scene().start()
    assert scene.status.pod_uids == ["uid-of-pod-1-0", "uid-of-pod-1-1"]
    assert scene.status.job_name == "digits-1"
    assert scene.status.start_time == to_text(scene.now)
    assert scene.condition("Running") == ("True", "AllPodsRun")
    assert scene.status.devices == "2x2 cpu"
    assert scene.events == ["AttemptStarting", "Running"]


def test_the_number_is_above_every_label_and_older_things_go_first():
    scene = Scene()
    decision = scene.look([job(7)], [running(0, 7)])
    assert deleted(decision) == ["digits-7"]
    assert scene.status.attempt == 0
    scene.look([], [running(0, 7, deleting=START + 100)])
    assert scene.status.attempt == 0
    assert "digits-7-worker-0" in scene.status.message
    scene.look([job(9, owner="an earlier experiment")])
    assert scene.status.attempt == 10


def test_a_foreign_job_of_that_name_is_not_fought_over():
    scene = Scene()
    scene.look()
    decision = scene.look([job(1, owner="somebody")], after=100)
    assert (decision.create, decision.delete, scene.status.attempt) == (None, (), 1)
    assert scene.condition("PodsScheduled") == ("False", "JobNameTaken")
    assert scene.look(after=100).create == 1


def test_our_own_job_that_is_being_deleted_is_waited_for_and_not_made_again():
    scene = Scene()
    scene.look()
    decision = scene.look([job(1, deleting=START)])
    assert decision.create is None
    assert (scene.status.last_verdict.reason, scene.status.history[-1].counted) == ("JobDeleted", False)


def test_a_refused_post_waits_with_its_reason_and_is_tried_again():
    scene = Scene()
    scene.look()
    error = CreateError("TrainingOperatorMissing", "the PyTorchJob CRD is not installed", at=scene.now)
    assert scene.look(create_error=error, after=10).create is None
    assert scene.condition("PodsScheduled") == ("False", "TrainingOperatorMissing")
    decision = scene.look(create_error=error)
    assert decision.look_again_at == error.at + TIMING.create_retry
    assert scene.look(create_error=error, after=20).create == 1
    assert scene.status.restarts == 0


def test_a_job_that_training_operator_does_not_pick_up_waits_with_a_reason():
    scene = Scene()
    scene.look()
    unseen = job(1, created=scene.now, conditions=[])
    decision = scene.look([unseen], after=59)
    assert scene.condition("PodsScheduled") == ("False", "WaitingForPods")
    assert decision.look_again_at == START + 60
    scene.look([unseen], after=1)
    assert scene.condition("PodsScheduled") == ("False", "JobNotPickedUp")
    assert "JobNotPickedUp" in scene.events
    assert (scene.look([unseen], after=9000).delete, scene.status.attempt) == ((), 1)


def test_an_unschedulable_pod_waits_with_the_schedulers_words():
    scene = Scene()
    scene.look()
    waiting = pod(0, scheduled=False, why={"reason": "Unschedulable", "message": "0/3 nodes: no tcaicard"})
    scene.look([job()], [waiting, pod(1)], after=9000)
    assert (scene.status.phase, scene.condition("PodsScheduled")) == ("Pending", ("False", "Unschedulable"))
    assert "no tcaicard" in scene.status.message
    assert scene.status.attempt == 1


@pytest.mark.parametrize("reason", ["ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"])
def test_an_image_that_can_not_be_pulled_waits_with_a_reason(reason):
    scene = Scene()
    scene.look()
    stuck = pod(1, state={"waiting": {"reason": reason, "message": "no such image"}})
    scene.look([job()], [pod(0, state={"waiting": {"reason": "ContainerCreating"}}), stuck], after=9000)
    assert (scene.status.phase, scene.condition("Running")) == ("Starting", ("False", reason))
    assert (scene.status.attempt, scene.status.history) == (1, [])


def test_half_a_gang_is_given_up_after_the_start_timeout():
    scene = Scene(spec={"faultTolerance": {"startTimeoutSeconds": 100}})
    scene.look()
    half = [running(0, since=START), pod(1, scheduled=False)]
    decision = scene.look([job()], half, after=99)
    assert scene.status.history == []
    assert decision.look_again_at == START + 100
    decision = scene.look([job()], half, after=1)
    assert deleted(decision) == ["digits-1"]
    assert (scene.status.last_verdict.reason, scene.status.history[-1].counted) == ("GangIncomplete", False)
    wait = 20 * (1 + jitter("uid-of-experiment", 1))
    assert scene.status.retry_at == to_text(scene.now + wait)


def test_jitter_differs_between_experiments_and_stays_for_one():
    values = {jitter(f"uid-{i}", 1) for i in range(50)}
    assert len(values) == 50
    assert all(0 <= value < 1 for value in values)
    assert jitter("uid-1", 1) == jitter("uid-1", 1) != jitter("uid-1", 2)


# --- ends ----------------------------------------------------------------------------------------------------------


def test_all_exit_0_is_success_and_the_job_stays():
    scene = Scene().start()
    figures = {"top1": 355 / 360, "best_top1": 356 / 360, "loss": 2 / 3}
    last = words(phase="done", epoch=8, step=800, exported="/c/model.onnx", **figures)
    decision = scene.fail(ended(0, 0, words=last), ended(0, 1))
    assert (scene.status.phase, decision.delete, decision.create) == ("Succeeded", (), None)
    assert scene.status.completion_time == to_text(scene.now)
    assert (scene.status.progress, scene.status.top1_percent) == ("8/8", "98.61")
    assert (scene.status.top1, scene.status.best_top1, scene.status.loss) == (0.98611, 0.98889, 0.6667)
    assert (scene.condition("Exported"), scene.condition("Succeeded")) == (("True", "Exported"), ("True", "Succeeded"))
    assert scene.events[-2:] == ["Exported", "Succeeded"]


def test_an_export_that_failed_is_a_condition():
    scene = Scene().start()
    scene.fail(ended(0, 0, words=words(phase="done", export_error="onnx differs")), ended(0, 1))
    assert (scene.status.phase, scene.condition("Exported")) == ("Succeeded", ("False", "ExportFailed"))


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (ended(64, words=words(message="--lr: must be above 0")), "BadOption"),
        (ended(137, runtime="OOMKilled", limit="64Gi"), "OOMKilled"),
        (ended(128, runtime="StartError"), "StartError"),
        (pod(phase="Failed", reason="Evicted", message='Usage of EmptyDir volume "x" exceeds the limit "1Gi".'),
         "DiskLimitExceeded"),
    ],
)  # fmt: skip
def test_a_permanent_end_fails_at_the_first_time_and_the_job_stays_for_its_logs(first, reason):
    scene = Scene().start()
    decision = scene.fail(first, ended(140, 1))
    assert (scene.status.phase, scene.condition("Failed")) == ("Failed", ("True", reason))
    assert decision.delete == ()
    assert (scene.status.restarts, scene.status.faults) == (0, 0)
    assert scene.status.message == scene.status.last_verdict.message


RETRIED = {
    "evicted from a full node": (pod(phase="Failed", reason="Evicted", message="The node was low on resource"), False),
    "drained": (ended(143, conditions=[disruption("EvictionByEvictionAPI")]), False),
    "stopped": (ended(143), False),
    "device lost": (ended(141), True),
    "volume": (ended(144), True),
    "unclassified": (ended(145), True),
    "hang": (ended(142), True),
    "killed": (ended(137), True),
    "lost a peer": (ended(140), True),
    "never started": (pod(phase="Failed", reason="OutOfcpu"), False),
}


@pytest.mark.parametrize("name", RETRIED)
def test_any_other_end_is_a_new_attempt_of_all_pods(name):
    first, counted = RETRIED[name]
    scene = Scene().start()
    decision = scene.fail(first, ended(140 if counted else 143, 1))
    assert (scene.status.phase, deleted(decision)) == ("Restarting", ["digits-1"])
    assert (scene.status.history[-1].counted, scene.status.restarts, scene.status.faults) == (counted, counted, counted)
    scene.next_attempt(2)
    assert scene.status.job_name == "digits-2"


def test_a_pod_or_job_deleted_by_hand_is_a_new_attempt_that_does_not_count():
    for jobs, pods, reason in (
        ([job()], [running(1)], "PodGone"),
        ([job()], [running(0, uid="replaced"), running(1)], "PodGone"),
        ([], [], "JobDeleted"),
    ):
        scene = Scene().start()
        scene.look(jobs, pods)
        scene.look(jobs, pods, after=TIMING.settle)
        assert (scene.status.last_verdict.reason, scene.status.history[-1].counted) == (reason, False)


def test_the_others_are_waited_for_up_to_30_seconds_and_the_strongest_wins():
    scene = Scene().start()
    decision = scene.fail(ended(142, 0), running(1))
    assert (scene.status.history, decision.delete) == ([], ())
    assert decision.look_again_at == scene.now + 30
    scene.fail(ended(142, 0), ended(64, 1), after=10)
    assert (scene.status.phase, scene.status.last_verdict.pod) == ("Failed", "digits-1-worker-1")

    scene = Scene().start()
    scene.fail(ended(142, 0), running(1))
    scene.fail(ended(142, 0), running(1), after=29.9)
    assert scene.status.history == []
    scene.fail(ended(142, 0), running(1), after=0.1)
    assert scene.status.last_verdict.reason == "Hung"


def test_lost_peers_wait_for_the_node_to_be_declared_lost():
    scene = Scene().start(faultTolerance={"nodeGracePeriodSeconds": 60})
    scene.fail(ended(140, 0), running(1))
    scene.fail(ended(140, 0), running(1), after=119)
    assert scene.status.history == []
    lost = running(1, conditions=[disruption("DeletionByTaintManager")], deleting=scene.now + 120)
    scene.fail(ended(140, 0), lost, after=0.5)
    assert (scene.status.last_verdict.reason, scene.status.history[-1].counted) == ("NodeLost", False)


def test_a_peer_that_stays_silent_counts_in_the_end():
    scene = Scene().start(faultTolerance={"nodeGracePeriodSeconds": 60})
    scene.fail(ended(140, 0), running(1))
    scene.fail(ended(140, 0), running(1), after=120)
    assert (scene.status.last_verdict.reason, scene.status.history[-1].counted) == ("LostPeer", True)


def test_a_verdict_survives_its_pod():
    scene = Scene().start()
    scene.fail(ended(144, 0), running(1))
    scene.fail(running(1), after=30)
    assert (scene.status.last_verdict.reason, scene.status.last_verdict.pod) == ("VolumeIO", "digits-1-worker-0")


def test_a_lost_device_is_avoided_by_the_next_job_only():
    scene = Scene().start()
    scene.fail(ended(141, 0), ended(140, 1))
    scene.look(after=400)
    decision = scene.look()
    assert (decision.create, decision.avoid_node) == (2, "node-0")
    scene.look([job(2)], scene.pods(2))
    scene.fail(ended(142, 0, 2), ended(140, 1, 2))
    scene.look(after=400)
    decision = scene.look()
    assert (decision.create, decision.avoid_node) == (3, None)


def test_an_error_that_repeats_at_the_same_step_is_permanent():
    scene = Scene().start()
    scene.fail(ended(145, 0, words=words(1, step=70, exception="RuntimeError")), ended(140, 1))
    scene.next_attempt(2)
    scene.fail(ended(143, 0, 2), ended(143, 1, 2))
    scene.next_attempt(3)
    scene.fail(ended(145, 0, 3, words=words(3, step=70, exception="RuntimeError")), ended(140, 1, 3))
    assert (scene.status.phase, scene.condition("Failed")) == ("Failed", ("True", "RepeatedError"))


def test_the_next_attempt_waits_until_no_older_pod_is_left():
    scene = Scene().start()
    scene.fail(ended(142, 0), ended(140, 1))
    alive = running(1, deleting=scene.now + 120)
    scene.look([], [alive], after=300)
    assert scene.status.attempt == 1
    assert "digits-1-worker-1" in scene.status.message
    scene.look([job()], [])
    assert scene.status.attempt == 1
    scene.look([], [], after=1)
    assert scene.status.attempt == 2


def test_an_older_pod_that_turns_up_after_the_claim_holds_the_creation_back():
    scene = Scene().start()
    scene.fail(ended(142, 0), ended(140, 1))
    scene.look(after=400)
    assert scene.look([], [running(1)]).create is None
    assert scene.look([job(1)], []).create is None
    assert scene.look([], []).create == 2


@pytest.mark.parametrize(
    "conditions",
    [
        [disruption("DeletionByTaintManager")],
        [{"type": "Ready", "status": "False"}, {"type": "ContainersReady", "status": "True"}],
    ],
)
def test_a_pod_terminating_on_a_dead_node_is_given_up_after_its_grace_period(conditions):
    scene = Scene().start()
    scene.fail(ended(143, 0), ended(143, 1))
    dead = running(1, deleting=scene.now + 120, conditions=conditions)
    scene.look([], [dead], after=120 + TIMING.dead_node - 1)
    assert scene.status.attempt == 1
    scene.look([], [dead], after=1)
    assert scene.status.attempt == 2
    assert scene.look([], [dead]).create == 2


# --- counting ------------------------------------------------------------------------------------------------------


def test_back_off_doubles_up_to_five_minutes_and_is_none_after_progress():
    assert [delay(k, TIMING) for k in range(7)] == [0, 20, 40, 80, 160, 300, 300]
    assert delay(10**6, TIMING) == 300


def test_each_attempt_without_a_checkpoint_waits_longer_and_a_checkpoint_resets_it():
    scene = Scene().start()
    scene.fail(ended(142, 0), ended(140, 1))
    assert scene.status.retry_at == to_text(scene.now + 20)
    retry = scene.now + 20
    assert scene.look(after=19.5).look_again_at == retry
    assert scene.status.attempt == 1
    scene.next_attempt(2)
    scene.fail(ended(142, 0, 2), ended(140, 1, 2))
    assert scene.status.retry_at == to_text(scene.now + 40)
    scene.next_attempt(3)
    scene.fail(ended(142, 0, 3, words=words(3, last_checkpoint=100)), ended(140, 1, 3))
    assert (scene.status.retry_at, scene.status.faults, scene.status.restarts) == (None, 1, 3)
    scene.look()
    assert scene.status.attempt == 4


def test_max_restarts_counts_faults_since_the_last_checkpoint():
    scene = Scene().start(faultTolerance={"maxRestarts": 1})
    scene.fail(ended(142, 0), ended(140, 1))
    scene.next_attempt(2)
    scene.fail(ended(142, 0, 2, words=words(2, last_checkpoint=50)), ended(140, 1, 2))
    assert scene.status.phase == "Restarting"
    scene.next_attempt(3)
    decision = scene.fail(ended(142, 0, 3, words=words(3, last_checkpoint=50)), ended(140, 1, 3))
    assert (scene.status.phase, scene.condition("Failed")) == ("Failed", ("True", "MaxRestartsExceeded"))
    assert (scene.status.restarts, decision.delete) == (2, ())
    assert "maxRestarts is 1" in scene.status.message


def test_no_restart_is_allowed_with_max_restarts_0():
    scene = Scene().start(faultTolerance={"maxRestarts": 0})
    scene.fail(ended(142, 0), ended(140, 1))
    assert (scene.status.phase, scene.status.restarts) == ("Failed", 0)


def test_the_third_uncounted_end_in_a_row_without_progress_counts():
    scene = Scene().start()
    for attempt in range(1, 8):
        scene.fail(ended(143, 0, attempt), ended(143, 1, attempt))
        scene.next_attempt(attempt + 1)
    assert [entry.counted for entry in scene.status.history] == [False, False, True, False, False, True, False]


def test_progress_and_counted_ends_break_the_row():
    scene = Scene().start()
    for attempt in range(1, 6):
        done = words(attempt, last_checkpoint=attempt)
        scene.fail(ended(143, 0, attempt, words=done), ended(143, 1, attempt))
        scene.next_attempt(attempt + 1)
    assert not any(entry.counted for entry in scene.status.history)

    scene = Scene().start()
    for attempt, code in enumerate([143, 142, 143, 142, 143], start=1):
        scene.fail(ended(code, 0, attempt), ended(143 if code == 143 else 140, 1, attempt))
        scene.next_attempt(attempt + 1)
    assert [entry.counted for entry in scene.status.history] == [False, True, False, True, False]


def test_history_keeps_the_last_ten():
    scene = Scene().start()
    for attempt in range(1, 13):
        scene.fail(ended(142, 0, attempt, words=words(attempt, last_checkpoint=attempt)), ended(140, 1, attempt))
        scene.next_attempt(attempt + 1)
    assert [entry.attempt for entry in scene.status.history] == list(range(3, 13))


# --- progress ------------------------------------------------------------------------------------------------------


def test_the_numbers_come_from_node_0_of_this_attempt():
    scene = Scene().start()
    assert reporter(experiment(scene.status), Observed(pods=tuple(scene.pods())))["metadata"]["name"].endswith("-0")
    assert reporter(experiment(scene.status), Observed(pods=(running(1), running(0, 7)))) is None
    reading = scene.reading(step=100, loss=0.5, images_per_second=900.0, eta_seconds=11_520, last_checkpoint=90)
    scene.look([job()], scene.pods(), progress=reading)
    status = scene.status
    assert (status.step, status.loss, status.images_per_second, status.eta) == (100, 0.5, 900.0, "3h12m")
    assert (status.progress, status.last_checkpoint, status.attempts_without_progress) == ("1/8", 90, 0)
    assert scene.condition("ProgressReachable") == ("True", "Answers")


def test_the_numbers_change_every_ten_seconds_and_at_each_epoch():
    scene = Scene().start()
    scene.look([job()], scene.pods(), progress=scene.reading(step=100))
    scene.look([job()], scene.pods(), after=9, progress=scene.reading(step=190))
    assert scene.status.step == 100
    scene.look([job()], scene.pods(), after=1, progress=scene.reading(step=200))
    assert scene.status.step == 200
    scene.look([job()], scene.pods(), after=1, progress=scene.reading(step=210, epoch=2))
    assert (scene.status.step, scene.status.progress) == (210, "2/8")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (59.6, "1m00s"), (750, "12m30s"), (11_520, "3h12m"), (86_400 * 2 + 3600 * 4, "2d4h")],
)
def test_the_time_left_is_short(seconds, shown):
    assert duration(seconds) == shown


def test_a_resumed_attempt_keeps_the_numbers_until_it_trains():
    scene = Scene().start()
    scene.look([job()], scene.pods(), progress=scene.reading(step=100, top1=0.5, last_checkpoint=90))
    scene.fail(ended(142, 0), ended(140, 1))
    scene.next_attempt(2)
    scene.look([job(2)], scene.pods(2), progress=scene.reading(phase="start", step=0, epoch=0), after=20)
    assert (scene.status.step, scene.status.top1_percent, scene.status.training_phase) == (100, "50.00", "start")


def test_a_loss_that_is_not_finite_is_none_with_its_reason():
    scene = Scene().start()
    scene.look([job()], scene.pods(), progress=scene.reading(step=100, loss=0.5))
    reading = scene.reading(step=200, loss=None, loss_reason="non-finite")
    scene.look([job()], scene.pods(), after=10, progress=reading)
    assert scene.status.loss is None
    assert "non-finite" in scene.status.message


def test_a_stall_is_an_event_and_a_counted_new_attempt():
    scene = Scene().start(faultTolerance={"stallTimeoutSeconds": 900})
    reading = scene.reading(step=100)
    scene.look([job()], scene.pods(), progress=reading)
    scene.look([job()], scene.pods(), after=899, progress=reading)
    assert scene.status.history == []
    decision = scene.look([job()], scene.pods(), after=1, progress=reading)
    assert (scene.status.last_verdict.reason, scene.status.history[-1].counted) == ("Stalled", True)
    assert (deleted(decision), scene.events[-1]) == (["digits-1"], "Stalled")


def test_what_moves_does_not_stall():
    scene = Scene().start(faultTolerance={"stallTimeoutSeconds": 5})
    scene.look([job()], scene.pods(), progress=scene.reading(step=100))
    scene.look([job()], scene.pods(), after=6, progress=scene.reading(step=101))
    scene.look([job()], scene.pods(), after=6, progress=scene.reading(step=101, phase="validate"))
    scene.look([job()], scene.pods(), after=6)
    assert scene.status.history == []


@pytest.mark.parametrize("phase", ["start", "scan", "first_step"])
def test_there_is_no_stall_before_the_first_step(phase):
    scene = Scene().start()
    for _ in range(3):
        scene.look([job()], scene.pods(), after=1000, progress=scene.reading(phase=phase))
    assert scene.status.history == []


@pytest.mark.parametrize("phase", ["validate", "export"])
def test_work_without_steps_is_the_launchers_to_watch(phase):
    scene = Scene().start()
    for _ in range(3):
        scene.look([job()], scene.pods(), after=1000, progress=scene.reading(step=100, phase=phase))
    assert scene.status.history == []


def test_a_straggler_is_named_while_it_is_one():
    scene = Scene().start()
    scene.look([job()], scene.pods(), progress=scene.reading(step=100, straggler_rank=3, straggler_ratio=2.5))
    assert scene.status.message == "attempt 1: train; rank 3 is slow, and the others wait for it"
    scene.look([job()], scene.pods(), after=1)
    assert "rank 3 is slow" in scene.status.message
    scene.look([job()], scene.pods(), after=1, progress=scene.reading(step=200))
    assert scene.status.message == "attempt 1: train"


def test_progress_that_can_not_be_reached_is_a_condition_and_never_a_restart():
    scene = Scene().start()
    silence = Reading(False, None, "/progress did not answer in 2 s")
    scene.look([job()], scene.pods(), after=29, progress=silence)
    assert scene.condition("ProgressReachable") is None
    for _ in range(5):
        scene.look([job()], scene.pods(), after=5000, progress=silence)
    assert (scene.condition("ProgressReachable"), scene.status.history) == (("False", "Unreachable"), [])
    assert scene.events.count("Unreachable") == 1
    scene.look([job()], scene.pods(), progress=scene.reading())
    assert scene.condition("ProgressReachable") == ("True", "Answers")


def test_a_launcher_that_does_not_answer_once_is_not_unreachable():
    scene = Scene().start()
    scene.look([job()], scene.pods(), after=60, progress=scene.reading(step=100))
    for seconds in (0.0, 10.0, 29.0):
        scene.look([job()], scene.pods(), after=10, progress=Reading(False, None, "reset", silent=seconds))
    assert (scene.condition("ProgressReachable"), scene.events.count("Unreachable")) == (("True", "Answers"), 0)
    scene.look([job()], scene.pods(), after=10, progress=Reading(False, None, "reset", silent=30.0))
    assert scene.condition("ProgressReachable") == ("False", "Unreachable")


# --- what the user asks for ----------------------------------------------------------------------------------------


def test_suspend_stops_the_attempt_and_resume_begins_one_that_does_not_count():
    scene = Scene().start(activeDeadlineSeconds=100)
    scene.spec["suspend"] = True
    decision = scene.look([job()], scene.pods())
    assert deleted(decision) == ["digits-1"]
    assert scene.status.phase == "Running"
    stopping = [running(i, deleting=scene.now + 120) for i in range(2)]
    scene.look([], stopping, after=5)
    assert scene.condition("Suspended") is None
    last = words(last_checkpoint=300, step=300)
    scene.look([], [ended(143, 0, words=last, deleting=scene.now)], after=5)
    decision = scene.look()
    assert (scene.status.phase, scene.status.last_checkpoint) == ("Suspended", 300)
    assert (scene.condition("Suspended"), decision.look_again_at) == (("True", "Suspended"), None)
    assert (scene.status.start_time, scene.status.restarts, scene.status.last_verdict) == (None, 0, None)
    scene.look(after=9000)
    assert scene.status.phase == "Suspended"
    scene.spec["suspend"] = False
    scene.look()
    assert (scene.status.attempt, scene.condition("Suspended")) == (2, ("False", "Resumed"))
    scene.look([job(2)], scene.pods(2), after=1)
    assert (scene.status.phase, scene.status.start_time) == ("Running", to_text(scene.now))


def test_a_suspended_experiment_starts_nothing():
    scene = Scene(spec={"suspend": True})
    assert scene.look().create is None
    assert (scene.status.phase, scene.status.attempt) == ("Suspended", 0)


def test_suspending_often_never_counts():
    scene = Scene().start()
    for attempt in range(1, 6):
        scene.spec["suspend"] = True
        scene.look([job(attempt)], scene.pods(attempt))
        scene.look()
        scene.spec["suspend"] = False
        scene.look()
        scene.look([job(attempt + 1)], scene.pods(attempt + 1))
    assert (scene.status.restarts, scene.status.faults, scene.status.phase) == (0, 0, "Running")
    assert scene.status.attempts_without_progress == 1


def test_success_is_success_though_suspend_came_with_it():
    scene = Scene().start()
    scene.spec["suspend"] = True
    scene.fail(ended(0, 0), ended(0, 1))
    assert scene.status.phase == "Succeeded"


def test_a_failure_that_will_stay_one_is_not_hidden_by_suspend():
    scene = Scene().start()
    scene.spec["suspend"] = True
    scene.fail(ended(137, runtime="OOMKilled"), running(1))
    assert scene.condition("Failed") == ("True", "OOMKilled")


def test_the_deadline_is_kept_to_the_second_over_restarts():
    scene = Scene().start(activeDeadlineSeconds=1000)
    end = scene.now + 1000
    scene.fail(ended(142, 0), ended(140, 1), after=100)
    scene.next_attempt(2)
    scene.now = end - 1
    decision = scene.look([job(2)], scene.pods(2))
    assert (scene.status.phase, decision.look_again_at) == ("Running", end)
    scene.now = end
    decision = scene.look([job(2)], scene.pods(2))
    assert (scene.status.phase, deleted(decision)) == ("Failed", ["digits-2"])
    assert scene.condition("Failed") == ("True", "DeadlineExceeded")
    # A controller that was killed before it deleted the job does so later.
    assert deleted(scene.look([job(2)], scene.pods(2))) == ["digits-2"]


def test_the_deadline_is_kept_between_attempts_too():
    scene = Scene().start(activeDeadlineSeconds=15)
    scene.fail(ended(142, 0), ended(140, 1))
    decision = scene.look()
    assert decision.look_again_at == START + 16
    scene.look(after=15)
    assert scene.condition("Failed") == ("True", "DeadlineExceeded")


def test_time_to_live_deletes_job_and_pods_and_never_the_experiment():
    scene = Scene().start(ttlSecondsAfterFinished=60)
    decision = scene.fail(ended(0, 0), ended(0, 1))
    assert (decision.delete, decision.look_again_at) == ((), scene.now + 60)
    ends = [ended(0, 0), ended(0, 1)]
    assert scene.look([job()], ends, after=59).delete == ()
    assert deleted(scene.look([job()], ends, after=1)) == ["digits-1"]
    decision = scene.look()
    assert (decision.delete, decision.look_again_at, scene.status.phase) == ((), None, "Succeeded")


def test_without_a_time_to_live_the_last_job_stays():
    scene = Scene().start()
    scene.fail(ended(0, 0), ended(0, 1))
    decision = scene.look([job()], [ended(0, 0), ended(0, 1)], after=10**8)
    assert (decision.delete, decision.look_again_at) == ((), None)


def test_pods_that_outlive_a_failure_are_stopped_after_a_while():
    scene = Scene().start()
    decision = scene.fail(ended(64, 0), running(1))
    assert (scene.status.phase, decision.delete) == ("Failed", ())
    assert decision.look_again_at == scene.now + 120
    assert deleted(scene.fail(ended(64, 0), running(1), after=120)) == ["digits-1"]


def test_a_finished_experiment_stays_as_it_is():
    scene = Scene().start()
    scene.fail(ended(64, 0), ended(140, 1))
    final = scene.status
    late = [ended(0, 0, words=words(phase="done", step=800)), ended(0, 1)]
    for jobs, pods in (([], []), ([job()], scene.pods()), ([job()], late)):
        decision = scene.look(jobs, pods, after=9000)
        assert (decision.status, decision.create, decision.events) == (final, None, ())


# --- Kueue ---------------------------------------------------------------------------------------------------------


def test_a_queued_job_waits_and_its_pods_ends_are_ignored():
    scene = Scene(spec={"queueName": "gpu"})
    scene.look()
    scene.look([job(suspend=True)], queue_message="insufficient unused quota, 4 more needed", after=9000)
    assert (scene.status.phase, scene.condition("PodsScheduled")) == ("Queued", ("False", "Queued"))
    assert "4 more needed" in scene.status.message
    scene.look([job()], scene.pods())
    assert scene.status.phase == "Running"
    preempted = [ended(143, i, deleting=scene.now) for i in range(2)]
    scene.look([job(suspend=True)], preempted)
    scene.look([job(suspend=True)], [])
    assert (scene.status.phase, scene.status.attempt, scene.status.history) == ("Queued", 1, [])
    again = [running(i, uid=f"second-{i}") for i in range(2)]
    scene.look([job()], [ended(143, 0, deleting=scene.now)], after=60)
    assert (scene.status.phase, scene.status.pod_uids) == ("Pending", [])
    scene.look([job()], again, after=60)
    assert (scene.status.phase, scene.status.attempt) == ("Running", 1)
    assert scene.status.pod_uids == ["second-0", "second-1"]


def test_pods_of_an_earlier_admission_on_a_dead_node_are_a_new_attempt():
    scene = Scene(spec={"queueName": "gpu"})
    scene.look()
    scene.look([job(suspend=True)])
    dead = running(0, deleting=scene.now, conditions=[disruption("DeletionByTaintManager")])
    scene.look([job()], [dead], after=TIMING.dead_node - 1)
    assert (scene.status.ending, scene.status.history) == (None, [])
    scene.look([job()], [dead], after=1)
    scene.look([job()], [dead], after=TIMING.settle)
    assert (scene.status.history[-1].reason, scene.status.history[-1].counted) == ("NodeLost", False)


def test_a_job_suspended_without_a_queue_is_a_job_whose_pods_are_gone():
    scene = Scene().start()
    scene.look([job(suspend=True)], [])
    assert scene.status.last_verdict.reason == "PodGone"


# --- caches, conditions --------------------------------------------------------------------------------------------


def test_nothing_irreversible_follows_from_a_cache():
    scene = Scene()
    assert scene.look(cached=True).confirm
    assert scene.status.attempt == 0
    scene.look()
    assert (scene.look(cached=True).confirm, scene.look(cached=True).create) == (True, None)
    scene.look([job()], scene.pods(), cached=True)
    assert scene.status.phase == "Running"
    decision = scene.look(cached=True)
    assert (decision.confirm, decision.delete) == (True, ())
    assert scene.look([job()], [running(1)], cached=True).confirm
    assert scene.status.ending is None


def test_the_transition_time_changes_only_with_the_status():
    scene = Scene().start()
    since = next(c.last_transition_time for c in scene.status.conditions if c.type == "Running")
    scene.look([job()], scene.pods(), after=100)
    assert next(c.last_transition_time for c in scene.status.conditions if c.type == "Running") == since
    scene.fail(ended(142, 0), ended(140, 1), after=5)
    assert next(c.last_transition_time for c in scene.status.conditions if c.type == "Running") == to_text(scene.now)


def test_a_new_reason_does_not_change_the_transition_time():
    scene = Scene()
    scene.look()
    scene.look([job()], [pod(0, scheduled=False, why={"reason": "Unschedulable"}), pod(1)], after=100)
    found = next(c for c in scene.status.conditions if c.type == "PodsScheduled")
    assert (found.reason, found.last_transition_time) == ("Unschedulable", to_text(START))


@pytest.mark.parametrize("volume", [None, {"emptyDir": {}}])
def test_checkpoints_without_a_claim_are_warned_about(volume):
    scene = Scene(spec={"checkpoint": {"volume": volume} if volume else {}})
    scene.look()
    assert scene.condition("Accepted") == ("True", "CheckpointsNotKept")
    assert "begins at step 0" in scene.status.conditions[0].message


def test_an_event_is_told_once():
    scene = Scene().start()
    scene.fail(ended(142, 0), ended(140, 1))
    assert scene.events == ["AttemptStarting", "Running", "Hung"]
    scene.look()
    scene.look()
    assert len(scene.events) == 3
