"""`resnetctl completion SHELL`: prints what makes a shell complete resnetctl's commands, options and files.

The script is static (shtab makes it from the parser): a Tab starts no Python. It is as old as its installation.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from app.resilience.exit_codes import ExitCode
from controller.tools import TOOLS

SHELLS = ("bash", "zsh", "fish")
_DIRECTORIES = {"DIR"}
_FILES = {"FILE", "PATH"}
_HINT = """Each completes from the next shell on:

  bash  resnetctl completion bash > ~/.local/share/bash-completion/completions/resnetctl
  zsh   resnetctl completion zsh > "${fpath[1]}/_resnetctl"
  fish  resnetctl completion fish > ~/.config/fish/completions/resnetctl.fish"""


def add_command(commands: Any, parser: argparse.ArgumentParser) -> None:
    """Adds it to the sub-commands of the parser that it is to complete."""
    text = "print what makes a shell complete all this"
    sub = commands.add_parser(
        "completion", help=text, description=text, epilog=_HINT, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    sub.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    sub.set_defaults(command=lambda args: _print(parser, args.shell))


def _print(parser: argparse.ArgumentParser, shell: str) -> int:
    print(script(parser, shell), end="")
    return ExitCode.DONE


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What the shell reads. The parser is marked and can't be used for anything else."""
    import shtab  # noqa: PLC0415

    for each in _parsers(parser):
        if each.prog.split()[-1] in TOOLS:  # their own processes read their options
            each.add_argument("files", nargs="*", metavar="FILE")
        for action in each._actions:
            kinds = {action.metavar} if isinstance(action.metavar, str) else set()
            if kinds & (_FILES | _DIRECTORIES):
                action.complete = shtab.DIRECTORY if kinds & _DIRECTORIES else shtab.FILE  # type: ignore[attr-defined]
    return str(shtab.complete(parser, shell=shell))


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _parsers(inner)
