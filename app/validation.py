"""Top-1, top-5 and loss over the validation images, each image exactly once, summed over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from app.data.loader import Batch
from app.ranks import Rank

MOST_CLASSES = 1000
"""With more, pairs of classes are not counted: the counts grow with the square, to 8 MB at this number."""
MOST_CONFUSED = 20


@dataclass(frozen=True)
class Validation:
    """Result of one validation.

    Attributes:
        images: how many were judged, over all ranks.
        top1, top5: ratios.
        loss: mean plain cross-entropy.
        confused: (class, the other one that it was taken for, how often, images of the class), at most MOST_CONFUSED,
            the most frequent first.
    """

    images: int
    top1: float
    top5: float
    loss: float
    confused: tuple[tuple[int, int, int, int], ...] = ()


@torch.no_grad()
def validate(
    network: nn.Module,
    predict: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Batch],
    rank: Rank,
    *,
    abandon: Callable[[], bool],
    alive: Callable[[], None],
    classes: int = 0,
) -> Validation | None:
    """Validates the unwrapped network; every rank calls this with its own share of the images.

    Args:
        network: put into evaluation mode meanwhile.
        predict: uint8 images N x 3 x S x S -> logits N x classes, on the network's device.
        batches: this rank's share of the validation images; shares may differ in size.
        rank: whose share this is.
        abandon: asked after each batch; where any rank's says yes, every rank returns None.
        alive: called after each batch, for the heartbeat.
        classes: how many there are, to count which are taken for which; 0: nobody asks.
    """
    network.eval()
    counted = classes if classes <= MOST_CLASSES else 0
    everything = torch.zeros(5 + counted**2, dtype=torch.float64)
    totals, pairs = everything[:5], everything[5:]  # top-1, top-5, images, loss, ranks that abandon
    for batch in batches:
        logits = predict(batch.images).float()
        labels = batch.labels.to(logits.device)
        guesses = logits.topk(min(5, logits.shape[1]), dim=1).indices
        best = guesses == labels[:, None]
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        counts = torch.stack([best[:, 0].sum(), best.sum(), loss.double()]).cpu()
        totals[0] += counts[0]
        totals[1] += counts[1]
        totals[2] += len(labels)
        totals[3] += counts[2]
        if counted:
            pair = (labels * counted + guesses[:, 0]).cpu()
            pairs.index_add_(0, pair, torch.ones(len(pair), dtype=pairs.dtype))
        alive()
        if abandon():
            totals[4] = 1
            break
    network.train()
    # Counts are whole numbers far below 2^53, so their float64 sums are exact.
    rank.total(everything)
    top1, top5, images, loss_sum, abandoned = totals.tolist()
    if abandoned or not images:
        return None
    confused = most_confused(pairs.view(counted, counted)) if counted else ()
    return Validation(int(images), top1 / images, top5 / images, loss_sum / images, confused)


def most_confused(pairs: torch.Tensor) -> tuple[tuple[int, int, int, int], ...]:
    """`Validation.confused` of the counts by class and by what the network took it for (classes x classes)."""
    wrong = pairs.clone().fill_diagonal_(0).flatten()
    order = wrong.argsort(descending=True, stable=True)[:MOST_CONFUSED].tolist()
    of_class = pairs.sum(dim=1).long().tolist()
    return tuple(
        (pair // len(pairs), pair % len(pairs), int(wrong[pair]), of_class[pair // len(pairs)])
        for pair in order
        if wrong[pair]
    )
