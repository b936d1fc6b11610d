"""Waiting for a condition, with a time limit and a message that says what it looked like at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.2


class WaitTimeoutError(AssertionError):
    """The condition did not come true in time."""


def wait_for(condition: Callable[[], T | None], timeout: float, what: str) -> T:
    """Call `condition` until what it returns is true, and return that.

    An exception of `condition` counts as "not yet"; the last one is named when time is up.

    Raises:
        WaitTimeoutError: it was not within `timeout` seconds.
    """
    late = time.monotonic() + timeout
    while True:
        seen = ""
        try:
            if result := condition():
                return result
        except Exception as error:  # noqa: BLE001 what is waited for may refuse connections, lack objects or fields
            seen = f": {type(error).__name__}: {error}"
        if time.monotonic() > late:
            raise WaitTimeoutError(f"after {timeout:g} s: {what}{seen}")
        time.sleep(POLL_SECONDS)
