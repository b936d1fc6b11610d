"""Command lines beside the training's own: parsing that ends with one line, and the kinds of value they share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NoReturn

from app.resilience.exit_codes import ExitCode


class Parser(argparse.ArgumentParser):
    """argparse, but that a wrong command line is one line and exit code 64."""

    def error(self, message: str) -> NoReturn:
        """See `argparse.ArgumentParser`."""
        self.exit(ExitCode.BAD_OPTION, f"{self.prog}: {message} (--help shows what there is)\n")


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
