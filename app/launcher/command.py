"""From the command line to the exit code: parse, run, say how it ended."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from app.command_line import parse
from app.config import ConfigError, flag_of, plan
from app.launcher.devices import counted
from app.launcher.launcher import Launcher, Times
from app.launcher.signals import Signals
from app.launcher.verdict import Verdict, of_code
from app.modules import python_command
from app.resilience.exit_codes import ExitCode, TrainingError
from app.resilience.parent import die_with_parent
from app.telemetry.identity import Identity, from_environment
from app.telemetry.progress import document, termination

ENV_PARENT = "RESNET_PARENT_PID"
ENV_SILENCE = "RESNET_GANG_SILENCE_SECONDS"
ENV_TERMINATION = "RESNET_TERMINATION_MESSAGE_PATH"


def run(argv: Sequence[str], signals: Signals, rank_command: Sequence[str] | None, times: Times | None = None) -> int:
    """See app.run_resnet.main; `times` are the launcher's own limits, the usual ones where absent."""
    environ = os.environ
    identity = Identity()
    progress: dict[str, Any] | None = None
    line = ""
    try:
        identity = from_environment(environ)
        times = _times(environ, times or Times())
        if parent := environ.get(ENV_PARENT):
            signals.follow(_whole(ENV_PARENT, parent))
            die_with_parent(signal.SIGTERM, int(parent))
        config = parse(argv, environ)
        if not config.nproc_per_node:
            config = counted(config, environ, signals, times.poll)
            argv = [*argv, flag_of("nproc_per_node"), str(config.nproc_per_node)]  # the ranks read the last one
        if config.print_plan:
            print(json.dumps(plan(config), indent=2))
            return ExitCode.DONE
        command = [*(rank_command or python_command("app.train")), *argv]
        with Launcher(
            config, identity, rank_command=command, environ=environ, signals=signals, times=times
        ) as launcher:
            result = launcher.run()
            progress = launcher.progress()
    except ConfigError as error:
        result = of_code(ExitCode.BAD_OPTION, str(error))
        line = f"run_resnet: {error}"
    except TrainingError as error:
        result = of_code(error.code, error.message, reason=error.reason)
    except Exception as error:  # noqa: BLE001 - whatever it was, it gets a code and a line besides its traceback
        traceback.print_exc()
        result = of_code(ExitCode.INTERNAL, f"{type(error).__name__}: {error}", type(error).__name__)
    _leave_message(environ.get(ENV_TERMINATION), progress or document(identity, None, since=time.time()), result)
    if result.code:
        print(line or f"run_resnet: {result.reason} (exit {result.code}): {result.message}", file=sys.stderr)
    return result.code


def _leave_message(path: str | None, progress: dict[str, Any], result: Verdict) -> None:
    """Writes the termination message; a failure to do so is said, and changes nothing of the result."""
    if not path:
        return
    progress |= {"exported": result.exported, "export_error": result.export_error}
    message = termination(
        progress, code=result.code, reason=result.reason, message=result.message, exception=result.exception
    )
    try:
        # Written in place: in a pod this is a mounted file, which can't be replaced.
        with open(path, "wb") as file:
            file.write(message)
    except OSError as error:
        print(f"run_resnet: {ENV_TERMINATION}: {path} can't be written: {error.strerror}", file=sys.stderr)


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigError(name, f"must be a whole number, not {text!r}")
    return int(text)


def _times(environ: Mapping[str, str], times: Times) -> Times:
    text = environ.get(ENV_SILENCE)
    if not text:
        return times
    try:
        silence = float(text)
    except ValueError:
        silence = math.nan
    if not 0 < silence < math.inf:
        raise ConfigError(ENV_SILENCE, f"must be a number of seconds above 0, not {text!r}")
    return replace(times, silence=silence)
