"""One optimizer step: forward, backward, the exchange of gradients, the update. No line here waits for the device."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from app import recipe
from app.accelerators.base import Accelerator
from app.config import TrainConfig
from app.data.decode import MEAN, STD
from app.data.loader import Batch

DISCARDED_PASSES = 2
"""DDP orders its buckets anew after the first backward pass: only from then on is a resumed run bitwise equal."""


class Interval:
    """What is summed up on the device between two log lines, so that the device is read once."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(3, device=device)  # loss of finite steps, non-finite steps, non-finite in a row
        self._last = torch.zeros((), device=device)
        self._steps = 0
        self._marks: list[tuple[Any, Any]] = []
        self.nonfinite_in_row = 0

    def busy(self, started: Any, ended: Any) -> None:
        """Adds the device's marks around some computing."""
        self._marks.append((started, ended))

    def count(self, loss: torch.Tensor) -> None:
        """Adds one optimizer step by its loss, the mean over its accumulated batches."""
        finite = torch.isfinite(loss)
        self._sums[0] += torch.where(finite, loss, 0.0)
        self._sums[1] += ~finite
        self._sums[2].add_(1).mul_(finite.logical_not())
        self._last = loss
        self._steps += 1

    def read(self, accelerator: Accelerator) -> dict[str, Any]:
        """Since the last call: mean `loss` (NaN where none was finite), `last_loss`, `nonfinite`, `busy` seconds.

        This is the one place of the loop that waits for the device.
        """
        loss, nonfinite, in_row, last = torch.cat([self._sums, self._last.reshape(1).float()]).tolist()
        finite = self._steps - int(nonfinite)
        self.nonfinite_in_row = int(in_row)
        busy = sum(accelerator.seconds_between(start, end) for start, end in self._marks)
        self._sums[:2] = 0
        self._steps = 0
        self._marks.clear()
        mean = loss / finite if finite else float("nan")
        return {"loss": mean, "last_loss": last, "nonfinite": int(nonfinite), "busy": busy}


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
        self.interval = Interval(device)
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
        self._module = self._wrap(compiled=self.config.compile)
        size = self.config.size
        images = torch.zeros(self.config.batch_size, 3, size, size, dtype=torch.uint8)
        labels = torch.zeros(self.config.batch_size, dtype=torch.int64)
        for _ in range(DISCARDED_PASSES):
            try:
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
        module: torch.nn.Module = torch.compile(self.network) if compiled else self.network  # type: ignore[assignment]
        if not self._peers:
            return module
        ids = None if self.device.type == "cpu" else [self.device.index]
        # BatchNorm statistics stay local, as in the original: rank 0's are broadcast once before each validation.
        newer = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        local_buffers: dict[str, Any] = {"forward_sync_buffers" if newer else "broadcast_buffers": False}
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True, **local_buffers)

    def set_learning_rate(self, rate: float) -> None:
        """Sets the rate of every parameter group."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def run(self, batches: Iterator[Batch]) -> tuple[float, int]:
        """One optimizer step over `accumulate` batches of the loader.

        Returns:
            Seconds that it waited for data, and how many images had to be replaced.
        """
        waited, bad, losses = 0.0, 0, []
        for micro in range(self.config.accumulate):
            asked = time.perf_counter()
            batch = next(batches)
            waited += time.perf_counter() - asked
            bad += batch.bad
            if micro < self.config.accumulate - 1 and isinstance(self._module, DistributedDataParallel):
                with self._module.no_sync():
                    losses.append(self._backward(batch.images, batch.labels))
            else:
                losses.append(self._backward(batch.images, batch.labels))
        self.interval.count(torch.stack(losses).mean())
        self.scaler.step(self.optimizer)
        self.scaler.update(self.config.loss_scale or None)
        self.optimizer.zero_grad(set_to_none=True)
        return waited, bad

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 N x 3 x S x S from the loader -> normalised float32 on the device, channels_last."""
        moved = images.to(self.device, non_blocking=True, memory_format=torch.channels_last)
        return moved.float().sub_(self._mean).div_(self._std)

    def predict(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of uint8 images by the unwrapped network, in the training's precision."""
        with self._autocast():
            logits: torch.Tensor = self.network(self.prepare(images))
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

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold besides the network."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        """The reverse of `state`."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
