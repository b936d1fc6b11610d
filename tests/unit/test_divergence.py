"""When a training counts as lost, and what its last line says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.resilience.divergence import diverged, message
from app.resilience.report import Verdict

GOOD = Verdict(
    stop=False, ending=False, bad_files=0, looked_at=60, nonfinite_steps=0, skipped_in_row=0, gradient_scale=1.0,
    step_seconds=0.1, nonfinite_in_row=(0, 0, 0), busy_seconds=(1.0, 1.0, 1.0),
)  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nonfinite_in_row": (9, 9, 9), "nonfinite_steps": 5000},
        {"skipped_in_row": 49, "gradient_scale": 65536.0},
        {"gradient_scale": 1.0, "skipped_in_row": 16},
        {"stop": True, "ending": True, "bad_files": 7},
    ],
)
def test_short_of_the_limits_a_training_goes_on(changes: dict[str, object]) -> None:
    assert diverged(replace(GOOD, **changes), 20) == ""


def test_ten_steps_in_a_row_without_a_finite_loss_are_named_with_the_steps_that_were_looked_at() -> None:
    assert diverged(replace(GOOD, nonfinite_in_row=(20, 20, 20)), 20) == (
        "the loss was not finite in 20 steps in a row, 41 to 60 (looked at every 20, --log_interval)"
    )
    assert diverged(replace(GOOD, nonfinite_in_row=(10, 10, 10)), 1)


def test_a_rank_whose_loss_alone_is_not_finite_is_named() -> None:
    assert diverged(replace(GOOD, nonfinite_in_row=(0, 12, 0)), 20) == (
        "the loss was not finite in 12 steps in a row, 49 to 60 (looked at every 20, --log_interval) on rank 1 of 3"
    )


def test_a_loss_scale_below_one_is_named_with_its_value() -> None:
    assert diverged(replace(GOOD, gradient_scale=0.5, skipped_in_row=17), 20) == (
        "the loss scale fell to 0.5, below 1, by step 60 (looked at every 20, --log_interval)"
    )


def test_fifty_skipped_steps_in_a_row_are_named_with_the_scale_that_caused_them() -> None:
    assert diverged(replace(GOOD, gradient_scale=65536.0, skipped_in_row=50), 25) == (
        "gradients overflowed at a loss scale of 65536, and the weights stayed as they were, "
        "in 50 steps in a row, 11 to 60 (looked at every 25, --log_interval)"
    )


def test_the_last_line_names_the_checkpoint_before_and_the_way_out() -> None:
    assert message("the loss is lost", "/c/1/step-44", 0.256) == (
        "diverged: the loss is lost; the checkpoint before it is kept: /c/1/step-44; to go on from there give a lower "
        "--lr than 0.256 or a longer --warm_up, --resume with that path, and another --checkpoint_dir"
    )
    assert message("the loss is lost", None, 0.256) == (
        "diverged: the loss is lost; no checkpoint was written before: start again with a lower --lr than 0.256 or a "
        "longer --warm_up"
    )
