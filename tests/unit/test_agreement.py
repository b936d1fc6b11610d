from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.resilience.agreement import MAX_INTERVAL, Agreement, next_interval
from app.resilience.report import Report, Verdict


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


seconds = st.floats(0, 1e6, allow_nan=False)


@given(st.integers(1, MAX_INTERVAL), seconds, st.floats(0.01, 60))
def test_the_interval_stays_in_its_bounds_and_grows_slowly(interval: int, step: float, period: float) -> None:
    after = next_interval(interval, step, period)
    assert 1 <= after <= min(MAX_INTERVAL, 2 * interval)
    if step > 0:
        assert after == 1 or after * step <= period


@given(st.floats(1e-6, 1e3), st.floats(0.01, 60))
def test_the_interval_comes_to_about_one_period(step: float, period: float) -> None:
    interval = 1
    for _ in range(10):
        interval = next_interval(interval, step, period)
    assert interval in (1, MAX_INTERVAL) or (interval * step <= period < (interval + 1.001) * step)


def test_an_unknown_step_time_changes_nothing() -> None:
    assert next_interval(7, 0.0, 1.0) == 7


def test_a_single_rank_hears_itself_about_once_a_second() -> None:
    clock = Clock()
    agreement = Agreement(world_size=1, clock=clock)
    at = []
    for step in range(1, 101):
        clock.now += 0.25
        if agreement.at(step, Report) is not None:
            at.append(step)
    assert at[0] == 2
    assert {later - earlier for earlier, later in itertools.pairwise(at[5:])} == {4}


def heard(verdict: Verdict | None) -> tuple[bool, tuple[int, ...], float] | None:
    return verdict and (verdict.stop, verdict.nonfinite_in_row, verdict.step_seconds)


def test_a_stop_is_heard_one_step_after_the_exchange_that_carries_it() -> None:
    clock = Clock()
    agreement = Agreement(world_size=1, clock=clock)
    verdicts = {}
    for step in range(1, 12):
        clock.now += 10.0  # slower than the period: an exchange at every step
        report = Report(stop=step >= 6, nonfinite_in_row=step)
        verdicts[step] = heard(agreement.at(step, lambda report=report: report))
    assert verdicts[1] is None
    assert verdicts[6] == (False, (5,), 10.0)
    assert verdicts[7] == (True, (6,), 10.0)


def test_between_two_exchanges_nothing_is_asked() -> None:
    clock = Clock()
    agreement = Agreement(world_size=1, clock=clock)
    asked = []

    def report() -> Report:
        asked.append(step)
        return Report()

    for step in range(1, 101):
        clock.now += 0.125
        agreement.at(step, report)
    assert {later - earlier for earlier, later in itertools.pairwise(asked[6:])} == {8}


def test_a_measurement_does_not_include_a_phase_without_steps() -> None:
    clock = Clock()
    agreement = Agreement(world_size=1, clock=clock)
    step_seconds = []
    for step in range(1, 40):
        clock.now += 0.5
        verdict = agreement.at(step, Report)
        if verdict and verdict.step_seconds:
            step_seconds.append(verdict.step_seconds)
        if step % 10 == 0:
            agreement.now(Report())
            clock.now += 1000.0  # validation
            agreement.now(Report())
    assert set(step_seconds) == {0.5}


def test_now_says_how_things_stand_by_now_whatever_was_under_way() -> None:
    agreement = Agreement(world_size=1)
    assert agreement.at(1, lambda: Report(nonfinite_in_row=3)) is None
    assert heard(agreement.now(Report(stop=True))) == (True, (0,), 0.0)
    assert heard(agreement.now(Report())) == (False, (0,), 0.0)
