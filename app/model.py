"""The networks: torchvision's ResNet v1.5 (stride in the 3x3 convolution), initialised as the recipe says."""

from __future__ import annotations

import torch
import torchvision

NETWORK, AVERAGE = "model.", "ema."
"""What the names of a checkpoint's tensors begin with: the trained network's, and its moving average's (`--ema`)."""


def build(name: str, classes: int, seed: int) -> torch.nn.Module:
    """A freshly initialised network on the CPU.

    Weights come from `seed` alone, drawn on the CPU whatever the device, so that every rank and every kind of device
    starts from the same numbers: kaiming fan_out convolutions, BatchNorm gamma 1 (no zero-init), default fc.

    Args:
        name: one of `app.config.MODELS`.
        classes: outputs of the last layer.
        seed: seed of the initialisation; the caller's random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: torch.nn.Module = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    return network
