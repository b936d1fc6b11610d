"""One optimizer step: forward, backward, the exchange of gradients, the update. No line here waits for the device."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from app import recipe
from app.accelerators.base import Accelerator
from app.config import TrainConfig
from app.data.decode import MEAN, STD
from app.data.loader import Batch
from app.ema import Ema
from app.interval import Interval
from app.model import AVERAGE, NETWORK

DISCARDED_PASSES = 2
"""DDP orders its buckets anew after the first backward pass: only from then on is a resumed run bitwise equal."""


class Stepper:
    """The network with all that changes it: loss, optimizer, loss scale, precision, DDP.

    Args:
        config: the run.
        network: on the CPU, freshly built; moved to the device.
        accelerator, device: where it computes.
        peers: whether there is a process group to exchange gradients with.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: torch.nn.Module,
        accelerator: Accelerator,
        device: torch.device,
        *,
        peers: bool,
    ) -> None:
        self.config, self.network, self.device, self._accelerator, self._peers = (
            config, network, device, accelerator, peers
        )  # fmt: skip
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        scaled = config.grad_scale or config.loss_scale > 0
        precision = accelerator.autocast_type(autocast=config.autocast, scaled=scaled)
        self.precision = precision
        self.optimizer = recipe.optimizer(config, network, accelerator.sgd())
        # A loss scale is for fp16 alone: bf16 and fp32 have the exponents that gradients need.
        self.scaler = torch.amp.GradScaler(
            device.type, init_scale=config.loss_scale or recipe.INITIAL_SCALE,
            enabled=scaled and precision == torch.float16,
        )  # fmt: skip
        self.ema = Ema(network, config.ema) if config.ema else None
        self.interval = Interval(device)
        self.optimizer.register_step_post_hook(lambda optimizer, *_: self.interval.updated(optimizer))
        # The first layer's gradient is the last one computed; after it a rank only waits for its peers.
        self._computed = accelerator.mark()
        next(network.parameters()).register_post_accumulate_grad_hook(self._note_computed)  # type: ignore[no-untyped-call]
        self._loss = recipe.training_loss()
        self._mean = torch.tensor(MEAN, device=device).mul(255).view(1, 3, 1, 1)
        self._std = torch.tensor(STD, device=device).mul(255).view(1, 3, 1, 1)

    def warm_up(self, say: Callable[[str], None]) -> None:
        """Wraps the network, and runs the discarded passes (see DISCARDED_PASSES), which also compile kernels.

        The network's buffers change and its gradients are dropped: load the state that is to be trained afterwards.
        """
        size = self.config.size
        images = torch.zeros(self.config.batch_size, 3, size, size, dtype=torch.uint8)
        labels = torch.zeros(self.config.batch_size, dtype=torch.int64)
        for number in range(DISCARDED_PASSES):
            try:
                if number == 0:
                    self._module = self._wrap(compiled=self.config.compile)
                self._backward(images, labels)
            except RuntimeError as error:
                if not self.config.compile or self._accelerator.failed(error):
                    raise
                say(f"train: --compile True does not work here ({str(error).splitlines()[0]}): training without it")
                self._module = self._wrap(compiled=False)
                self._backward(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.interval = Interval(self.device)

    def _wrap(self, *, compiled: bool) -> torch.nn.Module:
        module = self.network
        if compiled:
            module = torch.compile(self.network, backend=self._accelerator.compiler)  # type: ignore[assignment]
        if not self._peers:
            return module
        ids = None if self.device.type == "cpu" else [self.device.index]
        # BatchNorm statistics stay local, as in the original: rank 0's are broadcast once before each validation.
        newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        local_buffers: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True, **local_buffers)

    @property
    def lacks_loss_scale(self) -> bool:
        """Whether it computes in fp16, and nothing keeps small gradients from becoming zero."""
        return self.precision == torch.float16 and not self.scaler.is_enabled()

    def set_learning_rate(self, rate: float) -> None:
        """Sets the rate of every parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def run(self, batches: Iterator[Batch]) -> float:
        """One optimizer step over `accumulate` batches of the loader; returns the seconds that it waited for data."""
        waited, losses = 0.0, []
        for micro in range(self.config.accumulate):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            if micro < self.config.accumulate - 1 and isinstance(self._module, DistributedDataParallel):
                with self._module.no_sync():
                    losses.append(self._backward(batch.images, batch.labels))
            else:
                losses.append(self._backward(batch.images, batch.labels))
        self.interval.count(torch.stack(losses).mean())
        self.scaler.step(self.optimizer)
        self.scaler.update(self.config.loss_scale or None)
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema:
            self.ema.update()
        return waited

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 N x 3 x S x S from the loader -> normalised float32 on the device, channels_last."""
        moved = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return moved.float().sub_(self._mean).div_(self._std)

    @property
    def scale(self) -> float:
        """The loss scale, 1 where there is none; reading it waits for the device."""
        return float(self.scaler.get_scale()) if self.scaler.is_enabled() else 1.0

    @property
    def result(self) -> torch.nn.Module:
        """The unwrapped network that is validated and exported: the moving average, where there is one."""
        return self.ema.network if self.ema else self.network

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of uint8 images by `result`, in the training's precision."""
        with self._autocast():
            logits: torch.Tensor = self.result(self.prepare(images))
        return logits

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)

    def _backward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        started = self._accelerator.mark()
        with self._autocast():
            logits = self._module(self.prepare(images))
            loss: torch.Tensor = self._loss(logits, labels.to(self.device, non_blocking=True))
        self.scaler.scale(loss / self.config.accumulate).backward()  # type: ignore[no-untyped-call]
        self.interval.busy(started, self._computed)
        return loss.detach()

    def _note_computed(self, _: torch.Tensor) -> None:
        self._computed = self._accelerator.mark()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The network, and its moving average where there is one, by the names that they have in a checkpoint."""
        averaged = self.ema.network.state_dict() if self.ema else {}
        return {
            **{f"{NETWORK}{name}": tensor for name, tensor in self.network.state_dict().items()},
            **{f"{AVERAGE}{name}": tensor for name, tensor in averaged.items()},
        }

    def load_tensors(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The reverse of `tensors`. A moving average that is not among them begins anew at the network."""
        self.network.load_state_dict(_named(NETWORK, tensors))
        if self.ema:
            self.ema.updates = 0
            self.ema.network.load_state_dict(_named(AVERAGE, tensors) or self.network.state_dict())

    def load_optimizer(self, state: Mapping[int, dict[str, Any]]) -> None:
        """What an optimizer kept for each parameter, by its number; rates and decays stay this run's."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        # A fused step takes it for granted that all tensors of a parameter lie in memory alike.
        laid_out = {
            number: {
                name: torch.empty_like(parameters[number]).copy_(value) if name != "step" else value
                for name, value in kept.items()
            }
            for number, kept in state.items()
        }
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": laid_out})

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the tensors."""
        updates = self.ema.updates if self.ema else 0
        return {
            "optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict(), "ema_updates": updates
        }  # fmt: skip

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The reverse of `state`; call it after `load_tensors`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema:
            self.ema.updates = state["ema_updates"]


def _named(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
