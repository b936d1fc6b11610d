"""Times as the Kubernetes API writes them, and as numbers."""

from __future__ import annotations

from datetime import UTC, datetime


def to_text(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC, to the millisecond: 2026-01-31T12:00:00Z, 2026-01-31T12:00:00.250Z."""
    milliseconds = round(at * 1000)
    text = datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{milliseconds % 1000:03d}Z" if milliseconds % 1000 else f"{text}Z"


def to_unix(text: str | None) -> float | None:
    """Unix seconds of an RFC 3339 time; None where there is none, or none that can be read."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
