"""What the fake cards are told by the environment, what happens on them, and what a test can read of it afterwards.

FAKE_SDAA_DEVICES    devices in the machine (32); SDAA_VISIBLE_DEVICES chooses among them.
FAKE_SDAA_FUSED_SGD  "scaled": torch_sdaa.optim.FusedSGD applies the loss scale itself; "plain": it does not;
                     "absent": there is none.
FAKE_SDAA_FAULT      "import": the driver does not fit, said by the import; "driver": said by the first use;
                     "lost": the device is lost; "memory": it has no memory left.
FAKE_SDAA_FAULT_RANK the rank that "lost" and "memory" happen to (0).
FAKE_SDAA_FAULT_AT   in which backward pass of that rank they happen (1); the first two are the discarded ones.
FAKE_SDAA_REPORT     a folder, in which each rank leaves what was seen of it: `rank-<n>.json`.
"""

import json
import os
from pathlib import Path

RANK = int(os.environ.get("RANK", "0"))


def fault(kind):
    """Whether this fault is asked for."""
    return os.environ.get("FAKE_SDAA_FAULT") == kind


class State:
    """The one device that this process computes on."""

    def __init__(self):
        self.current = None  # set_device's argument
        self.failed = False
        self.seen = {"backwards": 0, "reads": 0}

    def note(self, **facts):
        """Puts facts into the report."""
        self.seen.update(facts)
        folder = os.environ.get("FAKE_SDAA_REPORT")
        if folder:
            Path(folder, f"rank-{RANK}.json").write_text(json.dumps(self.seen))

    def read(self):
        """The host waits for a value of the device."""
        self.work()
        self.note(reads=self.seen["reads"] + 1)

    def backward(self):
        """A backward pass begins; the fault comes in the one that it was asked for."""
        self.note(backwards=self.seen["backwards"] + 1)
        due = self.seen["backwards"] >= int(os.environ.get("FAKE_SDAA_FAULT_AT", "1"))
        mine = int(os.environ.get("FAKE_SDAA_FAULT_RANK", "0")) == RANK
        self.failed = self.failed or (due and mine and (fault("lost") or fault("memory")))
        self.work()

    def work(self):
        """Something is computed on the device."""
        if self.failed and fault("lost"):
            raise RuntimeError(f"SDAA error: device sdaa:{self.current} is lost (SDAA_ERROR_UNKNOWN, HEARTBEAT_ERROR)")
        if self.failed:
            raise RuntimeError("sdaa out of memory. Tried to allocate 974.00 MiB (15296 MiB in all, 312 MiB free)")


STATE = State()
