"""What the training needs of a device family."""

from __future__ import annotations

import warnings
from collections import Counter
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import DataLoader

from app.accelerators import BACKENDS, Device
from app.resilience.exit_codes import ExitCode, TrainingError


class Accelerator:
    """A device family by torch's own conventions: `torch.<type>` has is_available, device_count, set_device …

    A family overrides what it does differently. Nothing here synchronises with the device.
    """

    name = ""
    low_precision: torch.dtype | None = torch.float16
    """What autocast computes in; None: not faster on this machine, so autocast stays off."""
    compiler = "inductor"
    """The backend of torch.compile."""
    device_errors: tuple[str, ...] = ()
    """Parts of a RuntimeError's text that mean that the device itself failed."""

    def load(self) -> None:
        """Makes `torch.<type>` usable.

        Raises:
            TrainingError: 69, framework and driver are not both there, or don't fit each other; 141, they do, but no
                device is there.
        """
        module, why = getattr(torch, self.name, None), ""
        try:
            if module is not None and module.is_available():
                return
            if module is not None:
                module.current_device()  # is_available only says no; using one says why
        except Exception as error:  # noqa: BLE001 - whatever a vendor's framework raises, it is the reason
            why = f" ({first_line(error)})"
        said = f"--device {self.name}: torch {torch.__version__} sees no {self.name} device here{why}"
        if module is not None and self.framework() and not _blames_driver(why):
            raise TrainingError(ExitCode.DEVICE, f"{said}: give this container its devices")
        raise TrainingError(
            ExitCode.FRAMEWORK_MISSING,
            f"{said}; use an image whose framework fits this node's driver, or --device cpu",
        )

    @property
    def _module(self) -> ModuleType:
        module: ModuleType = getattr(torch, self.name)
        return module

    @property
    def backend(self) -> str:
        """Process-group backends: gloo for CPU tensors (the agreement), the device's own for gradients."""
        return f"cpu:gloo,{self.name}:{BACKENDS[self.name]}"

    def count(self) -> int:
        """Devices that this process sees."""
        return int(self._module.device_count())

    def claim(self, local_rank: int) -> torch.device:
        """Makes device `local_rank` this process's own, before any process group is made.

        Raises:
            TrainingError: 141, promised to this pod but not there, or it can't be used; 69, the framework does not
                fit the driver, where only the first use says so.
        """
        if local_rank >= self.count():
            raise TrainingError(
                ExitCode.DEVICE,
                f"local rank {local_rank} needs device {self.name}:{local_rank}, but only {self.count()} are visible",
            )
        try:
            self._module.set_device(local_rank)
        except RuntimeError as error:
            why = f"device {self.name}:{local_rank} can't be used: {first_line(error)}"
            if _blames_driver(why):
                why += "; use an image whose framework fits this node's driver"
                raise TrainingError(ExitCode.FRAMEWORK_MISSING, f"--device {self.name}: {why}") from None
            raise TrainingError(ExitCode.DEVICE, why) from None
        return torch.device(self.name, local_rank)

    def pinning(self) -> dict[str, Any]:
        """What makes a DataLoader pin its batches, so that the copy to the device runs beside the host's work.

        Empty where memory can't be pinned; the copy is then an ordinary one.
        """
        options = {"pin_memory": True, "pin_memory_device": self.name}
        deprecated = "pin_memory_device is deprecated"  # newer torch pins for the current device; older must be told
        warnings.filterwarnings("ignore", deprecated)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # with which some versions of torch say that they don't pin
            warnings.filterwarnings("ignore", deprecated)
            try:
                next(iter(DataLoader([torch.zeros(1)], batch_size=None, **options)))  # type: ignore[arg-type]
            except (RuntimeError, UserWarning):
                return {}
        return options

    def autocast_type(self, *, autocast: bool, scaled: bool) -> torch.dtype | None:
        """The type to autocast to, None for plain fp32. `scaled`: a loss scale was asked for."""
        del scaled
        return self.low_precision if autocast else None

    def sgd(self) -> type[torch.optim.Optimizer]:
        """The SGD to use."""
        return torch.optim.SGD

    def mark(self) -> Any:
        """A point in the device's stream of work; taking it does not wait."""
        event = self._module.Event(enable_timing=True)
        event.record()
        return event

    def seconds_between(self, start: Any, end: Any) -> float:
        """Device time between two marks that the device has passed."""
        return float(start.elapsed_time(end)) / 1000

    def memory_bytes(self) -> int:
        """Device memory that this process holds."""
        return int(self._module.memory_allocated())

    def framework(self) -> str:
        """What torch drives the devices with, and its version; empty where this torch has no such thing."""
        return ""

    def driver(self) -> str:
        """Version of the kernel's driver; empty where nothing says it."""
        return ""

    def devices(self) -> list[Device]:
        """The devices that this process sees; naming them takes no memory on them."""
        seen = [self._module.get_device_properties(index) for index in range(self.count())]
        return [Device(str(each.name), int(each.total_memory)) for each in seen]

    def describe(self) -> str:
        """Devices, framework and driver, for the log's first line."""
        names = Counter(device.name for device in self.devices())
        driver = self.driver()
        parts = [*(f"{number} x {name}" for name, number in names.items()), self.framework()]
        return ", ".join([*filter(None, parts), *([f"driver {driver}"] if driver else [])])

    def numerics(self) -> str:
        """What the last bits of a training depend on here, besides the run itself."""
        return f"torch {torch.__version__}, {self.describe()}"

    def failed(self, error: BaseException) -> bool:
        """Whether the error means that the device, not the program, failed."""
        text = str(error).lower()
        return isinstance(error, RuntimeError) and any(part in text for part in self.device_errors)


def first_line(error: BaseException) -> str:
    """An error's text, as much of it as a message of one line has room for."""
    return (str(error).strip() or repr(error)).splitlines()[0]


def _blames_driver(text: str) -> bool:
    """Whether a framework says of the driver that it is missing or of the wrong version."""
    said = text.lower()
    return "driver" in said and any(word in said for word in ("version", "old", "found no"))
