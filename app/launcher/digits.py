"""The embedded data set, written once before the ranks look for it: its writer needs numpy, the launcher has none."""

from __future__ import annotations

from collections.abc import Mapping

from app.launcher import helper
from app.launcher.signals import Signals


def prepare(path: str, environ: Mapping[str, str], signals: Signals, poll: float) -> None:
    """Runs app.data.digits, which does nothing where the data set is complete.

    Args:
        path: the folder, "" for the data set's own default, which the ranks find in the same way.
        environ: the launcher's environment.
        signals: a request to stop ends the writer.
        poll: seconds between two looks at it.

    Raises:
        TrainingError: see `helper.run`.
    """
    helper.run("app.data.digits", ["--out", path] if path else [], environ=environ, signals=signals, poll=poll)
