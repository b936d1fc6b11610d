"""charts/resnet-operator, by both versions of Helm: what it renders and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.options import parse
from tests.cluster.helm import CHARTS, HelmError, Program, template
from tests.cluster.kubectl import Kubectl, Object
from tests.integration.charts import BOARD, CRD, MONITORING, OPERATOR, PROGRAMS, ROOT, RULES, one, with_content

# On a new machine Helm and Kubernetes are built first.
pytestmark = pytest.mark.timeout(1500)
HELMS_OWN = {"app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_the_operators_chart_makes_is_what_manifests_install_has(program: Program, tmp_path: Path) -> None:
    text = Kubectl(tmp_path / "none").run("kustomize", str(ROOT / "manifests" / "install"))
    # kustomize writes numbers its own way (1e-09, which YAML takes for a word).
    kind = yaml.safe_load((ROOT / "manifests" / "crd" / f"{CRD}.yaml").read_text())
    others = [each for each in yaml.safe_load_all(text) if each["kind"] != kind["kind"]]
    ours = {_name(each): _without_helms_labels(each) for each in [kind, *others]}
    named = ("--namespace", OPERATOR)
    made = template(OPERATOR, {}, *named, release=OPERATOR, program=program)
    theirs = {_name(each): _without_helms_labels(each) for each in made}
    assert ours.pop(("Namespace", OPERATOR))
    assert theirs.keys() - ours.keys() == {("PodDisruptionBudget", OPERATOR)} | {
        key for key in theirs if key[0] == "ConfigMap"
    }
    assert {key: theirs[key] for key in ours} == ours


def _name(document: Object) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]


def _without_helms_labels(document: Object) -> Object:
    """Without the labels that only Helm sets, and those that only say whose an object is."""
    labels = document["metadata"].pop("labels", {})
    whose = HELMS_OWN | {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    document["metadata"]["labels"] = {key: value for key, value in labels.items() if key not in whose}
    return document


RUNTIME = "ClusterTrainingRuntime"


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_runtime_of_trainjobs_is_made_where_its_kind_is_and_is_that_of_manifests_trainer(program: Program) -> None:
    theirs = yaml.safe_load((ROOT / "manifests" / "trainer" / "runtime.yaml").read_text())

    def runtimes(values: dict[str, Any], *known: str, release: str = OPERATOR) -> list[Object]:
        words = [word for kind in known for word in ("--api-versions", kind)]
        made = template(OPERATOR, {"trainer": values}, *words, release=release, program=program)
        return [each for each in made if each["kind"] == RUNTIME]

    kind = f"trainer.kubeflow.org/v1alpha1/{RUNTIME}"
    assert runtimes({}) == runtimes({"runtime": False}, kind) == []
    (made,) = runtimes({}, kind)
    assert _without_helms_labels(made) == _without_helms_labels(theirs)
    (other,) = runtimes({"runtime": True}, release="mine")
    flags = parse(_container(template(OPERATOR, {}, release="mine", program=program))["args"])
    assert other["metadata"]["name"] == flags.training_runtime == "mine-resnet-operator"
    assert parse([]).training_runtime == made["metadata"]["name"]


@pytest.mark.parametrize("program", PROGRAMS)
def test_for_one_namespace_the_operator_has_a_role_there_and_no_rights_elsewhere(program: Program) -> None:
    values = {"watchNamespace": "team", "rbac": {"userRoles": False}}
    made = template(OPERATOR, values, "--namespace", "ops", release="mine", program=program)
    assert not [each for each in made if each["kind"].startswith("Cluster")]
    roles = {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in made if each["kind"] == "Role"}
    assert set(roles) == {("team", "mine-resnet-operator"), ("ops", "mine-resnet-operator-leader")}
    everywhere = template(OPERATOR, {}, program=program)
    cluster = next(each for each in everywhere if _name(each) == ("ClusterRole", "r-resnet-operator"))
    assert roles["team", "mine-resnet-operator"]["rules"] == cluster["rules"]
    for binding in (each for each in made if each["kind"] == "RoleBinding"):
        assert binding["roleRef"]["kind"] == "Role"
        assert binding["roleRef"]["name"] == binding["metadata"]["name"]
        assert binding["subjects"][0]["namespace"] == "ops"
    options = parse(_container(made)["args"])
    assert (options.namespace, options.lease_name) == ("team", "mine-resnet-operator")


def _container(objects: list[Object]) -> Object:
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return container


def test_the_values_become_flags_that_the_operator_knows() -> None:
    values = {
        "allowHostNetwork": True, "allowHostIPC": True, "extraArgs": ["--progress-seconds=30"],
        "trainingImage": {"repository": "registry.example.com/training", "tag": "7"},
        "image": {"repository": "registry.example.com/operator", "pullPolicy": "Always"},
        "imagePullSecrets": [{"name": "pull"}], "podLabels": {"a": "b"},
    }  # fmt: skip
    made = template(OPERATOR, values)
    container = _container(made)
    options = parse(container["args"])
    assert options.policy.host_network
    assert options.policy.host_ipc
    assert options.timing.progress_interval == 30
    assert options.training_image == "registry.example.com/training:7"
    assert re.fullmatch(r"registry\.example\.com/operator:\d+\.\d+\.\d+", container["image"])
    assert container["imagePullPolicy"] == "Always"
    pod = one(made, "Deployment")["spec"]["template"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["metadata"]["labels"]["a"] == "b"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 0}, "/replicas"),
        ({"image": None}, "'image'"),
        ({"replica": 1}, "'replica' not allowed"),
        ({"image": {"repo": "x"}}, "/image.*'repo' not allowed"),
        ({"monitoring": {"podMonitor": "yes"}}, "/monitoring/podMonitor"),
        ({"watchNamespace": "A"}, "/watchNamespace"),
        ({"extraArgs": ["progress"]}, "/extraArgs/0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_of_the_operator_is_refused_by_its_name(
    values: dict[str, Any], said: str, program: Program
) -> None:
    with pytest.raises(HelmError, match=said):
        template(OPERATOR, values, program=program)


def test_every_value_of_the_operator_stands_in_its_schema() -> None:
    def walk(values: dict[str, Any], schema: dict[str, Any], path: str) -> None:
        assert values.keys() == schema["properties"].keys() - {"global"}, path
        assert schema["additionalProperties"] is False, path
        for name, value in values.items():
            if isinstance(value, dict) and "properties" in schema["properties"][name]:
                walk(value, schema["properties"][name], f"{path}.{name}")

    folder = CHARTS / OPERATOR
    walk(
        yaml.safe_load((folder / "values.yaml").read_text()),
        json.loads((folder / "values.schema.json").read_text()),
        "",
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_dashboards_and_rules_lie_in_the_cluster_as_they_lie_in_their_files(tmp_path: Path, program: Program) -> None:
    values = {
        "monitoring": {"prometheusRule": True, "labels": {"release": "stack"}},
        "dashboards": {"annotations": {"grafana_folder": "ResNet"}},
    }
    chart = with_content(tmp_path)
    made = template(chart, values, program=program)
    board = one(made, "ConfigMap")
    assert board["data"] == {"one.json": BOARD}
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert board["metadata"]["annotations"] == {"grafana_folder": "ResNet"}
    rules = one(made, "PrometheusRule")
    assert rules["spec"]["groups"] == [RULES, {**RULES, "name": "two"}]
    assert rules["metadata"]["labels"]["release"] == "stack"
    off = template(chart, {"dashboards": {"enabled": False}}, program=program)
    assert "ConfigMap" not in {each["kind"] for each in off}


def test_every_dashboard_and_every_rule_of_the_chart_is_installed() -> None:
    made = template(OPERATOR, {"monitoring": {"prometheusRule": True}})
    boards = [each["data"] for each in made if each["kind"] == "ConfigMap"]
    files = sorted((CHARTS / OPERATOR / "dashboards").glob("*.json"))
    assert boards == [{each.name: each.read_text(encoding="utf-8")} for each in files]
    groups = [
        group
        for each in sorted((CHARTS / OPERATOR / "rules").glob("*.yaml"))
        for group in yaml.safe_load(each.read_text(encoding="utf-8"))["groups"]
    ]
    assert one(made, "PrometheusRule")["spec"]["groups"] == groups


@pytest.mark.parametrize("program", PROGRAMS)
def test_monitors_are_made_where_the_cluster_has_their_kind_or_where_they_are_asked_for(
    tmp_path: Path, program: Program
) -> None:
    chart = with_content(tmp_path)

    def kinds(values: dict[str, Any], *known: str) -> set[str]:
        words = [word for kind in known for word in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")]
        made = template(chart, {"monitoring": values}, *words, program=program)
        return {each["kind"] for each in made} & set(MONITORING)

    assert kinds({}) == set()
    assert kinds({}, *MONITORING) == set(MONITORING)
    assert kinds({}, "PodMonitor") == {"PodMonitor"}
    assert kinds({"podMonitor": True}) == {"PodMonitor"}
    assert kinds({"podMonitor": False, "prometheusRule": False}, *MONITORING) == {"ServiceMonitor"}


def test_monitors_keep_the_experiments_namespace_and_find_pods_and_service() -> None:
    everything = {"serviceMonitor": True, "podMonitor": True}
    made = template(OPERATOR, {"monitoring": everything})
    service, monitor, pods = (one(made, kind) for kind in ("Service", "ServiceMonitor", "PodMonitor"))
    (endpoint,), (scraped,) = monitor["spec"]["endpoints"], pods["spec"]["podMetricsEndpoints"]
    assert endpoint["honorLabels"] is scraped["honorLabels"] is True
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert pods["spec"]["namespaceSelector"] == {"any": True}
    assert pods["spec"]["selector"]["matchExpressions"][0]["key"] == "resnet-operator.io/experiment"
    of_one = template(OPERATOR, {"monitoring": everything, "watchNamespace": "team"})
    assert one(of_one, "PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["team"]}
