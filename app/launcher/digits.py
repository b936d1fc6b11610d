"""The embedded data set, written once before the ranks look for it: its writer needs numpy, the launcher has none."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping

from app.launcher.signals import Signals
from app.modules import python_command, python_environment
from app.resilience.exit_codes import ExitCode, TrainingError


def prepare(path: str, environ: Mapping[str, str], signals: Signals, poll: float) -> None:
    """Runs app.data.digits, which does nothing where the data set is complete.

    Args:
        path: the folder, "" for the data set's own default, which the ranks find in the same way.
        environ: the launcher's environment.
        signals: a request to stop ends the writer.
        poll: seconds between two looks at it.

    Raises:
        TrainingError: with the code and the line that the writer ended with, or STOPPED.
    """
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*python_command("app.data.digits"), *(["--out", path] if path else [])],
            env=python_environment(environ),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
        try:
            while process.poll() is None:
                signals.wait(poll)
                signals.check()
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return
        errors.seek(0)
        lines = errors.read(65_536).decode("utf-8", "replace").strip().splitlines()
    known = process.returncode in set(ExitCode)
    message = lines[-1].removeprefix("error: ") if lines else "the digits data set could not be written"
    raise TrainingError(ExitCode(process.returncode) if known else ExitCode.INTERNAL, message)
