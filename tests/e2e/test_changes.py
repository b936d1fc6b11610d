"""A cluster that changes under a training: a newer operator, quotas, a training-operator that goes and comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from tests.cluster import training_operator
from tests.cluster.cluster import Cluster
from tests.cluster.helm import CHARTS
from tests.cluster.waiting import wait_for
from tests.e2e.experiments import SOON, Laboratory
from tests.e2e.operator import CRD, NAME, VALUES, Operator

pytestmark = [pytest.mark.timeout(1800), pytest.mark.faults]
JOBS_CRD = "pytorchjobs.kubeflow.org"
HALF = {"faultTolerance": {"startTimeoutSeconds": 15}}


def test_an_upgrade_of_the_operator_and_of_its_kind_disturbs_no_training(
    operator: Operator, laboratory: Laboratory, tmp_path: Path
) -> None:
    running = laboratory.experiment("running", training={"epochs": 10})
    running.trains(1)
    before = {pod["metadata"]["uid"] for pod in operator.pods()}
    chart = tmp_path / NAME
    shutil.copytree(CHARTS / NAME, chart)
    file = chart / "files" / "resnetexperiments.yaml"
    kind = yaml.safe_load(file.read_text())
    spec = kind["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    spec["comment"] = {"type": "string", "maxLength": 100, "description": "a field of a later version"}
    file.write_text(yaml.safe_dump(kind))

    later = VALUES | {"podAnnotations": {"resnet-operator.io/test": "later"}}
    operator.helm.install(NAME, str(chart), later, "--wait", f"--timeout={SOON:.0f}s")
    try:
        running.change(comment="kept")
        assert running.document["spec"]["comment"] == "kept"
        replaced = lambda: not before & {pod["metadata"]["uid"] for pod in operator.pods()}  # noqa: E731
        wait_for(replaced, SOON, "the operator's old pods do not end")
        running.succeeded()
    finally:
        operator.install()
    assert running.history() == [("Succeeded", False)]
    assert "comment" not in operator.kubectl.run("get", "crd", CRD, "--output", "json")


def test_a_quota_that_admits_one_pod_of_two_is_waited_for(laboratory: Laboratory) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one"}, "spec": {"hard": {"pods": "1"}}}
    laboratory.kubectl.apply(quota)
    half = laboratory.experiment("half", training={"epochs": 1}, **HALF)
    half.until(lambda _: ("GangIncomplete", False) in half.history(), "it does not let go of its one pod")
    assert half.condition("PodsScheduled")[0] == "False"
    assert "exceeded quota: one" in half.why()
    laboratory.kubectl.delete("resourcequota", "one")
    half.succeeded()


def test_a_limit_range_that_forbids_the_pods_is_waited_for(laboratory: Laboratory) -> None:
    limits = {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}
    laboratory.kubectl.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "low"}, "spec": limits})
    big = laboratory.experiment("big", training={"epochs": 1})
    big.until(lambda _: big.condition("PodsScheduled")[1] == "PodsRefused", "it does not say who refuses its pods")
    for told in (big.condition("PodsScheduled")[2], big.status["message"], big.why()):
        assert "maximum memory usage per Container is 1Gi" in told
    laboratory.kubectl.delete("limitrange", "low")
    big.succeeded()
    assert big.history() == [("Succeeded", False)]


def test_a_training_operator_that_is_removed_with_its_kind_is_named_and_waited_for(
    cluster: Cluster, laboratory: Laboratory
) -> None:
    orphan = laboratory.experiment("orphan", training={"epochs": 6})
    orphan.trains(1)
    kubectl = cluster.kubectl.within(training_operator.NAMESPACE)
    try:
        kubectl.delete("deployment", training_operator.DEPLOYMENT)
        kubectl.delete("crd", JOBS_CRD, timeout=SOON)
        orphan.until(
            lambda _: orphan.condition("PodsScheduled")[1] == "TrainingOperatorMissing",
            "it does not say what is missing",
        )
        assert "install Kubeflow's training-operator" in orphan.why()
    finally:
        training_operator.install(cluster.kubectl)
        training_operator.wait_until_ready(cluster.kubectl)
    orphan.succeeded()
    assert orphan.status["restarts"] == 0
    assert orphan.lost() == [0]
