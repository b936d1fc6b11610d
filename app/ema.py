"""The moving average of a network's weights (`--ema`)."""

from __future__ import annotations

import copy

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """An exponential moving average of a network, kept on its device: parameters and BatchNorm statistics alike.

    The arithmetic is torch's. Its AveragedModel is not used: it copies its counter to the device at every update, and
    waits for it there.

    Args:
        network: what is averaged; it must keep its tensors (`load_state_dict` does).
        decay: what remains of the average at an update, 0 to 1.

    Attributes:
        network: the average, a network of its own.
        updates: done so far.
    """

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self.updates = 0
        self._decay = decay
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        self._averages, self._sources = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the network as it is now, after an optimizer step.

        The first updates count for more, so that the average does not remember the initial weights: the decay is at
        most (1 + n) / (10 + n) after n updates (TensorFlow's ExponentialMovingAverage with num_updates).
        """
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        average_all = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average_all(self._averages, self._sources, 0)
        for average, source in self._counters:
            average.copy_(source)
        self.updates += 1
