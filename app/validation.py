"""Top-1, top-5 and loss over the validation images, each image exactly once, summed over the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

from app.data.loader import Batch
from app.ranks import Rank


@dataclass(frozen=True)
class Validation:
    """Result of one validation.

    Attributes:
        images: how many were judged, over all ranks.
        top1, top5: ratios.
        loss: mean plain cross-entropy.
    """

    images: int
    top1: float
    top5: float
    loss: float


@torch.no_grad()
def validate(
    network: nn.Module,
    predict: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[Batch],
    rank: Rank,
    *,
    abandon: Callable[[], bool],
    alive: Callable[[], None],
) -> Validation | None:
    """Validates the unwrapped network; every rank calls this with its own share of the images.

    Args:
        network: put into evaluation mode meanwhile.
        predict: uint8 images N x 3 x S x S -> logits N x classes, on the network's device.
        batches: this rank's share of the validation images; shares may differ in size.
        rank: whose share this is.
        abandon: asked after each batch; where any rank's says yes, every rank returns None.
        alive: called after each batch, for the heartbeat.
    """
    network.eval()
    totals = torch.zeros(5, dtype=torch.float64)  # top-1, top-5, images, loss, ranks that abandon
    for batch in batches:
        logits = predict(batch.images).float()
        labels = batch.labels.to(logits.device)
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
        counts = torch.stack([best[:, 0].sum(), best.sum(), loss.double()]).cpu()
        totals[0] += counts[0]
        totals[1] += counts[1]
        totals[2] += len(labels)
        totals[3] += counts[2]
        alive()
        if abandon():
            totals[4] = 1
            break
    network.train()
    # Counts are whole numbers far below 2^53, so their float64 sums are exact.
    top1, top5, images, loss_sum, abandoned = rank.total(totals).tolist()
    if abandoned or not images:
        return None
    return Validation(int(images), top1 / images, top5 / images, loss_sum / images)
