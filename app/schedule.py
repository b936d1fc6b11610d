"""The learning rate as a function of the epoch or the step, and its warm-up. Plain arithmetic, no torch.

Source: the seed's training script (ModelZoo ResNet), which sets the rate once an epoch, and with `--mlperf_mode` at
every step.
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


def polynomial(step: int, *, steps: int, base: float, warmup: int, end: float = 1e-4) -> float:
    """Learning rate of `--mlperf_mode`: linear warm-up to `base`, then decay with power 2 towards `end`.

    Source: the seed's script, after MLPerf Training's reference (poly_power 2, end_learning_rate 1e-4).

    Args:
        step: of the whole run, from 1.
        steps: of the whole run.
        base: the peak.
        warmup: steps that the warm-up takes.
        end: the rate one step after the last one.
    """
    if step <= warmup:
        return base * step / warmup
    left = 1 - (step - warmup) / (steps - warmup + 1)
    return end + (base - end) * left**2
