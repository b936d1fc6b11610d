"""A short process of ours that does for the launcher what needs more than the standard library."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence

from app.launcher.signals import Signals
from app.modules import python_command, python_environment
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.parent import ENV_LAUNCHER

_MOST = 65_536
_REAP_SECONDS = 2.0


def run(
    module: str,
    arguments: Sequence[str],
    *,
    environ: Mapping[str, str],
    signals: Signals,
    poll: float,
    limit: tuple[float, str] = (math.inf, ""),
) -> str:
    """Runs `python -m module` to its end and returns what it wrote to stdout.

    Args:
        module: a module of this package whose last line on stderr, "<its name>: …", says why it failed.
        arguments: its command line.
        environ: the launcher's environment.
        signals: a request to stop ends it.
        poll: seconds between two looks at it.
        limit: seconds that it may take, and the line for one that took longer.

    Raises:
        TrainingError: with the code and the line that it ended with; HUNG (142) at the limit; STOPPED (143).
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        deadline = time.monotonic() + limit[0]
        try:
            process = subprocess.Popen(
                [*python_command(module), *arguments],
                env={**python_environment(environ), ENV_LAUNCHER: str(os.getpid())},
                start_new_session=True, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
            )  # fmt: skip
        except OSError as error:
            message = f"python -m {module} could not be started: {error.strerror}"
            raise TrainingError(ExitCode.UNCLASSIFIED, message) from None
        try:
            while process.poll() is None:
                signals.wait(poll)
                signals.check()
                if time.monotonic() > deadline:
                    raise TrainingError(ExitCode.HUNG, limit[1])
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):  # a driver may hold it where no signal reaches
                    process.wait(_REAP_SECONDS)
        said = []
        for file in (out, errors):
            file.seek(0)
            said.append(file.read(_MOST).decode("utf-8", "replace"))
    if process.returncode == 0:
        return said[0]
    name = module.rpartition(".")[2]
    lines = said[1].strip().splitlines()
    message = lines[-1].removeprefix(f"{name}: ") if lines else f"python -m {module} failed, and did not say why"
    known = process.returncode in set(ExitCode)
    raise TrainingError(ExitCode(process.returncode) if known else ExitCode.INTERNAL, message)
