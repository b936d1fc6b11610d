"""`python -m app.accelerators.count --device sdaa`: how many devices there are, for the launcher, who has no torch."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from app import tools
from app.accelerators import DEVICE_TYPES
from app.config import ConfigError
from app.resilience.exit_codes import ExitCode
from app.resilience.parent import ENV_LAUNCHER, die_with_parent

PROGRAM = "count"
ANSWER = "devices: "
"""What the line with the number begins with: a vendor's framework may greet on stdout."""


def main(argv: Sequence[str]) -> int:
    """Prints the number; returns the exit code: 69 no framework, 141 a driver, but no device."""

    parser = tools.Parser(PROGRAM, "Counts the devices that a process sees here.")
    parser.add_training_options(device="")

    def work() -> int:
        device = parser.read(argv)[1].get("device")
        if not device:
            raise ConfigError("device", f"is required: one of {', '.join(DEVICE_TYPES)}")
        try:
            from app.accelerators.find import find  # noqa: PLC0415 - an image without torch gets a line of ours
        except ImportError as error:
            tools.lacking(PROGRAM, error)
        print(f"{ANSWER}{find(device).count()}")
        return ExitCode.DONE

    return tools.run(PROGRAM, work)


if __name__ == "__main__":
    if ENV_LAUNCHER in os.environ:
        die_with_parent(signal.SIGKILL, int(os.environ[ENV_LAUNCHER]))
    sys.exit(main(sys.argv[1:]))
