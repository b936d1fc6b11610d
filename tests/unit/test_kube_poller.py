"""Progress is asked for concurrently and within bounds, and no answer is used twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from controller.kube.poller import Poller, Target
from controller.progress import Identity, Progress, Reading

A, B = ("team", "a"), ("team", "b")


def target(name: str = "a", attempt: int = 1) -> Target:
    return Target("10.0.0.1", 9401, Identity("team", name, attempt))


def answer(identity: Identity) -> Reading:
    return Reading(True, Progress(identity.namespace, identity.experiment, identity.attempt, "train"))


@pytest.fixture
def poller() -> Iterator[Callable[..., Poller]]:
    made: list[Poller] = []

    def make(told: list[Any], ask: Any, interval: float = 0.05, readers: int = 2) -> Poller:
        made.append(Poller(told.append, interval, readers, ask))
        made[-1].start()
        return made[-1]

    yield make
    for each in made:
        each.close()


def until(what: Callable[[], Any]) -> None:
    late = time.monotonic() + 10
    while not what():
        assert time.monotonic() < late
        time.sleep(0.005)


def test_a_target_is_asked_again_and_again_and_each_answer_is_taken_once(poller: Any) -> None:
    told: list[Any] = []
    found = poller(told, lambda host, port, identity: answer(identity), interval=0.2)
    found.follow(A, target())
    until(lambda: told == [A])
    assert found.take(A).document.experiment == "a"
    assert found.take(A) is None
    until(lambda: len(told) == 2)


def test_never_more_than_so_many_at_a_time_and_a_hung_one_holds_up_no_other(poller: Any) -> None:
    hang, lock, active, worst = threading.Event(), threading.Lock(), [0], [0]

    def ask(host: str, port: int, identity: Identity) -> Reading:
        with lock:
            active[0] += 1
            worst[0] = max(worst[0], active[0])
        if identity.experiment == "a":
            hang.wait(10)
        with lock:
            active[0] -= 1
        return answer(identity)

    told: list[Any] = []
    found = poller(told, ask, interval=0.01)
    for number in range(6):
        name = "ab"[number > 0] + str(number) if number else "a"
        found.follow(("team", name), target(name))
    until(lambda: len(told) > 20)
    assert A not in told
    hang.set()
    until(lambda: A in told)
    assert worst[0] <= 2


def test_an_answer_of_what_is_not_followed_any_more_is_dropped(poller: Any) -> None:
    release, told = threading.Event(), []

    def ask(host: str, port: int, identity: Identity) -> Reading:
        if identity.attempt == 1:
            release.wait(10)
        return answer(identity)

    found = poller(told, ask)
    found.follow(A, target(attempt=1))
    time.sleep(0.05)
    found.follow(A, target(attempt=2))
    until(lambda: told)
    release.set()
    time.sleep(0.1)
    assert found.take(A).document.attempt == 2
    found.follow(A, None)
    time.sleep(0.1)
    told.clear()
    time.sleep(0.1)
    assert told == []
    assert found.take(A) is None


def test_a_question_that_raises_is_asked_again(poller: Any) -> None:
    told, asked = [], []

    def ask(host: str, port: int, identity: Identity) -> Reading:
        asked.append(identity)
        if len(asked) < 3:
            raise ValueError("bad")
        return answer(identity)

    found = poller(told, ask, interval=0.01)
    found.follow(A, target())
    until(lambda: told)
    assert len(asked) >= 3


def test_a_reading_says_for_how_long_there_was_no_answer(poller: Any) -> None:
    silent = threading.Event()

    def ask(host: str, port: int, identity: Identity) -> Reading:
        return Reading(False, None, "reset") if silent.is_set() else answer(identity)

    told: list[Any] = []
    found = poller(told, ask, interval=0.01)
    silent.set()
    found.follow(A, target())
    readings: list[Reading] = []

    def take() -> Reading:
        until(lambda: readings.append(found.take(A)) or readings[-1] is not None)
        return readings[-1]

    first, second = take(), take()
    assert first.silent == 0.0
    assert second.silent > 0.0
    silent.clear()
    until(lambda: take().answered)
    silent.set()
    until(lambda: not take().answered)
    assert readings[-1].silent == 0.0
