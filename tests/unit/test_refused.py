"""Documents of the API that were written for another version of the operator."""

from __future__ import annotations

from typing import Any

import pytest

from controller.api import SpecError
from controller.refused import as_experiment


def document(**spec: Any) -> dict[str, Any]:
    """As the API server has it."""
    return {
        "apiVersion": "resnet-operator.io/v1alpha1",
        "kind": "ResNetExperiment",
        "metadata": {"name": "digits", "namespace": "team", "uid": "u", "labels": {"a": "b"}},
        "spec": {
            "model": "resnet18",
            "accelerator": {"type": "cpu"},
            "dataset": {"name": "digits"},
            "training": {"epochs": 1, "batchSizePerDevice": 8},
        }
        | spec,
    }


def test_fields_of_a_newer_kind_are_left_out() -> None:
    newer = document(
        comment="new",
        training={"epochs": 3, "batchSizePerDevice": 8, "colour": {"space": "lab"}},
        podTemplate={"tolerations": [{"key": "a"}, {"key": "b", "zone": "z"}]},
    )
    newer["status"] = {"attempt": 2, "mood": "good", "history": [{"attempt": 1, "reason": "Killed", "tone": 1}]}
    experiment = as_experiment(newer)
    assert experiment.spec.training.epochs == 3
    assert [each.key for each in experiment.spec.pod_template.tolerations] == ["a", "b"]
    assert (experiment.status.attempt, experiment.status.history[0].reason) == (2, "Killed")
    assert newer["spec"]["comment"] == "new"


def test_what_is_wrong_besides_is_refused() -> None:
    with pytest.raises(SpecError) as refused:
        as_experiment(document(comment="new", nodes=0))
    assert [each.partition(":")[0] for each in refused.value.problems] == ["spec.nodes"]
