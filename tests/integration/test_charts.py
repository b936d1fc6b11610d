"""Both charts on a real API server: what it takes of them, what an upgrade may change, and what they leave."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.gomodule import module_directory
from tests.cluster.helm import CHARTS, Helm, HelmError, template
from tests.cluster.kubectl import Kubectl
from tests.cluster.waiting import wait_for
from tests.integration.charts import CRD, EXAMPLES, EXPERIMENT, MONITORING, OPERATOR, PROGRAMS, ROOT

# On a new machine Helm and Kubernetes are built first.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(params=PROGRAMS)
def helm(request: pytest.FixtureRequest, api_server: Cluster, api_namespace: Kubectl) -> Helm:
    return Helm(api_server.kubeconfig, api_namespace.namespace, request.param)


@pytest.fixture
def kind(api_server: Cluster) -> Iterator[None]:
    """The kind ResNetExperiment, for one test, which may have made it already."""
    kubectl = api_server.kubectl
    kubectl.run("apply", "--server-side", "--filename", str(ROOT / "manifests" / "crd" / f"{CRD}.yaml"))
    wait_for(lambda: kubectl.find("resnetexperiments") is not None, 30, "the kind is not served")
    yield
    kubectl.delete("crd", CRD)


@pytest.mark.usefixtures("kind")
def test_every_preset_is_what_an_api_server_takes(api_namespace: Kubectl) -> None:
    claims = {"checkpoints": {"create": True}, "dataset": {"create": True}}
    for name in EXAMPLES:
        for values in ({"preset": name}, {"preset": name, "claims": claims}):
            objects = template(EXPERIMENT, values, "--namespace", api_namespace.namespace, release=name)
            listed = yaml.safe_dump_all(objects)
            said = api_namespace.run("apply", "--server-side", "--dry-run=server", "--filename", "-", stdin=listed)
            assert said.count("serverside-applied") == len(objects)


def test_without_the_kind_an_experiment_says_what_to_install(helm: Helm) -> None:
    with pytest.raises(HelmError, match="does not know ResNetExperiments: install charts/resnet-operator first"):
        helm.install("digits", EXPERIMENT, {"preset": "digits"})


@pytest.mark.usefixtures("kind")
def test_an_upgrade_changes_what_may_change_names_what_may_not_and_leaves_a_stopped_one_stopped(
    helm: Helm, api_namespace: Kubectl
) -> None:
    helm.install("r50", EXPERIMENT, {"preset": "resnet50-4cards", "claims": {"checkpoints": {"create": True}}})
    api_namespace.patch("rnx", "r50", {"spec": {"suspend": True}})  # resnetctl stop
    kept = {"preset": "resnet50-4cards", "claims": {"checkpoints": {"create": True}}}
    helm.install("r50", EXPERIMENT, {**kept, "faultTolerance": {"maxRestarts": 3}})
    spec = api_namespace.get("rnx", "r50")["spec"]
    assert (spec["faultTolerance"]["maxRestarts"], spec["suspend"]) == (3, True)
    for change, said in (
        ({"training": {"epochs": 90}}, "training can't be changed"),
        ({"accelerator": {"cardsPerNode": 8}}, "accelerator can't be changed"),
        ({"checkpoint": {"path": "/other"}}, "checkpoint.path can't be changed"),
        ({"claims": {}}, "checkpoint.volume can't be changed"),
    ):
        with pytest.raises(HelmError, match=said):
            helm.install("r50", EXPERIMENT, {**kept, **change})
    helm.uninstall("r50")
    assert not api_namespace.find("rnx")
    assert [each["metadata"]["name"] for each in api_namespace.find("pvc")] == ["r50-checkpoints"]


def test_uninstalling_the_operator_leaves_the_kind_with_its_experiments_and_it_can_be_installed_again(
    helm: Helm, api_namespace: Kubectl
) -> None:
    helm.install(OPERATOR, OPERATOR, {})
    wait_for(lambda: api_namespace.find("rnx") == [], 30, "the kind is not served")
    helm.install("digits", EXPERIMENT, {"preset": "digits"})
    helm.uninstall(OPERATOR)
    try:
        assert [each["metadata"]["name"] for each in api_namespace.find("rnx")] == ["digits"]
        ours = f"app.kubernetes.io/instance={OPERATOR}"
        for what in (
            "deployment,service,serviceaccount,role,rolebinding,pdb,configmap",
            "clusterrole,clusterrolebinding",
        ):
            assert api_namespace.find(what, ours) == []
        helm.install(OPERATOR, OPERATOR, {})
        assert api_namespace.get("deployment", OPERATOR)
        helm.uninstall(OPERATOR)
    finally:
        api_namespace.delete("crd", CRD)


@pytest.mark.usefixtures("kind")
def test_a_kind_that_kubectl_installed_is_taken_over_when_asked(helm: Helm, api_namespace: Kubectl) -> None:
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        helm.install(OPERATOR, OPERATOR, {})
    helm.install(OPERATOR, OPERATOR, {}, "--take-ownership")
    annotations = api_namespace.get("crd", CRD)["metadata"]["annotations"]
    assert annotations["meta.helm.sh/release-name"] == OPERATOR
    helm.uninstall(OPERATOR)
    assert api_namespace.get("crd", CRD)


@pytest.mark.usefixtures("kind")
def test_the_rights_of_the_health_check_are_enough_for_it_and_for_nothing_else(api_namespace: Kubectl) -> None:
    objects = template(EXPERIMENT, {"preset": "digits"}, "--namespace", api_namespace.namespace, release="digits")
    api_namespace.apply(*(each for each in objects if each["kind"] in ("ServiceAccount", "Role", "RoleBinding")))
    account = f"--as=system:serviceaccount:{api_namespace.namespace}:digits-test"
    allowed = api_namespace.run("auth", "can-i", "--list", "--no-headers", account)
    ours = [line.split()[0] for line in allowed.splitlines() if "resnet" in line]
    assert ours == ["resnetexperiments.resnet-operator.io"]
    api_namespace.run("auth", "can-i", "get", "rnx/digits", account)


@pytest.mark.usefixtures("kind")
def test_what_the_readme_shows_is_taken(api_namespace: Kubectl, helm: Helm) -> None:
    text = (CHARTS / EXPERIMENT / "README.md").read_text()
    (volumes,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    api_namespace.within("").run(
        "apply", "--server-side", "--dry-run=server", "--filename", "-",
        stdin=volumes.replace("namespace: team", f"namespace: {api_namespace.namespace}"),
    )  # fmt: skip
    (commands,) = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    installs = [
        line.split()[2:] for line in commands.replace("\\\n", "").splitlines() if line.startswith("helm install")
    ]
    assert len(installs) == 2
    for release, chart, *flags in installs:
        helm.run("install", release, str(ROOT / chart), *flags)
        assert api_namespace.get("rnx", release)["spec"]["model"] == "resnet50"
        helm.uninstall(release)


@pytest.fixture
def prometheus_operator(api_server: Cluster) -> Iterator[None]:
    """The kinds of Prometheus Operator, for one test."""
    module = module_directory("prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
    files = [
        word
        for kind in MONITORING
        for word in ("-f", f"{module}/example/prometheus-operator-crd/monitoring.coreos.com_{kind.lower()}s.yaml")
    ]
    kubectl = api_server.kubectl
    kubectl.run("apply", "--server-side", *files)
    wait_for(lambda: kubectl.find(",".join(MONITORING)) == [], 30, "the kinds are not served")
    yield
    kubectl.run("delete", "--wait=false", *files)


@pytest.mark.usefixtures("prometheus_operator")
def test_prometheus_operator_is_found_and_its_kinds_take_what_is_made(helm: Helm, api_namespace: Kubectl) -> None:
    helm.install("mine", OPERATOR, {"crds": {"install": False}})
    try:
        for kind, name in zip(MONITORING, ("", "-training", ""), strict=True):
            made = api_namespace.get(kind, f"mine-resnet-operator{name}")
            # The server drops fields that the kind does not have.
            (asked,) = (
                each for each in template(OPERATOR, {"monitoring": EVERYTHING}, release="mine") if each["kind"] == kind
            )
            assert included(asked["spec"], made["spec"])
    finally:
        helm.uninstall("mine")


EVERYTHING = {"serviceMonitor": True, "podMonitor": True, "prometheusRule": True}


def included(asked: Any, made: Any) -> bool:
    """Whether `made` has all that `asked` has."""
    if isinstance(asked, dict):
        return all(key in made and included(value, made[key]) for key, value in asked.items())
    if isinstance(asked, list):
        return len(asked) == len(made) and all(map(included, asked, made))
    return bool(asked == made)
