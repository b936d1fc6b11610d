"""The published recipe: loss, parameter groups, optimizer, learning rate of an epoch.

Source: the seed's training script, which descends from NVIDIA DeepLearningExamples ResNet50 v1.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from app.config import TrainConfig
from app.schedule import cosine, polynomial

MOMENTUM = 0.875
WEIGHT_DECAY = 3.0517578125e-05  # 2^-15
LABEL_SMOOTHING = 0.1
INITIAL_SCALE = 65536.0
LARS_TRUST = 0.001
"""Trust coefficient of LARS; source: MLPerf Training, image classification reference."""


def training_loss() -> nn.Module:
    """Cross-entropy with label smoothing, mean over the batch."""
    return nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """The learning rate of an epoch (from 0); it changes once an epoch."""
    schedule = polynomial if config.mlperf_mode else cosine
    return schedule(epoch, epochs=config.epochs, base=config.learning_rate, warmup=config.warmup)


def parameter_groups(network: nn.Module, decay_filter: str) -> list[dict[str, Any]]:
    """The parameters with and without weight decay.

    Args:
        network: the network, unwrapped (names without `module.`).
        decay_filter: "seed" exempts the names that contain "bn", as the original does: `downsample.1.*` and `fc.bias`
            ARE decayed. "norm-bias" exempts every one-dimensional parameter.

    Returns:
        Two groups for a torch optimizer: decayed first.
    """
    decayed: list[nn.Parameter] = []
    exempt: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        is_exempt = "bn" in name if decay_filter == "seed" else parameter.ndim == 1
        (exempt if is_exempt else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": exempt, "weight_decay": 0.0}]


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled layer by layer by |w| / |g| (You et al., 2017, arXiv:1708.03888).

    One-dimensional parameters take the plain step without decay, as in MLPerf's reference.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; `closure` is not supported."""
        if closure is not None:
            raise ValueError("Lars takes no closure")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                update = parameter.grad
                if parameter.ndim > 1:
                    decay = group["weight_decay"]
                    weight_norm, gradient_norm = parameter.norm(), update.norm()
                    trust = LARS_TRUST * weight_norm / (gradient_norm + decay * weight_norm + 1e-9)
                    trust = torch.where((weight_norm > 0) & (gradient_norm > 0), trust, torch.ones_like(trust))
                    update = update.add(parameter, alpha=decay).mul_(trust)
                buffer = self.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.mul_(group["momentum"]).add_(update)
                parameter.add_(buffer, alpha=-group["lr"])


def optimizer(config: TrainConfig, network: nn.Module, sgd: type[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """The optimizer of the recipe over the network's parameter groups.

    Args:
        config: which one, and its peak learning rate.
        network: unwrapped.
        sgd: the accelerator's SGD (a vendor's fused one, or torch.optim.SGD).
    """
    groups = parameter_groups(network, config.decay_filter)
    rate = config.learning_rate
    if config.mlperf_mode:
        return Lars(groups, lr=rate, momentum=MOMENTUM)
    if config.optimizer == "adam":
        return _fused_where_possible(torch.optim.Adam, groups, lr=rate)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(groups, lr=rate, momentum=MOMENTUM, foreach=True)
    return _fused_where_possible(sgd, groups, lr=rate, momentum=MOMENTUM)


def _fused_where_possible(kind: Any, groups: list[dict[str, Any]], **options: float) -> torch.optim.Optimizer:
    """With torch's fused step where this version and device have one."""
    if not kind.__module__.startswith("torch.optim"):
        return kind(groups, **options)  # type: ignore[no-any-return]
    try:
        return kind(groups, fused=True, **options)  # type: ignore[no-any-return]
    except (RuntimeError, TypeError):
        return kind(groups, foreach=True, **options)  # type: ignore[no-any-return]
