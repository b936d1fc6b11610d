"""The learning rate of every epoch, and the automatic warm-up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.schedule import auto_warmup_epochs, cosine, polynomial


@pytest.mark.parametrize(("global_batch", "epochs"), [(64, 0), (255, 0), (256, 2), (511, 2), (1024, 8), (2048, 16)])
def test_warm_up_is_two_epochs_for_every_256_images(global_batch: int, epochs: int) -> None:
    assert auto_warmup_epochs(global_batch) == epochs


def test_warm_up_rises_in_equal_steps_to_the_base_rate() -> None:
    rates = [cosine(e, epochs=50, base=1.024, warmup=8) for e in range(8)]
    assert rates == pytest.approx([1.024 * (e + 1) / 8 for e in range(8)])


def test_the_rate_after_the_warm_up_is_half_a_cosine_that_does_not_reach_zero() -> None:
    rates = [cosine(e, epochs=50, base=1.0, warmup=8) for e in range(8, 50)]
    assert rates[0] == 1.0
    assert rates[21] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.5 * (1 + math.cos(math.pi * 41 / 42)))
    assert rates[-1] > 0


def test_a_warm_up_longer_than_the_run_is_warm_up_only() -> None:
    assert [cosine(e, epochs=3, base=4.0, warmup=4) for e in range(3)] == [1.0, 2.0, 3.0]


@given(
    length=st.integers(1, 200),
    warmup=st.integers(0, 200),
    base=st.floats(1e-6, 100),
    schedule=st.sampled_from(["cosine", "polynomial"]),
)
def test_every_rate_is_above_zero_and_at_most_the_base(length, warmup, base, schedule) -> None:
    if schedule == "cosine":
        rates = [cosine(epoch, epochs=length, base=base, warmup=warmup) for epoch in range(length)]
    else:
        rates = [polynomial(step, steps=length, base=base, warmup=warmup) for step in range(1, length + 1)]
    assert all(0 < rate <= max(base, 1e-4) * (1 + 1e-12) for rate in rates)
    peak = min(warmup, length)
    assert rates[:peak] == sorted(rates[:peak])


def test_polynomial_decay_is_mlperfs_formula_at_every_step() -> None:
    # 12 epochs of 5 steps, 2 of them warm-up: from step 1 to 60, and 1e-4 would be step 61's.
    rates = [polynomial(step, steps=60, base=10.0, warmup=10) for step in range(1, 61)]
    assert rates[:10] == pytest.approx([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    assert rates[10:] == pytest.approx([1e-4 + (10.0 - 1e-4) * (1 - done / 51) ** 2 for done in range(1, 51)])
    assert rates[-1] == pytest.approx(1e-4 + (10.0 - 1e-4) / 51**2)
