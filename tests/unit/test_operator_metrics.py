"""What the operator's scraper sees of the experiments."""

from __future__ import annotations

from typing import Any

import pytest

from controller.metrics import RESTART_REASONS, Metrics
from controller.verdict import RETRIED, Outcome, make

WHOSE = {"namespace": "team", "experiment": "digits"}


def document(**status: Any) -> dict[str, Any]:
    """An experiment as the operator's cache has it."""
    metadata = {"namespace": WHOSE["namespace"], "name": WHOSE["experiment"]}
    return {"metadata": metadata, "spec": {"activeDeadlineSeconds": 600}, "status": status}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Of one series of the experiment."""
    return metrics.registry.get_sample_value(name, WHOSE | labels)


@pytest.mark.parametrize("reason", RESTART_REASONS)
def test_the_first_restart_for_any_reason_is_an_increase(reason: str) -> None:
    metrics = Metrics(lambda: [document(phase="Running")], lambda: 0)
    assert value(metrics, "resnet_experiment_restarts_total", reason=reason) == 0


def test_an_experiment_that_is_over_restarts_for_no_reason_any_more() -> None:
    metrics = Metrics(lambda: [document(phase="Succeeded")], lambda: 0)
    assert value(metrics, "resnet_experiment_restarts_total", reason="Hung") is None


@pytest.mark.parametrize("reason", RETRIED)
def test_every_reason_of_a_restart_is_one_that_is_retried(reason: str) -> None:
    assert make(reason, "").outcome is Outcome.RETRY


def test_the_number_of_the_attempt_is_that_of_the_status() -> None:
    documents = [document(phase="Running", attempt=7)]
    metrics = Metrics(lambda: documents, lambda: 0)
    assert value(metrics, "resnet_experiment_attempt") == 7
    documents[:] = [document()]
    assert value(metrics, "resnet_experiment_attempt") == 0
