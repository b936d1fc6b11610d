"""The learning rate as a function of the epoch, and its warm-up. Plain arithmetic, no torch.

Source: the seed's training script (ModelZoo ResNet), which sets the rate once an epoch.
"""

from __future__ import annotations

import math


def auto_warmup_epochs(global_batch: int) -> int:
    """Warm-up of the recipe: none below a global batch of 256 images, else 2 epochs for every 256."""
    return 0 if global_batch < 256 else 2 * (global_batch // 256)


def cosine(epoch: int, *, epochs: int, base: float, warmup: int) -> float:
    """Learning rate of epoch `epoch` (from 0): linear warm-up to `base`, then half a cosine.

    The last epoch's rate is above 0, as in the seed. With warmup >= epochs there is warm-up only.
    """
    if epoch < warmup:
        return base * (epoch + 1) / warmup
    return 0.5 * base * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))


def polynomial(epoch: int, *, epochs: int, base: float, warmup: int, end: float = 1e-4) -> float:
    """Learning rate of `--mlperf_mode`: linear warm-up, then decay with power 2 from `base` to `end`.

    Source: MLPerf Training, image classification reference (LARS, poly_power 2, end_learning_rate 1e-4).
    """
    if epoch < warmup:
        return base * (epoch + 1) / warmup
    left = 1 - (epoch - warmup) / max(1, epochs - warmup)
    return end + (base - end) * left**2
