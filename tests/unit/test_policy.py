"""What reaches beyond a pod needs the leave of whoever runs the controller."""

from __future__ import annotations

import pytest

from controller.api import SpecError, load
from controller.observed import Observed
from controller.policy import Policy, refusal
from controller.reconcile import reconcile
from tests.unit.documents import DIGITS, START, experiment, job, running


@pytest.mark.parametrize(
    ("spec", "allowed", "field"),
    [
        ({"podTemplate": {"hostNetwork": True}}, Policy(host_network=True), "spec.podTemplate.hostNetwork"),
        ({"podTemplate": {"hostIPC": True}}, Policy(host_ipc=True), "spec.podTemplate.hostIPC"),
    ],
)
def test_what_shares_the_node_is_refused_unless_it_is_allowed(spec: dict, allowed: Policy, field: str) -> None:
    assert refusal(experiment(**spec).spec, Policy()).startswith(f"{field}: this controller runs without --allow-host-")
    assert refusal(experiment(**spec).spec, allowed) == ""


def test_priorities_of_the_cluster_itself_are_refused_always() -> None:
    everything = Policy(host_network=True, host_ipc=True)
    refused = experiment(priorityClassName="system-cluster-critical")
    assert "is for the cluster's own pods" in refusal(refused.spec, everything)
    assert refusal(experiment(priorityClassName="high").spec, Policy()) == ""


@pytest.mark.parametrize(
    "text",
    [
        "serviceAccountName: admin",
        "nodeName: node-a",
        "privileged: true",
        "initContainers: []",
        "containers: []",
        "volumes: []",
        "labels: {foreign.example.com/a: b}",
        "annotations: {a: b}",
        "securityContext: {privileged: true}",
        "securityContext: {runAsUser: 0}",
        "env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
    ],
)
def test_what_is_not_on_the_list_does_not_exist(text: str) -> None:
    with pytest.raises(SpecError, match=r"spec\.podTemplate"):
        load(f"{DIGITS}  podTemplate: {{{text}}}\n", "x")


@pytest.mark.parametrize("volume", ["hostPath: {path: /}", "secret: {secretName: s}", "nfs: {server: s, path: /}"])
def test_volumes_are_claims_and_empty_directories(volume: str) -> None:
    with pytest.raises(SpecError, match="unknown field"):
        load(f"{DIGITS}  checkpoint: {{volume: {{{volume}}}}}\n", "x")


def test_a_refused_experiment_begins_nothing_and_says_why() -> None:
    decision = reconcile(experiment(), Observed(refused="spec.x: no"), START)
    accepted = next(c for c in decision.status.conditions if c.type == "Accepted")
    assert (decision.create, decision.status.attempt, accepted.status, accepted.reason) == (
        None,
        0,
        "False",
        "NotAllowed",
    )
    assert decision.status.message == "not allowed here: spec.x: no"
    assert [event.reason for event in decision.events] == ["NotAllowed"]
    again = reconcile(experiment(decision.status), Observed(), START + 1)
    assert again.status.attempt == 1


def test_an_attempt_that_is_under_way_goes_on() -> None:
    claimed = reconcile(experiment(), Observed(), START).status
    pods = tuple(running(i) for i in range(2))
    seen = Observed(jobs=(job(),), pods=pods, refused="spec.x: no")
    decision = reconcile(experiment(claimed), seen, START + 1)
    assert (decision.status.phase, decision.delete) == ("Running", ())
