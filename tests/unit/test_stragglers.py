"""Which rank is named a straggler, and when."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.resilience.stragglers import BEGINS, Change, Stragglers, slowdowns


def fed(rule: Stragglers, *readings: list[float]) -> list[tuple[int, Change]]:
    """The changes by reading, of ranks that computed so long in each of them."""
    total = [0.0] * len(readings[0])
    news = []
    for i, reading in enumerate(readings):
        total = [before + more for before, more in zip(total, reading, strict=True)]
        news += [(i, change) for change in rule.take(total)]
    return news


@pytest.mark.parametrize(
    ("busy", "slow"),
    [
        ([1.0, 1.5], [1]),
        ([1.0, 1.6, 1.6], [1, 2]),
        ([1.0, 1.0, 1.3], [2]),
        ([1.0, 1.1, 1.2, 1.15], []),
        ([1.0] * 62 + [1.4, 9.0], [62, 63]),
        ([3.0], []),
        ([0.0, 3.0], []),
    ],
)
def test_who_computes_much_longer_than_the_others_is_slow(busy: list[float], slow: list[int]) -> None:
    assert [rank for rank, ratio in enumerate(slowdowns(busy)) if ratio >= BEGINS] == slow


@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=70))
def test_never_is_everybody_slow_and_the_fastest_never(busy: list[float]) -> None:
    ratios = slowdowns(busy)
    assert ratios[busy.index(min(busy))] <= 1
    assert max(ratios) >= 1


def test_a_straggler_is_named_once_when_it_begins_and_once_when_it_ends() -> None:
    slow, fair = [2.0, 2.0, 3.5], [2.0, 2.0, 2.0]
    news = fed(Stragglers(readings=3), *[fair] * 5, *[slow] * 9, *[fair] * 9, *[slow] * 3)
    assert news == [
        (7, Change(2, 1.75, begins=True)), (16, Change(2, 1.0, begins=False)), (25, Change(2, 1.75, begins=True)),
    ]  # fmt: skip


def test_a_hiccup_is_no_straggler_and_a_good_moment_does_not_end_one() -> None:
    slow, fair, between = [2.0, 2.0, 3.2], [2.0, 2.0, 2.0], [2.0, 2.0, 2.4]
    rule = Stragglers(readings=3)
    assert fed(rule, *[slow, slow, fair] * 4) == []
    rule = Stragglers(readings=3)
    assert [change.begins for _, change in fed(rule, *[slow] * 3, *[fair, fair, between] * 4)] == [True]
    assert rule.named == {2}
    assert rule.worst() == (2, pytest.approx(1.2))


def test_little_busy_time_is_no_reading() -> None:
    rule = Stragglers(readings=1, reading_seconds=2.0)
    shares = [[0.1, 0.5]] * 3 + [[0.1, 0.6]]
    totals = [list(total) for total in zip(*(accumulate(each) for each in zip(*shares, strict=True)), strict=True)]
    assert [bool(rule.take(total)) for total in totals] == [False, False, False, True]
    assert rule.take(totals[-1]) == [], "the same numbers again say nothing new"


def test_the_slowest_of_several_is_the_worst() -> None:
    rule = Stragglers(readings=1)
    fed(rule, [2.0, 2.0, 2.0, 3.0, 5.0])
    assert rule.named == {3, 4}
    assert rule.worst() == (4, 2.5)
    assert Stragglers().worst() is None


def test_one_rank_alone_is_compared_with_nobody() -> None:
    rule = Stragglers(readings=1)
    assert fed(rule, [5.0], [9.0]) == []
    assert math.isnan(rule.ratios[0])
