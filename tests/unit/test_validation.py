"""Counts over ranks of different shares, and abandoning."""

import pytest
import torch

from app.data.loader import Batch
from app.ranks import Rank
from app.validation import MOST_CLASSES, most_confused, validate


def batches(sizes: list[int], right: int) -> list[Batch]:
    """Images whose first pixel is the answer that `predict` gives; the first `right` labels agree with it."""
    total = sum(sizes)
    answers = torch.arange(total) % 7
    labels = answers.clone()
    labels[right:] = (labels[right:] + 6) % 7  # the sixth best answer of `predict`: not even in the top 5
    images = answers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
    return [Batch(i, at) for i, at in zip(images.split(sizes), labels.split(sizes), strict=True)]


def predict(images: torch.Tensor) -> torch.Tensor:
    answers = images[:, 0, 0, 0].long()
    return 1.0 - ((torch.arange(7)[None, :] - answers[:, None]) % 7) / 7


def judge(given: list[Batch], **changes):
    calls = {"abandon": lambda: False, "alive": lambda: None, **changes}
    network = torch.nn.BatchNorm2d(3).train()
    result = validate(network, predict, given, Rank(), **calls)
    assert network.training, "the network goes on training afterwards"
    return result


def test_every_image_counts_once_whatever_the_batches() -> None:
    result = judge(batches([4, 4, 3], right=8))
    assert result is not None
    assert result.images == 11
    assert result.top1 == pytest.approx(8 / 11)
    assert result.top5 == pytest.approx(8 / 11)
    one_batch = judge(batches([11], right=8))
    assert one_batch is not None
    assert result.loss == pytest.approx(one_batch.loss)


def test_the_loss_is_plain_cross_entropy() -> None:
    result = judge(batches([2], right=2))
    assert result is not None
    given = batches([2], right=2)[0]
    assert result.loss == pytest.approx(torch.nn.functional.cross_entropy(predict(given.images), given.labels).item())


def test_an_abandoned_validation_has_no_result_and_asks_no_further_image() -> None:
    seen: list[int] = []
    assert judge(batches([2, 2, 2], right=6), abandon=lambda: True, alive=lambda: seen.append(1)) is None
    assert len(seen) == 1


def test_what_is_taken_for_what_is_counted_over_all_batches() -> None:
    # Classes 0 to 6 in turn; of the wrong labels each stands for the answer one above it.
    result = judge(batches([5, 5, 5, 6], right=14), classes=7)
    assert result is not None
    assert sum(count for _, _, count, _ in result.confused) == 7
    assert {(label, guess) for label, guess, _, _ in result.confused} == {((n + 6) % 7, n) for n in range(7)}
    assert {images for _, _, _, images in result.confused} == {3}


def test_the_most_confused_pairs_come_first_and_right_answers_are_none() -> None:
    pairs = torch.tensor([[9, 0, 2], [5, 4, 0], [1, 0, 8]], dtype=torch.float64)
    assert most_confused(pairs) == ((1, 0, 5, 9), (0, 2, 2, 11), (2, 0, 1, 9))
    assert most_confused(torch.eye(4)) == ()


def test_with_very_many_classes_pairs_are_not_counted() -> None:
    result = judge(batches([2], right=1), classes=MOST_CLASSES + 1)
    assert result is not None
    assert result.confused == ()


def test_the_heart_beats_at_every_batch() -> None:
    seen: list[int] = []
    judge(batches([1, 1, 1], right=3), alive=lambda: seen.append(1))
    assert len(seen) == 3
