"""`resnetctl doctor|evaluate|export|predict`: the tools of app/, which need torch or onnxruntime, as processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from app.modules import python_command, python_environment


class Tool(NamedTuple):
    """A module of app/ that is a command.

    Attributes:
        module: what `python -m` runs.
        text: what it does, for the help.
        options: given before the user's own, who may override them.
    """

    module: str
    text: str
    options: tuple[str, ...] = ()


TOOLS = {
    "doctor": Tool("app.doctor", "say what this machine can train on, and what is missing"),
    "evaluate": Tool("app.evaluate", "tell top-1, top-5 and loss of a checkpoint or .pth"),
    "export": Tool("app.export", "write a checkpoint or .pth as one checked ONNX file", ("--text",)),
    "predict": Tool("app.predict", "show the likeliest classes of images, by an ONNX file"),
}
"""Command -> the tool behind it, which reads the rest of the command line and has its own --help."""


def add_commands(commands: Any) -> None:
    """Adds the tools to the list that `resnetctl --help` prints."""
    for name, tool in TOOLS.items():
        commands.add_parser(name, help=tool.text, add_help=False)


def command(name: str, rest: Sequence[str], environ: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a tool, which finds the same `app` as this process."""
    tool = TOOLS[name]
    return [*python_command(tool.module), *tool.options, *rest], python_environment(environ)


def start(name: str, rest: Sequence[str]) -> NoReturn:
    """Becomes the tool: its output, its signals and its exit code are this process's own.

    Raises:
        OSError: it can't be started.
    """
    argv, env = command(name, rest, os.environ)
    sys.stdout.flush()
    os.execve(argv[0], argv, env)  # noqa: S606 - no shell is wanted
