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
LARS_TRUST, LARS_MOMENTUM, LARS_WEIGHT_DECAY = 0.001, 0.9, 5e-5
"""Of `--mlperf_mode`, as in the seed's script; the trust coefficient is that of the paper."""
RMSPROP_ALPHA, RMSPROP_EPS = 0.9, 1e-3


def training_loss() -> nn.Module:
    """Cross-entropy with label smoothing, mean over the batch."""
    return nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)


def learning_rate(config: TrainConfig, epoch: int, iteration: int, steps: int) -> float:
    """The learning rate of a step: it changes once an epoch, with `--mlperf_mode` at every step.

    Args:
        config: of the run.
        epoch: from 0.
        iteration: step of the epoch, from 0.
        steps: steps of an epoch.
    """
    base = config.learning_rate
    if not config.mlperf_mode:
        return cosine(epoch, epochs=config.epochs, base=base, warmup=config.warmup)
    total, warmup = config.epochs * steps, config.warmup * steps
    return polynomial(epoch * steps + iteration + 1, steps=total, base=base, warmup=warmup)


def decay_filter(config: TrainConfig) -> str:
    """The filter in force: `--mlperf_mode` has its own."""
    return "norm-bias" if config.mlperf_mode else config.decay_filter


def split_names(network: nn.Module, decay_filter: str) -> tuple[list[str], list[str]]:
    """The names of the parameters with and without weight decay, each in the network's order.

    Args:
        network: the network, unwrapped (names without `module.`).
        decay_filter: "seed" exempts the names that contain "bn", as the original does: `downsample.1.*` and `fc.bias`
            ARE decayed. "norm-bias" exempts every one-dimensional parameter.
    """
    decayed: list[str] = []
    exempt: list[str] = []
    for name, parameter in network.named_parameters():
        is_exempt = "bn" in name if decay_filter == "seed" else parameter.ndim == 1
        (exempt if is_exempt else decayed).append(name)
    return decayed, exempt


def parameter_groups(network: nn.Module, decay_filter: str, weight_decay: float = WEIGHT_DECAY) -> list[dict[str, Any]]:
    """Two groups for a torch optimizer, in the order of `split_names`: the decayed parameters, then the others."""
    parameters = dict(network.named_parameters())
    decays = (weight_decay, 0.0)
    return [
        {"params": [parameters[name] for name in names], "weight_decay": decay}
        for names, decay in zip(split_names(network, decay_filter), decays, strict=True)
    ]


class Lars(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled layer by layer (LARS: You et al., 2017, arXiv:1708.03888).

    With weight w, gradient g, decay d and trust = LARS_TRUST |w| / (|g| + d |w|), as the seed's script has it:
    momentum = m * momentum + g + d w; w -= rate * trust * momentum. The paper's own trust ratio is inside the momentum.
    One-dimensional parameters (norms, biases) take SGD's step without decay. No step waits for the device.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step; `closure` is not supported."""
        if closure is not None:
            raise ValueError("Lars takes no closure")
        for group in self.param_groups:
            rate, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient, trust = parameter.grad, None
                if parameter.ndim > 1:
                    weight_norm, gradient_norm = parameter.norm(), gradient.norm()
                    trust = LARS_TRUST * weight_norm / (gradient_norm + decay * weight_norm)
                    trust = torch.where((weight_norm > 0) & (gradient_norm > 0), trust, 1.0)
                    gradient = gradient.add(parameter, alpha=decay)
                state = self.state[parameter]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer = state["momentum_buffer"].mul_(momentum).add_(gradient)
                parameter.add_(buffer if trust is None else buffer * trust, alpha=-rate)


def optimizer(config: TrainConfig, network: nn.Module, sgd: type[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """The optimizer of the recipe over the network's parameter groups.

    Args:
        config: which one, and its peak learning rate.
        network: unwrapped.
        sgd: the accelerator's SGD (a vendor's fused one, or torch.optim.SGD).
    """
    rate = config.learning_rate
    groups = parameter_groups(network, decay_filter(config), LARS_WEIGHT_DECAY if config.mlperf_mode else WEIGHT_DECAY)
    if config.mlperf_mode:
        return Lars(groups, lr=rate, momentum=LARS_MOMENTUM)
    if config.optimizer == "adam":
        return _fused_where_possible(torch.optim.Adam, groups, lr=rate)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            groups, lr=rate, momentum=MOMENTUM, alpha=RMSPROP_ALPHA, eps=RMSPROP_EPS, foreach=True
        )
    return _fused_where_possible(sgd, groups, lr=rate, momentum=MOMENTUM)


def _fused_where_possible(kind: Any, groups: list[dict[str, Any]], **options: float) -> torch.optim.Optimizer:
    """With torch's fused step where this version and device have one; a vendor's own optimizer as it is."""
    if not kind.__module__.startswith("torch.optim"):
        return kind(groups, **options)  # type: ignore[no-any-return]
    device = next(parameter.device for group in groups for parameter in group["params"])
    way = "fused" if _has_fused_step(kind, device, options) else "foreach"
    return kind(groups, **{way: True}, **options)  # type: ignore[no-any-return]


def _has_fused_step(kind: Any, device: torch.device, options: dict[str, float]) -> bool:
    """Asked by taking a step: for a device that torch does not know itself, nothing else says that it has no kernel."""
    parameter = torch.zeros(1, device=device, requires_grad=True)
    parameter.grad = torch.zeros_like(parameter)
    try:
        kind([parameter], fused=True, **options).step()
    except (RuntimeError, TypeError):
        return False
    return True
