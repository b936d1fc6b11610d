"""PromQL with Grafana's variables, as a test asks Prometheus for it."""

from __future__ import annotations


def filled_in(expression: str, interval: str = "5m", **chosen: str) -> str:
    """The expression with Grafana's variables replaced: its intervals by `interval`, others by what was chosen."""
    for name in ("$__rate_interval", "$__range"):
        expression = expression.replace(name, interval)
    for name, value in chosen.items():
        expression = expression.replace(f"${name}", value)
    return expression
