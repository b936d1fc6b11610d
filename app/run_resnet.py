"""The launcher's command: the published flags in, one process per device out.

`python -m app.run_resnet FLAGS`, or `python run_resnet.py FLAGS` from inside app/. Standard library and
prometheus-client only: torch is imported by the ranks, never here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Run as a script: Python put app/ itself in front, where its modules would hide others of the same name.
    _HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if not entry or Path(entry).resolve() != _HERE)]

from app.launcher.signals import Signals
from app.resilience.exit_codes import ExitCode


def main(argv: Sequence[str] | None = None, rank_command: Sequence[str] | None = None) -> int:
    """Runs the launcher.

    Args:
        argv: the flags, those of this process where absent.
        rank_command: what to start as a rank (the flags are appended); the training, where absent.

    Returns:
        The exit code (app.resilience.exit_codes).
    """
    signals = Signals()
    signals.install()
    # Only now what takes its time to import: a SIGTERM must not find the process without its handlers.
    try:
        from app.launcher.command import run  # noqa: PLC0415
    except ImportError as error:
        print(f"run_resnet: {error}: this image lacks what extra 'app' installs", file=sys.stderr)
        return ExitCode.FRAMEWORK_MISSING
    return run(sys.argv[1:] if argv is None else argv, signals, rank_command)


if __name__ == "__main__":
    sys.exit(main())
