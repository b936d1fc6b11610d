"""Command lines beside the training's own: parsing that ends with one line, and the kinds of value they share."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from app.resilience.exit_codes import ExitCode


class Parser(argparse.ArgumentParser):
    """argparse, but that a wrong command line is one line and exit code 64."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        self.exit(ExitCode.BAD_OPTION, f"{self.prog}: {message} (--help shows what there is)\n")

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """See `argparse.ArgumentParser`; but what is not known is an error of the command that it was given to."""
        given, unknown = super().parse_known_args(args, namespace)
        if unknown:
            word = unknown[0].split("=")[0]
            self.error(f"unknown argument {word!r}{_hint(word, self._option_string_actions)}")
        return given, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        if isinstance(action, argparse._SubParsersAction):
            raise argparse.ArgumentError(None, f"there is no command {value!r}{_hint(str(value), action.choices)}")
        said = f"{value!r} is not one of {', '.join(map(str, action.choices))}"
        raise argparse.ArgumentError(action, f"{said}{_hint(str(value), map(str, action.choices))}")


def _hint(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]}?" if close else ""


def seconds(text: str) -> float:
    """A time above 0 and of a day at most.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"must be seconds, above 0 and at most 86400, not {text!r}")
    return value


def whole(low: int, high: int) -> Callable[[str], int]:
    """The reader of a whole number in these bounds, which raises `argparse.ArgumentTypeError`."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text[:10]) <= high):
            raise argparse.ArgumentTypeError(f"must be {low} to {high}, not {text!r}")
        return int(text)

    return read
