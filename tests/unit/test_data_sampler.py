import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.sampler import Gang, Purpose, permutation, uniforms, validation_indices, words
from app.resilience.exit_codes import ExitCode, TrainingError

gangs = st.builds(Gang, batch=st.integers(1, 7), world_size=st.integers(1, 6), accumulate=st.integers(1, 3))


def step_positions(gang: Gang, consumed: int, step: int) -> list[int]:
    parts = [gang.positions(consumed, step, m, r) for m in range(gang.accumulate) for r in range(gang.world_size)]
    return [p for part in parts for p in part]


@given(gangs, st.integers(0, 500), st.integers(0, 40))
def test_the_ranks_partition_every_step(gang: Gang, consumed: int, step: int) -> None:
    first = consumed + step * gang.global_batch
    assert step_positions(gang, consumed, step) == list(range(first, first + gang.global_batch))


@given(gangs, st.integers(0, 500))
def test_a_position_goes_to_the_rank_of_its_batch(gang: Gang, consumed: int) -> None:
    for micro in range(gang.accumulate):
        for rank in range(gang.world_size):
            for position in gang.positions(consumed, 0, micro, rank):
                assert (position - consumed) // gang.batch % gang.world_size == rank
                assert (position - consumed) // (gang.batch * gang.world_size) == micro


@settings(max_examples=200)
@given(st.integers(0, 400), st.lists(st.tuples(gangs, st.integers(0, 30)), min_size=1, max_size=6), gangs)
def test_no_position_is_lost_or_seen_twice_whatever_stops_and_goes_on(
    images: int, attempts: list[tuple[Gang, int]], last: Gang
) -> None:
    seen: list[int] = []
    for gang, stopped_after in [*attempts, (last, 10**6)]:
        consumed = len(seen)
        for step in range(min(stopped_after, gang.steps(images, consumed))):
            seen += step_positions(gang, consumed, step)
    assert seen == list(range(len(seen)))
    assert images - last.global_batch < len(seen) <= images


@given(gangs, st.integers(0, 400), st.integers(0, 50))
def test_a_resume_with_the_same_gang_goes_on_as_if_nothing_had_happened(gang: Gang, images: int, stop: int) -> None:
    steps = gang.steps(images)
    stop = min(stop, steps)
    consumed = stop * gang.global_batch
    assert gang.steps(images, consumed) == steps - stop
    for step in range(stop, steps):
        assert gang.positions(consumed, step - stop, 0, gang.world_size - 1) == gang.positions(
            0, step, 0, gang.world_size - 1
        )


@given(st.integers(0, 2**31 - 1), st.integers(0, 10**5), st.integers(1, 300))
def test_an_epoch_is_a_permutation_that_seed_and_epoch_decide(seed: int, epoch: int, images: int) -> None:
    order = permutation(seed, epoch, images)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(images))
    np.testing.assert_array_equal(order, permutation(seed, epoch, images))


def test_seeds_and_epochs_have_different_orders() -> None:
    orders = {tuple(permutation(seed, epoch, 50).tolist()) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_the_order_is_uniform() -> None:
    first = np.bincount([permutation(1234, epoch, 5)[0] for epoch in range(2000)], minlength=5)
    assert (abs(first - 400) < 90).all()  # 5 standard deviations


def test_orders_and_draws_are_the_same_on_every_platform_and_version() -> None:
    # Written down once: a checkpoint goes on in another image, on another machine.
    assert permutation(1234, 3, 10).tolist() == [9, 5, 1, 4, 7, 0, 6, 3, 2, 8]
    assert words(1234, 3, Purpose.AUGMENT, 17, 2).tolist() == [10528078371456939874, 12745929446653068884]
    assert uniforms(1234, 3, Purpose.AUGMENT, 17, 2) == [0.5707282721215632, 0.690958219820411]


@given(st.integers(0, 10**4), st.integers(0, 10**9))
def test_draws_are_numbers_from_0_to_1_of_their_own(epoch: int, position: int) -> None:
    draws = [
        value
        for purpose in (Purpose.AUGMENT, Purpose.REPLACE)
        for at in (position, position + 1)
        for value in uniforms(7, epoch, purpose, at, 41)
    ]
    assert all(0 <= value < 1 for value in draws)
    assert len(set(draws)) == len(draws)


@pytest.mark.parametrize(
    ("gang", "images", "right"),
    [
        (Gang(64, 4, 1), 255, "--batch_size: a global batch of 256 images (64 x 4 devices x 1 accumulated) is more "
         "than the 255 training images; it must be at most 63"),
        (Gang(1, 8, 2), 15, "it must be fewer devices or a smaller --accumulate"),
    ],
)  # fmt: skip
def test_a_training_set_smaller_than_the_global_batch_is_refused(gang: Gang, images: int, right: str) -> None:
    gang.require_a_step(gang.global_batch)
    with pytest.raises(TrainingError) as error:
        gang.require_a_step(images)
    assert error.value.code == ExitCode.BAD_OPTION
    assert right in error.value.message


@given(st.integers(0, 300), st.integers(1, 17))
def test_every_validation_image_belongs_to_exactly_one_rank(images: int, world_size: int) -> None:
    shares = [validation_indices(images, rank, world_size).tolist() for rank in range(world_size)]
    assert sorted(i for share in shares for i in share) == list(range(images))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
