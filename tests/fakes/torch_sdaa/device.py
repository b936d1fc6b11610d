"""`torch.sdaa`: the device module, in the shape of torch.cuda."""

import os
import time
from contextlib import contextmanager

import torch

from torch_sdaa.state import STATE, fault

MEMORY = 15296 << 20  # bytes of one device


def _visible():
    count = int(os.environ.get("FAKE_SDAA_DEVICES", "32"))
    asked = os.environ.get("SDAA_VISIBLE_DEVICES")
    if asked is None:
        return list(range(count))
    return [int(number) for number in asked.split(",") if number.strip() and int(number) < count]


def _use():
    if fault("driver"):
        raise RuntimeError("SDAA error: the driver version 1.1.1 is older than this runtime (2.0.0) needs")


def is_available():
    return device_count() > 0


def device_count():
    return len(_visible())


def set_device(device):
    _use()
    index = device if isinstance(device, int) else torch.device(device).index
    if not 0 <= index < device_count():
        raise RuntimeError(f"SDAA error: invalid device ordinal {index} (SDAA_ERROR_INVALID_DEVICE)")
    STATE.current = index
    STATE.note(device=_visible()[index])


def current_device():
    _use()
    if not _visible():
        raise RuntimeError("SDAA error: no device was found (SDAA_ERROR_NO_DEVICE)")
    return STATE.current or 0


def get_device_name(device=None):
    return f"/dev/tcaicard{_visible()[device or 0]}"


def synchronize(device=None):
    STATE.read()


def memory_allocated(device=None):
    return 2 << 30


def mem_get_info(device=None):
    return MEMORY - memory_allocated(device), MEMORY


def manual_seed_all(seed):
    STATE.note(seed=seed)


manual_seed = manual_seed_all


def get_rng_state(device="sdaa"):
    return torch.zeros(16, dtype=torch.uint8)


def get_rng_state_all():
    return [get_rng_state() for _ in range(device_count())]


def set_rng_state(new_state, device="sdaa"):
    return None


def _is_in_bad_fork():
    return False


def get_amp_supported_dtype():
    return [torch.float16, torch.bfloat16]


class Stream:
    """The one queue of work, which is always empty: the CPU has done it when the call returns."""

    def __init__(self, device=None):
        self.device = device

    def wait_stream(self, stream):
        pass

    def synchronize(self):
        STATE.read()


def current_stream(device=None):
    return Stream(device)


@contextmanager
def stream(one):
    yield one


class Event:
    """A point in time; like the real one it has to be recorded before it is read."""

    def __init__(self, enable_timing=False):
        self._timed = enable_timing
        self._at = None

    def record(self, stream=None):
        self._at = time.perf_counter()

    def synchronize(self):
        STATE.read()

    def query(self):
        return True

    def elapsed_time(self, end):
        if not (self._timed and end._timed) or self._at is None or end._at is None:
            raise RuntimeError("SDAA error: the event was not recorded with timing (SDAA_ERROR_INVALID_HANDLE)")
        return 1000 * (end._at - self._at)
