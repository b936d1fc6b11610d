"""Reads what the pods say of themselves: /progress and termination messages. Every byte of it is untrusted.

The document is flat JSON. It is read with bounds on size, time, types and ranges, and it must carry the identity of
the attempt that was asked: an answer from an older attempt, or from another experiment at a reused address, is none.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import json
import math
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.resilience.heartbeat import Phase, phase_name

MAX_BYTES = 64 * 1024
"""Most bytes of an answer, its headers included."""

MAX_TEXT = 1024
"""Most characters of a text that is kept: messages and paths go into the experiment's status."""

PHASES = frozenset(phase_name(phase) for phase in Phase)
"""The words that `phase` may hold."""

_MOST = 2**53  # whole numbers above are not exact in JSON
_REASON = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}")


class ProgressError(ValueError):
    """The bytes are no progress document of this attempt; the message says why, in one line."""


@dataclass(frozen=True)
class Identity:
    """Whose answer is expected."""

    namespace: str
    experiment: str
    attempt: int


@dataclass(frozen=True)
class Progress:
    """One progress document, checked. Ratios are 0 to 1, times are seconds, `None` means "none yet".

    `reason`, `message`, `exit_code` and `exception` come with a termination message only.
    """

    namespace: str
    experiment: str
    attempt: int
    phase: str
    pod: str = ""
    epoch: int = 0
    epochs: int = 0
    step: int = 0
    steps: int = 0
    loss: float | None = None
    loss_reason: str = ""
    learning_rate: float | None = None
    top1: float | None = None
    top5: float | None = None
    best_top1: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None
    straggler_rank: int | None = None
    straggler_ratio: float | None = None
    last_checkpoint: int | None = None
    exported: str | None = None
    export_error: str | None = None
    updated: float | None = None
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    exception: str = ""


@dataclass(frozen=True)
class Reading:
    """One attempt to read /progress.

    Attributes:
        answered: a document of the right attempt came back.
        document: that document.
        why: one line, where there is none.
        silent: seconds since the first question in a row that got none.
    """

    answered: bool
    document: Progress | None
    why: str = ""
    silent: float = math.inf


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """The text without control characters and line breaks, at most `limit` characters of it."""
    words = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * limit]).split())
    return words if len(words) <= limit else words[: limit - 1] + "…"


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ProgressError(f"must be a whole number from 0 to {_MOST}")
    return value


def _number(low: float, high: float) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ProgressError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return check


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ProgressError("must be text")
    return one_line(value)


def _word(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if type(value) is not str or (value and not pattern.fullmatch(value)):
            raise ProgressError("must be one word")
        return value

    return check


def _phase(value: Any) -> str:
    if type(value) is not str or value not in PHASES:
        raise ProgressError(f"must be one of {', '.join(sorted(PHASES))}")
    return value


_RATIO = _number(0, 1)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "namespace": _text,
    "experiment": _text,
    "attempt": _whole,
    "phase": _phase,
    "pod": _text,
    "epoch": _whole,
    "epochs": _whole,
    "step": _whole,
    "steps": _whole,
    "loss": _number(-1e38, 1e38),
    "loss_reason": _text,
    "learning_rate": _number(0, 1e6),
    "top1": _RATIO,
    "top5": _RATIO,
    "best_top1": _RATIO,
    "images_per_second": _number(0, 1e12),
    "eta_seconds": _number(0, 1e10),
    "straggler_rank": _whole,
    "straggler_ratio": _number(0, 1e12),
    "last_checkpoint": _whole,
    "exported": _text,
    "export_error": _text,
    "updated": _number(0, 1e11),
    "reason": _word(_REASON),
    "message": _text,
    "exit_code": _whole,
    "exception": _word(_TYPE_NAME),
}
_REQUIRED = ("namespace", "experiment", "attempt", "phase")


def _refuse_constant(name: str) -> Any:
    raise ProgressError(f"holds {name}, which is not JSON")


def parse(raw: bytes, identity: Identity) -> Progress:
    """The checked document. Unknown keys are passed over; null counts as absent.

    Raises:
        ProgressError: too long, not JSON, a value of another type or out of range, or not of this attempt.
    """
    document = _document(raw)
    found = Identity(document.namespace, document.experiment, document.attempt)
    if found != identity:
        raise ProgressError(
            f"is of {found.namespace}/{found.experiment} attempt {found.attempt}, "
            f"not of {identity.namespace}/{identity.experiment} attempt {identity.attempt}"
        )
    return document


def _document(raw: bytes) -> Progress:
    if len(raw) > MAX_BYTES:
        raise ProgressError(f"is longer than {MAX_BYTES} bytes")
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse_constant)
    except ProgressError:
        raise
    except (ValueError, RecursionError) as error:  # also: nested too deep, a number of thousands of digits
        raise ProgressError(f"is no JSON ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise ProgressError("must be a JSON object")
    fields = {}
    for name, check in _CHECKS.items():
        if value.get(name) is None:
            if name in _REQUIRED:
                raise ProgressError(f"{name} is missing")
            continue
        if isinstance(value[name], float) and not math.isfinite(value[name]):
            raise ProgressError(f"{name} must be finite")
        try:
            fields[name] = check(value[name])
        except ProgressError as error:
            raise ProgressError(f"{name} {error}") from None
    return Progress(**fields)


def from_termination(message: str, identity: Identity | None = None) -> Progress | None:
    """The document that a launcher left as its pod's termination message.

    Returns None where the text is no such document (a crash before the launcher wrote one, a cut-off message), or
    where `identity` is given and it is another's.
    """
    try:
        raw = message.encode("utf-8", "replace")
        return _document(raw) if identity is None else parse(raw, identity)
    except ProgressError:
        return None


class _Received(io.BytesIO):
    """Bytes that http.client reads as if they came from a socket."""

    def makefile(self, *_: Any) -> io.BytesIO:
        return self


def read(host: str, port: int, identity: Identity, timeout: float = 2.0) -> Reading:
    """GET http://host:port/progress, at most `MAX_BYTES` and at most `timeout` seconds in all; never raises.

    `host` is an IP address (a pod's): no name is looked up, since that could not be bounded in time. Redirects are
    not followed. The time-out is for the whole exchange, so a peer that sends a byte now and then ends it as well.
    """
    try:
        address = ipaddress.ip_address(host)
        raw = _get(str(address), port, time.monotonic() + timeout)
        response = http.client.HTTPResponse(_Received(raw))  # type: ignore[arg-type]
        response.begin()
        if response.status != 200:
            raise ProgressError(f"answered with HTTP status {response.status}")
        return Reading(True, parse(response.read(), identity))
    except ProgressError as error:
        return Reading(False, None, one_line(f"/progress {error}"))
    except TimeoutError:
        return Reading(False, None, f"/progress did not answer in {timeout:g} s")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Reading(False, None, one_line(f"/progress: {error or type(error).__name__}"))


def _get(host: str, port: int, deadline: float) -> bytes:
    """All bytes of the answer to one HTTP/1.0 request: without keep-alive its end is the connection's."""
    with socket.create_connection((host, port), timeout=_left(deadline)) as connection:
        connection.settimeout(_left(deadline))
        connection.sendall(b"GET /progress HTTP/1.0\r\nHost: progress\r\nAccept: application/json\r\n\r\n")
        received = bytearray()
        while True:
            connection.settimeout(_left(deadline))
            chunk = connection.recv(MAX_BYTES)
            if not chunk:
                return bytes(received)
            received += chunk
            if len(received) > MAX_BYTES:
                raise ProgressError(f"is longer than {MAX_BYTES} bytes")


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
