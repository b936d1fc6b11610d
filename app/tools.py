"""What the tools of the command line share: the training's own options, and an end as one line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from app import command_line
from app.command_line import add_option, convert
from app.config import ConfigError, check_value
from app.resilience.classify import classify
from app.resilience.exit_codes import ExitCode, TrainingError
from app.version import installing

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""


class Parser(command_line.Parser):
    """The command line of a tool: options of the training keep their flags, checks and help.

    Args:
        program: name of the tool, as its messages begin.
        description: what it does, one sentence.
    """

    def __init__(self, program: str, description: str) -> None:
        super().__init__(prog=program, description=description, allow_abbrev=False)
        self._names: list[str] = []

    def add_training_options(self, **names: str) -> None:
        """Adds options of TrainConfig by their field names; each value is said as the default, "" for none."""
        for name, default in names.items():
            add_option(self, name, f"default {default}" if default else "")
            self._names.append(name)

    def read(self, argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
        """The arguments, and of the training's options those that were given, checked.

        Raises:
            ConfigError: names the flag, what was wrong and what would be right.
        """
        arguments = self.parse_args(argv)
        given: dict[str, Any] = {}
        for name in self._names:
            text = getattr(arguments, name)
            if text is not None:
                given[name] = convert(name, text)
                check_value(name, given[name])
        return arguments, given


def run(program: str, work: Callable[[], int]) -> int:
    """Does the work of a tool; whatever ends it becomes a line on stderr that begins with its name, and a code."""
    try:
        code = work()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read our output has gone, as `| head` does; Python would try once more at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except ConfigError as error:
        end = TrainingError(ExitCode.BAD_OPTION, str(error))
    except TrainingError as error:
        end = error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        end = TrainingError(ExitCode.VOLUME_IO, f"{where}{error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - every end becomes a code and one line
        end = classify(error, stepped=False, device_failed=lambda _: False)
        if end.code == ExitCode.INTERNAL and not isinstance(error, MemoryError):
            traceback.print_exc()  # nobody foresaw it: whoever mends it needs the place
    print(f"{program}: {end.message}", file=sys.stderr, flush=True)
    return end.code


def lacking(program: str, error: ImportError) -> NoReturn:
    """Ends a tool whose imports failed, with the line that says what to install."""
    print(f"{program}: {error}: {installing('app')}", file=sys.stderr)
    sys.exit(ExitCode.FRAMEWORK_MISSING)


def first_line(error: Exception) -> str:
    """What a library's error says, for the end of a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
