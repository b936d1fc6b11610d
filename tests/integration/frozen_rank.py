"""One rank of a training whose BatchNorm layers are frozen: app.train over networks without batch statistics."""

from __future__ import annotations

import sys
from typing import Any

import torch

from app import model, train

build = model.build


def frozen(network: torch.nn.Module) -> torch.nn.Module:
    """The network with BatchNorm layers that stay in evaluation mode, whatever the rest does."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
            module.train = lambda mode=True, module=module: module  # type: ignore[method-assign,assignment,misc]
    return network


def build_frozen(*arguments: Any, **options: Any) -> torch.nn.Module:
    """As `model.build`."""
    return frozen(build(*arguments, **options))


if __name__ == "__main__":
    model.build = build_frozen
    sys.exit(train.main(sys.argv[1:]))
