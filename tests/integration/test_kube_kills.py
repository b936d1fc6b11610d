"""Whatever happens in whatever order, with the controller killed between any two requests and looking at caches of
any age: never two jobs of an experiment at a time, and it always goes on in the end."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.api import LABEL_EXPERIMENT
from controller.backoff import Timing
from controller.kube import trim
from controller.kube.client import EXPERIMENTS, JOBS, PODS, ApiError, Client
from controller.kube.executor import Executor, Settings, Stores
from controller.kube.poller import Poller
from controller.kube.reading import Reader
from controller.kube.recorder import Recorder
from controller.kube.store import Store
from controller.refused import as_experiment
from controller.targets import DEFAULT
from tests.integration.kube import Namespace, wait_for

TIMING = Timing(
    backoff_base=0.001, backoff_max=0.002, settle=0.0, peer_extra=0.0, pick_up=0.1, create_retry=0.0, dead_node=0.0
)
NAME = "digits"


Ages = tuple[int, int, int]
"""Of the cached experiments, jobs and pods, in looks."""


class Killed(BaseException):
    """kill -9."""


@dataclass
class World:
    """One experiment and the controllers that look at it, one life after another."""

    team: Namespace
    snapshots: list[Stores] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    born: set[str] = field(default_factory=set)

    def stores(self, stale: Ages) -> Stores:
        """The caches, each as it is now or as it was some looks ago."""
        client, name = self.team.client, self.team.name
        stores = Stores(
            Store(lambda each: (each["metadata"]["namespace"], each["metadata"]["name"])),
            {DEFAULT: Store(trim.experiment_of)},
            Store(trim.experiment_of),
        )
        kinds = ((EXPERIMENTS, stores.experiments), (JOBS, stores.jobs[DEFAULT]), (PODS, stores.pods))
        for resource, store in kinds:
            selector = "" if resource is EXPERIMENTS else LABEL_EXPERIMENT
            store.replace(trim.TRIMS[resource.plural](each) for each in client.items(resource, name, selector))
        self.snapshots.append(stores)
        experiments, jobs, pods = (self.snapshots[max(0, len(self.snapshots) - 1 - age)] for age in stale)
        return Stores(experiments.experiments, jobs.jobs, pods.pods)

    def look(self, at: int = 0, after: bool = False, stale: Ages = (0, 0, 0), fault: str = "kill") -> None:
        """A controller looks; its n-th request ends in a fault, before or after the API server has carried it out."""
        client = faulty(self.team.client, at, after, FAULTS[fault])
        poller = Poller(lambda _: None, 10.0)
        executor = Executor(
            client,
            self.stores(stale),
            poller,
            Recorder(client, "test"),
            settings=Settings("localhost/training:1", timing=TIMING),
            leading=lambda: True,
            wrote=lambda *_: None,
        )
        try:
            executor.look((self.team.name, NAME))
        except (Killed, ApiError) as error:
            if error is not FAULTS[fault] and getattr(error, "reason", "") != "Conflict":
                raise
        finally:
            poller.close()
        self.check()

    def check(self) -> None:
        alive = [job["metadata"]["name"] for job in self.team.jobs() if not job["metadata"].get("deletionTimestamp")]
        assert len(alive) <= 1, alive
        if alive and alive[0] not in self.born:
            assert self.pods() == [], f"{alive[0]} began before the pods of earlier attempts were gone"
            self.born.add(alive[0])
        self.attempts.append(self.team.status().get("attempt", 0))
        assert self.attempts == sorted(self.attempts)

    # what the rest of the cluster does

    def job(self) -> dict[str, Any] | None:
        return next(iter(self.team.jobs()), None)

    def pods(self) -> list[str]:
        return [pod["metadata"]["name"] for pod in self.team.client.items(PODS, self.team.name)]

    def run(self) -> None:
        job = self.job()
        if job is not None and not self.pods():
            self.team.pick_up(job)
            self.team.make_pod(job, 0)
            self.team.set_running(self.pods()[0])

    def end(self, code: int) -> None:
        for pod in self.pods():
            self.team.end(pod, code)

    def delete_job(self) -> None:
        job = self.job()
        if job is not None:
            self.team.client.delete(JOBS, self.team.name, job["metadata"]["name"], job["metadata"]["uid"])

    def collect(self) -> None:
        job = self.job()
        for pod in self.pods():
            if job is None or not pod.startswith(f"{job['metadata']['name']}-"):
                self.team.remove_pod(pod)


FAULTS: dict[str, BaseException] = {
    "kill": Killed(),
    "away": ApiError(0, "Unreachable", "the API server does not answer"),
    "busy": ApiError(429, "TooManyRequests", "later"),
    "broken": ApiError(500, "InternalError", "etcdserver: request timed out"),
    "shutting down": ApiError(503, "ServiceUnavailable", "apiserver is shutting down"),
}


def faulty(client: Client, at: int, after: bool, fault: BaseException) -> Client:
    clone, count = copy.copy(client), 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count == at and not after:
            raise fault
        answer = client.call(*args, **kwargs)
        if count == at:
            raise fault
        return answer

    clone.call = call  # type: ignore[method-assign]
    return clone


def settled(world: World) -> bool:
    """Undisturbed looks come to an attempt that runs, or to the end."""
    world.collect()
    world.look()
    world.run()
    return world.team.status().get("phase") in ("Running", "Succeeded", "Failed", "Suspended")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_each_request_of_a_start_and_of_a_restart(client: Client, after: bool) -> None:
    for die_at in range(1, 10):
        world = World(Namespace.made(client))
        world.team.create(nodes=1)
        for _ in range(3):
            world.look(die_at, after)
        wait_for(lambda world=world: settled(world))
        world.end(141)
        for _ in range(3):
            world.look(die_at, after)
            world.collect()
        wait_for(lambda world=world: settled(world) and world.team.status()["phase"] == "Running")
        status = world.team.status()
        assert (status["attempt"], status["restarts"]) == (2, 1)


@pytest.mark.parametrize("late", [(0, 1, 0), (0, 0, 1), (0, 1, 1)], ids=["jobs", "pods", "both"])
def test_caches_that_lag_end_nothing_and_begin_nothing(client: Client, late: Ages) -> None:
    world = World(Namespace.made(client))
    world.team.create(nodes=1)
    world.look()
    before = len(world.snapshots)
    wait_for(lambda: settled(world))
    job = world.job()
    for _ in range(6):
        # As old as they were before there was a job.
        world.look(stale=tuple(age * (len(world.snapshots) - before + 1) for age in late))  # type: ignore[arg-type]
    assert world.job() == job
    status = world.team.status()
    assert (status["attempt"], status["history"], status["phase"]) == (1, [], "Running")


def test_an_old_experiment_in_the_cache_does_not_cost_the_newest_attempt_its_job(client: Client) -> None:
    world = World(Namespace.made(client))
    world.team.create(nodes=1)
    world.look(at=2)  # the attempt is claimed, and its job not created yet
    assert (world.team.status()["attempt"], world.job()) == (1, None)
    claimed = len(world.snapshots)  # the next look sees it like that
    wait_for(lambda: settled(world))
    world.end(141)
    wait_for(lambda: settled(world) and world.team.status()["attempt"] == 2)
    job = world.job()
    # The first attempt is claimed and has no job; jobs and pods are those of now. No status would be written.
    world.look(stale=(len(world.snapshots) - claimed, 0, 0))
    assert world.job() == job
    assert world.team.status()["attempt"] == 2


def test_pods_are_read_by_name_and_those_of_a_large_gang_as_a_list(client: Client) -> None:
    for nodes, kind in ((2, "pod"), (65, "list")):
        world = World(Namespace.made(client))
        world.team.create(nodes=nodes)
        world.look()
        experiment = as_experiment(trim.experiment(world.team.get()))
        world.run()
        asked: list[str] = []

        def call(method: str, path: str, asked: list[str] = asked, **more: Any) -> Any:
            asked.append("list" if path.endswith("/pods") else "pod")
            return client.call(method, path, **more)

        counting = copy.copy(client)
        counting.call = call  # type: ignore[method-assign]
        pods = Reader(counting).pods(experiment, ())
        assert [pod["metadata"]["name"] for pod in pods] == ["digits-1-worker-0"]
        assert asked == [kind] * (nodes if kind == "pod" else 1)


DEATHS = st.sampled_from([0, 0, 0, *range(1, 9)])
AGES = st.sampled_from([0, 0, 1, 2, 3])
ACTIONS = st.one_of(
    st.tuples(
        st.just("look"),
        DEATHS,
        st.booleans(),
        st.tuples(st.sampled_from([0, 0, 1]), AGES, AGES),
        st.sampled_from(["kill", *FAULTS]),
    ),
    st.sampled_from(
        [("run",), ("collect",), ("end", 141), ("end", 143), ("end", 0), ("delete_job",), ("suspend",), ("resume",)]
    ),
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTIONS, min_size=12, max_size=30))
def test_any_sequence_of_faults_of_both_sides_and_kills(client: Client, actions: list[tuple[Any, ...]]) -> None:
    world = World(Namespace.made(client))
    world.team.create(nodes=1, faultTolerance={"maxRestarts": 100})
    finished = ""
    for name, *values in actions:
        if name in ("suspend", "resume"):
            world.team.patch({"suspend": name == "suspend"})
        else:
            getattr(world, name)(*values)
        world.check()
        phase = world.team.status().get("phase", "")
        assert finished in ("", phase), "what has ended stays ended"
        finished = phase if phase in ("Succeeded", "Failed") else ""
    wait_for(lambda: settled(world), world.team.status)
