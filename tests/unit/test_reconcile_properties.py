"""The laws that reconcile keeps whatever happens, tried on a small cluster in memory.

The cluster's parts act in any order: pods appear, run, fail, are deleted or vanish, nodes die, the controller is killed
between any two of its actions, its writes meet conflicts, and its caches lag behind.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from controller.api import Experiment, Status
from controller.backoff import Timing
from controller.progress import Identity, Reading, parse
from controller.reconcile import CreateError, Decision, Observed, reconcile, reporter
from controller.times import to_text
from tests.unit import documents
from tests.unit.documents import NODES, START, disruption, experiment

TIMING = Timing()
GRACE = 120.0
FINISHED = ("Succeeded", "Failed")
CODES = (0, 1, 64, 128, 137, 139, 140, 141, 142, 143, 144, 145)


@dataclass
class Pod:
    """One pod: it waits, runs, then has ended."""

    attempt: int
    index: int
    uid: str
    started: float | None = None
    code: int | None = None
    words: str = ""
    deleting: float | None = None
    disrupted: str = ""
    node_dead: bool = False

    @property
    def alive(self) -> bool:
        return self.code is None and not self.node_dead

    def document(self) -> dict[str, Any]:
        more: dict[str, Any] = {"uid": self.uid, "deleting": self.deleting}
        more["conditions"] = [disruption(self.disrupted)] if self.disrupted else []
        if self.node_dead:  # what the node controller writes, and what nobody is left to write
            ready = {"type": "Ready", "status": "False"}
            more["conditions"] += [ready, {"type": "ContainersReady", "status": "True"}]
        if self.code is not None:
            return documents.ended(self.code, self.index, self.attempt, words=self.words, **more)
        if self.started is not None:
            return documents.running(self.index, self.attempt, since=self.started, **more)
        return documents.pod(self.index, self.attempt, **more)


@dataclass
class Seen:
    """What one read of the API gives."""

    status: Status
    version: int
    jobs: tuple[dict[str, Any], ...]
    pods: tuple[dict[str, Any], ...]


@dataclass
class Cluster:
    """The API server with training-operator, the kubelets and (with a queue) Kueue."""

    spec: dict[str, Any]
    now: float = START
    status: Status = field(default_factory=Status)
    version: int = 0
    jobs: dict[int, dict[str, Any]] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    posted: list[int] = field(default_factory=list)
    serial: int = 0
    step: int = 0
    checkpoint: int | None = None
    operator_installed: bool = True

    def experiment(self, status: Status) -> Experiment:
        return experiment(status, **self.spec)

    def read(self) -> Seen:
        pods = tuple(pod.document() for pod in self.pods)
        return Seen(self.status, self.version, tuple(copy.deepcopy(list(self.jobs.values()))), pods)

    def write(self, status: Status, version: int) -> bool:
        if version != self.version:
            return False
        self.status, self.version = status, self.version + 1
        return True

    def post(self, attempt: int) -> bool:
        if not self.operator_installed:
            return False
        if attempt not in self.jobs:  # else 409
            self.serial += 1
            job = documents.job(attempt, created=self.now, suspend="queueName" in self.spec)
            job["metadata"]["uid"] = f"job-{self.serial}"
            self.jobs[attempt] = job
            self.posted.append(attempt)
        return True

    def delete_job(self, attempt: int, uid: str) -> None:
        """Background deletion: the job goes at once, its pods get their grace period."""
        if attempt in self.jobs and self.jobs[attempt]["metadata"]["uid"] == uid:
            del self.jobs[attempt]
            self.delete_pods(attempt)

    def delete_pods(self, attempt: int) -> None:
        for pod in self.pods:
            if pod.attempt == attempt and pod.deleting is None:
                pod.deleting = self.now + GRACE

    def make_pods(self) -> None:
        """training-operator makes what is missing, also of a pod that was there before."""
        for attempt, job in self.jobs.items():
            there = {pod.index for pod in self.pods if pod.attempt == attempt}
            if not job["spec"]["runPolicy"].get("suspend"):
                for index in set(range(NODES)) - there:
                    self.serial += 1
                    self.pods.append(Pod(attempt, index, f"pod-{self.serial}"))

    def end(self, pod: Pod, code: int) -> None:
        pod.code = code
        pod.started = pod.started or self.now
        phase = "done" if code == 0 else "train"
        values = {"step": self.step, "last_checkpoint": self.checkpoint, "exception": "RuntimeError", "phase": phase}
        pod.words = documents.words(pod.attempt, **values)

    def kubelets(self) -> None:
        """Deleted pods end and go, unless their node is dead."""
        for pod in list(self.pods):
            if pod.deleting is not None and not pod.node_dead:
                self.pods.remove(pod)

    def start_pods(self) -> None:
        for pod in self.pods:
            if pod.alive and pod.deleting is None:
                pod.started = pod.started or self.now

    def kueue(self, admitted: bool) -> None:
        for attempt, job in self.jobs.items():
            if "queueName" in self.spec:
                job["spec"]["runPolicy"]["suspend"] = not admitted
                if not admitted:
                    self.delete_pods(attempt)

    def everybody_works(self) -> None:
        self.kubelets()
        self.kueue(admitted=True)
        self.make_pods()
        self.start_pods()


class Laws(RuleBasedStateMachine):
    """The parts of the cluster act in any order; the laws are looked at after each act."""

    @initialize(
        queued=st.booleans(),
        restarts=st.integers(0, 3),
        deadline=st.none() | st.integers(100, 5000),
        ttl=st.none() | st.integers(0, 100),
    )
    def begin(self, queued, restarts, deadline, ttl):
        self.cluster = Cluster({"faultTolerance": {"maxRestarts": restarts, "startTimeoutSeconds": 300}})
        self.cluster.spec |= {"queueName": "gpu"} if queued else {}
        self.cluster.spec |= {"activeDeadlineSeconds": deadline} if deadline else {}
        self.cluster.spec |= {"ttlSecondsAfterFinished": ttl} if ttl is not None else {}
        self.past = [self.cluster.read()]
        self.create_error: CreateError | None = None
        self.looked_at: set[int] = set()  # jobs of these attempts have been seen
        self.counted_restarts = 0  # since the last checkpoint, counted here once more

    # --- the controller ---

    @rule(
        crash=st.integers(0, 4),
        lags=st.tuples(*3 * [st.integers(0, 3)]),
        caught_up=st.booleans(),
        asked=st.booleans(),
        racing=st.booleans(),
    )
    def controller(self, crash=4, lags=(0, 0, 0), caught_up=True, asked=True, racing=False):
        """One look with the actions that follow; `crash` of them are carried out (4: all)."""
        if caught_up:
            self.past = [*self.past, self.cluster.read()][-4:]
        experiments, jobs, pods = (self.past[-1 - min(lag, len(self.past) - 1)] for lag in lags)
        seen = Seen(experiments.status, experiments.version, jobs.jobs, pods.pods)  # three caches
        decision = self.decide(seen, asked, cached=True)
        if decision.confirm:
            seen = self.cluster.read()
            decision = self.decide(seen, asked, cached=False)
            assert not decision.confirm
        self.carry_out(decision, seen, crash, racing)

    def decide(self, seen: Seen, asked: bool, cached: bool) -> Decision:
        looked = self.cluster.experiment(seen.status)
        observed = Observed(seen.jobs, seen.pods, create_error=self.create_error, cached=cached)
        if asked:
            observed = Observed(seen.jobs, seen.pods, self.reading(looked, observed), self.create_error, cached=cached)
        decision = reconcile(looked, observed, self.cluster.now, TIMING)
        self.check(looked, observed, decision)
        return decision

    def reading(self, looked: Experiment, observed: Observed) -> Reading | None:
        if reporter(looked, observed) is None:
            return None
        attempt = looked.status.attempt
        document = documents.progress(attempt, step=self.cluster.step, last_checkpoint=self.cluster.checkpoint)
        return Reading(True, parse(json.dumps(document).encode(), Identity("team", "digits", attempt)))

    def check(self, looked: Experiment, observed: Observed, decision: Decision) -> None:
        """The laws of one decision."""
        status = decision.status
        text = json.dumps(status.model_dump(mode="json", by_alias=True, exclude_none=True), allow_nan=False)
        assert len(text) < 100_000
        assert Status.model_validate_json(text) == status
        if decision.confirm:
            assert (status, decision.create, decision.delete) == (looked.status, None, ())
            return
        again = reconcile(self.cluster.experiment(status), observed, self.cluster.now, TIMING)
        if not again.confirm:
            assert (again.status, again.events) == (status, ()), "a second look at the same changes something"
            if decision.look_again_at is None or decision.look_again_at > self.cluster.now:
                assert set(again.delete) <= set(decision.delete), "nobody would look again to delete"
                assert again.create in (None, decision.create), "nobody would look again to create"
        if status.phase not in FINISHED:
            assert status.message
            assert status.phase == "Suspended" or decision.look_again_at is not None
        if decision.create is not None:
            assert decision.create == looked.status.attempt == status.attempt, "created without a claim"
        if looked.status.phase in FINISHED:
            assert decision.create is None
            assert decision.events == ()

    def carry_out(self, decision: Decision, seen: Seen, crash: int, racing: bool) -> None:
        actions = [lambda job=job: self.delete(job.name, job.uid) for job in decision.delete]
        if decision.create is not None:
            actions.append(lambda: self.post(decision.create))
        if crash == 0:
            return
        if decision.status != seen.status:
            if racing:
                self.cluster.version += 1  # somebody else wrote the experiment: a user, the API server
            before = self.cluster.status
            if not self.cluster.write(decision.status, seen.version):
                return
            self.written(before, decision.status)
        self.looked_at |= {int(job["metadata"]["labels"]["resnet-operator.io/attempt"]) for job in seen.jobs}
        for action in actions[: crash - 1] if crash < 4 else actions:
            action()

    def delete(self, name: str, uid: str) -> None:
        self.cluster.delete_job(int(name.rsplit("-", 1)[1]), uid)

    def post(self, attempt: int) -> None:
        before = len(self.cluster.posted)
        if not self.cluster.post(attempt):
            self.create_error = CreateError("TrainingOperatorMissing", "no such kind", self.cluster.now)
            return
        self.create_error = None
        if len(self.cluster.posted) > before:
            assert attempt > max(self.cluster.posted[:-1], default=0), "an attempt number repeats"

    def written(self, before: Status, after: Status) -> None:
        """The laws of one change of status."""
        assert after.attempt in (before.attempt, before.attempt + 1)
        numbers = [entry.attempt for entry in after.history]
        assert numbers == sorted(set(numbers))
        if before.phase in FINISHED:
            assert (after.phase, after.attempt, after.history) == (before.phase, before.attempt, before.history)
        if (after.last_checkpoint or -1) > (before.last_checkpoint or -1):
            self.counted_restarts = 0
        if after.history[-1:] != before.history[-1:] and after.phase not in FINISHED:
            self.counted_restarts += after.history[-1].counted
        limit = self.cluster.experiment(after).spec.fault_tolerance.max_restarts
        assert self.counted_restarts <= limit

    # --- everything else ---

    @rule(seconds=st.sampled_from([0.25, 5, 31, 61, 150, 400]))
    def time_passes(self, seconds):
        self.cluster.now += seconds

    @rule(looks=st.integers(2, 5), steps=st.integers(0, 50), checkpoint=st.sampled_from([False, False, True]))
    def life_goes_on(self, looks, steps, checkpoint):
        """All parts do what they should, several times over, so that an attempt comes to run."""
        for _ in range(looks):
            self.cluster.everybody_works()
            self.controller()
            self.cluster.now += 10
        if any(pod.alive and pod.started for pod in self.cluster.pods):
            self.cluster.step += steps
            self.cluster.checkpoint = self.cluster.step if checkpoint else self.cluster.checkpoint

    @precondition(lambda self: any(pod.alive for pod in self.cluster.pods))
    @rule(data=st.data(), code=st.sampled_from(CODES), all_of_them=st.booleans())
    def pods_end(self, data, code, all_of_them):
        alive = [pod for pod in self.cluster.pods if pod.alive]
        if code == 0 and not all_of_them:
            code = 143
        for pod in alive if all_of_them else [data.draw(st.sampled_from(alive))]:
            self.cluster.end(pod, code)

    @precondition(lambda self: self.cluster.pods)
    @rule(data=st.data(), what=st.sampled_from(["drain", "vanish", "delete", "node dies"]))
    def a_pod_is_hit(self, data, what):
        pod = data.draw(st.sampled_from(self.cluster.pods))
        if what == "vanish":
            self.cluster.pods.remove(pod)
            return
        pod.deleting = pod.deleting or self.cluster.now + GRACE
        if what != "delete":
            pod.disrupted = "DeletionByTaintManager" if what == "node dies" else "EvictionByEvictionAPI"
            pod.node_dead = pod.node_dead or what == "node dies"

    @rule(
        what=st.sampled_from(
            [
                "make",
                "start",
                "finish",
                "delete",
                "suspend",
                "resume",
                "hold",
                "admit",
                "uninstall",
                "install",
            ]
        )
    )
    def somebody_acts(self, what):
        """One part of the cluster, or a user, does one thing."""
        cluster = self.cluster
        if what == "make":
            cluster.make_pods()
        elif what == "start":
            cluster.start_pods()
        elif what == "finish":
            cluster.kubelets()
        elif what == "delete":
            # Only what was looked at: a job that comes and goes unseen leaves nothing that could be known of it.
            for attempt in self.looked_at & set(cluster.jobs):
                cluster.delete_job(attempt, cluster.jobs[attempt]["metadata"]["uid"])
        elif what in ("suspend", "resume"):
            cluster.spec["suspend"] = what == "suspend"
            cluster.version += 1
        elif what in ("hold", "admit"):
            cluster.kueue(admitted=what == "admit")
        else:
            cluster.operator_installed = what == "install"

    # --- laws ---

    @invariant()
    def at_most_one_attempt_is_live(self):
        if not hasattr(self, "cluster"):
            return
        live = set(self.cluster.jobs) | {pod.attempt for pod in self.cluster.pods if pod.alive}
        assert len(live) <= 1, f"attempts {live} live side by side"

    def teardown(self):
        """From here on nothing breaks any more: the experiment has to end."""
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        cluster.spec["suspend"], cluster.operator_installed = False, True
        for _ in range(60):
            seen = cluster.read()
            decision = self.decide(seen, asked=False, cached=False)
            self.carry_out(decision, seen, crash=4, racing=False)
            if cluster.status.phase in FINISHED:
                break
            assert decision.look_again_at is not None, "nobody would look again"
            assert decision.look_again_at >= cluster.now
            cluster.now = max(decision.look_again_at, cluster.now)
            for pod in cluster.pods:
                if pod.alive and pod.started is not None and pod.deleting is None:
                    cluster.end(pod, 0)
            cluster.everybody_works()
        assert cluster.status.phase in FINISHED, cluster.status.message
        assert cluster.status.completion_time is not None
        self.at_most_one_attempt_is_live()


TestLaws = Laws.TestCase
TestLaws.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)


def test_the_status_s_times_are_as_the_api_writes_them():
    assert to_text(START) == "2027-01-15T08:00:00Z"
    assert to_text(START + 0.25) == "2027-01-15T08:00:00.250Z"
