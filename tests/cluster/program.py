"""A program of the toolchain, run to its end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.processes import NO_PROXY


def environment() -> dict[str, str]:
    """What a program of the toolchain inherits."""
    return {**os.environ, **NO_PROXY}


class ProgramError(RuntimeError):
    """A program ended with an error; the text is what it was asked and what it wrote."""


def run(command: Sequence[str | Path], said: str, stdin: str, timeout: float, error: type[ProgramError]) -> str:
    """What a command prints.

    Args:
        command: the program and its arguments.
        said: the command in an error's words.
        stdin: what it reads.
        timeout: seconds.
        error: what is raised.

    Raises:
        ProgramError: of that type: it failed, or took longer than `timeout`.
    """
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, env=environment(), timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise error(f"{said}: no answer in {timeout:g} s") from late
    if done.returncode:
        raise error(f"{said}: {done.stderr.strip()} {done.stdout.strip()}".strip())
    return done.stdout
