"""What ranks tell each other, as numbers whose MAX is what they all know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.resilience.report import Report, pack, unpack

counts = st.integers(0, 2**40)
reports = st.builds(
    Report, stop=st.booleans(), ending=st.booleans(), bad_files=counts, looked_at=counts, nonfinite_steps=counts,
    nonfinite_in_row=counts, skipped_in_row=counts, gradient_scale=st.floats(0, 2.0**100),
    busy_seconds=st.floats(0, 1e9),
)  # fmt: skip


@given(st.lists(st.tuples(reports, st.floats(0, 1e6)), min_size=1, max_size=9))
def test_the_largest_of_each_number_tells_all_ranks_what_each_of_them_said(said: list[tuple[Report, float]]) -> None:
    size = len(said)
    packed = [pack(report, seconds, rank=rank, world_size=size) for rank, (report, seconds) in enumerate(said)]
    verdict = unpack([max(numbers) for numbers in zip(*packed, strict=True)], world_size=size)
    each = [report for report, _ in said]
    assert verdict.busy_seconds == tuple(report.busy_seconds for report in each)
    assert verdict.nonfinite_in_row == tuple(report.nonfinite_in_row for report in each)
    assert verdict.gradient_scale == min(report.gradient_scale for report in each)
    assert verdict.step_seconds == max(seconds for _, seconds in said)
    for name in ("stop", "ending", "bad_files", "looked_at", "nonfinite_steps", "skipped_in_row"):
        assert getattr(verdict, name) == max(getattr(report, name) for report in each), name


def test_what_64_ranks_exchange_is_about_a_kilobyte() -> None:
    assert 8 * len(pack(Report(), 0.0, rank=63, world_size=64)) == 1088
