"""Counting bad training files over a gang."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.bad_files import BadFiles, tolerated


@pytest.mark.parametrize(
    ("images", "share", "limit"),
    [
        (1, 0.001, 1), (1437, 0.001, 1), (1999, 0.001, 1), (2000, 0.001, 2), (1_281_167, 0.001, 1281),
        (100, 0.07, 7), (40, 0.0, 0), (40, 1.0, 40),
    ],
)  # fmt: skip
def test_a_share_of_the_files_may_be_bad_and_one_always_unless_it_is_zero(
    images: int, share: float, limit: int
) -> None:
    assert tolerated(images, share) == limit


def name(index: int) -> str:
    return f"train/{index}.jpeg"


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30), st.booleans()), max_size=60))
def test_ranks_count_each_file_once_whoever_meets_it_and_however_often(meetings: list[tuple[int, int, bool]]) -> None:
    ranks = [BadFiles(31, 0.1) for _ in range(4)]
    for rank, index, exchange in meetings:
        ranks[rank].met(index)
        if exchange:
            told = [each.untold for each in ranks]
            for each in ranks:
                each.learn(told)
            assert len({len(each) for each in ranks}) == 1
    told = [each.untold for each in ranks]
    for each in ranks:
        each.learn(told)
    distinct = {index for _, index, _ in meetings}
    assert {len(each) for each in ranks} == {len(distinct)}
    assert {each.too_many(name) for each in ranks} == {ranks[0].too_many(name)}
    assert bool(ranks[0].too_many(name)) == (len(distinct) > 3)
    assert all(each.untold == [] for each in ranks)


def test_a_file_is_news_only_to_who_was_not_told_of_it() -> None:
    files = BadFiles(100, 0.1)
    files.learn([[4], []])
    assert [files.met(4), files.met(5), files.met(5)] == [False, True, False]
    assert files.untold == [5]


def test_too_many_are_named_with_count_limit_and_the_first_of_them() -> None:
    files = BadFiles(4000, 0.001)
    for index in (9, 3, 7, 1):
        files.met(index)
    assert files.too_many(name) == ""
    files.met(2)
    assert files.too_many(name) == (
        "--max_bad_images 0.001: 5 of 4000 training images can't be decoded, and at most 4 may: train/1.jpeg, "
        "train/2.jpeg, train/3.jpeg, train/7.jpeg, train/9.jpeg; replace or remove them, or allow more"
    )
    files.met(30)
    files.met(31)
    assert "train/9.jpeg and 2 more; replace" in files.too_many(name)


def test_the_count_goes_on_over_a_resume_unless_the_data_set_was_mended() -> None:
    before = BadFiles(100, 0.1)
    before.met(8)
    before.met(5)
    after = BadFiles(100, 0.1)
    after.load(before.state())
    assert (len(after), after.met(8), after.met(6)) == (2, False, True)
    mended = BadFiles(98, 0.1)
    mended.load(before.state())
    assert len(mended) == 0
