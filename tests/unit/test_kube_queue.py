"""The queue gives each key to one worker at a time, and forgets none."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.kube.queue import Queue

A, B = ("team", "a"), ("team", "b")


def test_a_key_added_twice_is_given_out_once() -> None:
    queue = Queue()
    for key in (A, B, A):
        queue.add(key)
    assert (queue.get(), queue.get(), len(queue)) == (A, B, 0)


def test_a_key_added_while_it_is_worked_on_comes_again_afterwards() -> None:
    queue = Queue()
    queue.add(A)
    assert queue.get() == A
    queue.add(A)
    queue.add(B)
    assert queue.get() == B
    queue.done(A)
    assert queue.get() == A


def test_the_patient_stand_behind_the_others_and_are_not_left_out() -> None:
    queue = Queue()
    patient = [("team", f"p{number}") for number in range(3)]
    others = [("team", f"o{number}") for number in range(12)]
    for key in patient:
        queue.add(key, patient=True)
    for key in others:
        queue.add(key)
    got = [queue.get() for _ in range(15)]
    assert len(queue) == 0
    assert [key for key in got if key in patient] == patient
    assert [key for key in got if key in others] == others
    assert sum(key in others for key in got[:8]) == 6


@pytest.mark.parametrize("busy", [False, True])
def test_a_patient_key_that_is_added_for_another_reason_is_patient_no_more(busy: bool) -> None:
    queue = Queue()
    if busy:
        queue.add(A)
        queue.get()
    queue.add(A, patient=True)
    for number in range(8):
        queue.add(("team", f"p{number}"), patient=True)
    queue.add(A)
    queue.add(A, patient=True)
    if busy:
        queue.done(A)
    assert A in (queue.get(), queue.get())


def test_an_appointment_is_kept_and_a_later_one_takes_its_place() -> None:
    queue = Queue()
    queue.add_after(A, 3600)
    queue.add_after(A, 0.05)
    queue.add_after(B, 0.02)
    began = time.monotonic()
    assert (queue.get(), queue.get()) == (B, A)
    assert time.monotonic() - began >= 0.05


def test_what_is_looked_at_before_its_appointment_has_none_any_more() -> None:
    queue = Queue()
    queue.add_after(A, 0.05)
    queue.add(A)
    assert queue.get() == A
    queue.done(A)
    queue.add_after(B, 0.1)
    assert queue.get() == B


def test_back_off_doubles_up_to_its_limit_and_ends_with_a_success() -> None:
    queue = Queue(base=1.0, most=8.0)
    delays = [queue.failed(A) for _ in range(6)]
    for delay, expected in zip(delays, [1, 2, 4, 8, 8, 8], strict=True):
        assert 0.75 * expected <= delay <= 1.25 * expected
    assert queue.failed(B) <= 1.25
    queue.succeeded(A)
    assert queue.failed(A) <= 1.25


def test_closing_wakes_every_worker() -> None:
    queue, got = Queue(), []
    workers = [threading.Thread(target=lambda: got.append(queue.get())) for _ in range(3)]
    for worker in workers:
        worker.start()
    queue.close()
    for worker in workers:
        worker.join(10)
    assert got == [None, None, None]


@given(st.lists(st.sampled_from(["add", "add patient", "get", "done", "fail"]), max_size=60))
def test_a_key_that_was_added_last_is_always_given_out_again(actions: list[str]) -> None:
    queue, busy = Queue(base=0.0), False
    for action in actions:
        if action.startswith("add"):
            queue.add(A, patient=action == "add patient")
        elif action == "fail" and busy:
            queue.failed(A)
        elif action == "done" and busy:
            queue.done(A)
            busy = False
        elif action == "get" and not busy and len(queue):
            assert queue.get() == A
            busy = True
    if busy:
        queue.done(A)
    queue.add(A)
    assert queue.get() == A


def test_no_two_workers_have_the_same_key() -> None:
    queue, active, worst, count = Queue(), {A: 0, B: 0}, [0], [0]
    lock = threading.Lock()

    def work() -> None:
        while (key := queue.get()) is not None:
            with lock:
                active[key] += 1
                count[0] += 1
                worst[0] = max(worst[0], active[key])
            time.sleep(0.0005)
            with lock:
                active[key] -= 1
            queue.done(key)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for i in range(200):
        queue.add((A, B)[i % 2])
        time.sleep(0.0002)
    while len(queue):
        time.sleep(0.001)
    queue.close()
    for worker in workers:
        worker.join(10)
    assert worst[0] == 1
    assert count[0] > 10
