"""charts/resnet-experiment, by both versions of Helm: what it renders and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from controller.api.reading import load
from controller.render import render_job
from tests.cluster.helm import HelmError, Program, lint, template
from tests.integration.charts import EXAMPLES, EXPERIMENT, OPERATOR, PROGRAMS, ROOT, one

# On a new machine Helm and Kubernetes are built first.
pytestmark = pytest.mark.timeout(1500)


def spec_of(values: dict[str, Any], *more: str, release: str = "r", program: Program = "helm") -> Any:
    return one(template(EXPERIMENT, values, *more, release=release, program=program), "ResNetExperiment")["spec"]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("chart", "values"), [(OPERATOR, {}), (EXPERIMENT, {}), *((EXPERIMENT, {"preset": name}) for name in EXAMPLES)]
)
def test_lint_finds_nothing(chart: str, values: dict[str, Any], program: Program) -> None:
    assert "0 chart(s) failed" in lint(chart, values, program)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_a_preset_is_its_example_down_to_the_job(name: str, program: Program) -> None:
    made = one(template(EXPERIMENT, {"preset": name}, release=name, program=program), "ResNetExperiment")
    assert made["spec"] == EXAMPLES[name]
    made["metadata"] = {"name": made["metadata"]["name"]}
    example = (ROOT / "examples" / f"{name}.yaml").read_text()
    jobs = [render_job(load(text, "experiment"), 1, training_image="image") for text in (example, yaml.safe_dump(made))]
    assert jobs[0] == jobs[1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_values_change_a_preset_and_null_leaves_it_as_it_is(program: Program) -> None:
    values = {
        "preset": "resnet50-4cards",
        "training": {"epochs": 3, "seed": 2_147_483_647, "learningRate": 1e-7, "export": False, "ema": None},
        "dataset": {"volume": {"persistentVolumeClaim": {"claimName": "mine"}}},
        "checkpoint": {"volume": {"emptyDir": {}}},
        "podTemplate": {"nodeSelector": {"cards": "8"}, "env": [{"name": "A", "value": "{{ .Release }}"}]},
        "suspend": None,
    }
    changed = dict(EXAMPLES["resnet50-4cards"])
    changed["training"] = changed["training"] | {
        "epochs": 3, "seed": 2_147_483_647, "learningRate": 1e-7, "export": False,
    }  # fmt: skip
    volume = {"persistentVolumeClaim": {"claimName": "mine", "readOnly": True}}
    changed["dataset"] = changed["dataset"] | {"volume": volume}
    changed["checkpoint"] = {"path": "/checkpoints", "volume": {"emptyDir": {}}}
    changed["podTemplate"] = values["podTemplate"]
    made = spec_of(values, program=program)
    made["training"]["learningRate"] = float(made["training"]["learningRate"])
    assert made == changed


@pytest.mark.parametrize("program", PROGRAMS)
def test_flags_alone_make_an_experiment(program: Program) -> None:
    flags = ["model=resnet50", "accelerator.type=sdaa", "accelerator.cardsPerNode=4", "dataset.name=synthetic"]
    words = [word for flag in (*flags, "training.batchSizePerDevice=64") for word in ("--set", flag)]
    assert spec_of({}, *words, program=program) == {
        "model": "resnet50",
        "accelerator": {"type": "sdaa", "cardsPerNode": 4},
        "dataset": {"name": "synthetic"},
        "training": {"batchSizePerDevice": 64},
    }


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "resnet51"}, "/model.*must be one of 'resnet18'"),
        ({"training": {"epochs": "three"}}, "/training/epochs.*want null or integer"),
        ({"training": {"epochs": 0}}, "/training/epochs.*minimum"),
        ({"training": {"bath": 3}}, "/training.*'bath' not allowed"),
        ({"trainig": {}}, "'trainig' not allowed"),
        ({"preset": "resnet50"}, "/preset.*must be one of 'digits'"),
        ({"podTemplate": {"resources": {"requests": {"cpu": 2}}}}, "/podTemplate/resources/requests/cpu.*want string"),
        ({"podTemplate": {"env": [{"value": "x"}]}}, "/podTemplate/env/0.*'name'"),
        ({"checkpoint": {"path": "here"}}, "/checkpoint/path.*pattern"),
        ({"image": "a b"}, "/image.*pattern"),
        ({"networkPolicy": None}, "'networkPolicy'"),
        ({"claims": {"checkpoint": {}}}, "/claims.*'checkpoint' not allowed"),
        ({"claims": {"dataset": {"size": "much"}}}, "/claims/dataset/size.*pattern"),
        (
            {"claims": {"checkpoints": {"create": True}}, "checkpoint": {"volume": {"emptyDir": {}}}},
            "checkpoint.volume",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_value_is_refused_by_its_name(values: dict[str, Any], said: str, program: Program) -> None:
    with pytest.raises(HelmError, match=said):
        template(EXPERIMENT, {"preset": "digits", **values}, program=program)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("gap", ["model", "accelerator.type", "dataset.name", "training.batchSizePerDevice"])
def test_what_is_missing_is_named(gap: str, program: Program) -> None:
    values: dict[str, Any] = json.loads(json.dumps(EXAMPLES["digits"]))
    outer, _, inner = gap.rpartition(".")
    del (values[outer] if outer else values)[inner]
    with pytest.raises(HelmError, match=f"{gap} is required: set it, or a preset"):
        template(EXPERIMENT, values, program=program)


@pytest.mark.parametrize("name", ["4cards", "a" * 41, "r50-", "R50", "r.50"])
def test_a_release_that_can_not_name_an_experiment_is_refused(name: str) -> None:
    with pytest.raises(HelmError, match="name"):
        template(EXPERIMENT, {"preset": "digits"}, release=name)
    assert template(EXPERIMENT, {"preset": "digits"}, release="a" * 40)


@pytest.mark.parametrize("program", PROGRAMS)
def test_claims_are_made_for_the_release_and_kept(program: Program) -> None:
    claims = {"checkpoints": {"create": True, "storageClassName": "nfs", "size": "5Gi"}, "dataset": {"create": True}}
    objects = template(EXPERIMENT, {"preset": "resnet50-2nodes", "claims": claims}, release="r50", program=program)
    made = {each["metadata"]["name"]: each for each in objects if each["kind"] == "PersistentVolumeClaim"}
    assert set(made) == {"r50-checkpoints", "r50-dataset"}
    assert {each["metadata"]["annotations"]["helm.sh/resource-policy"] for each in made.values()} == {"keep"}
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "5Gi"}}}
    assert made["r50-checkpoints"]["spec"] == {**spec, "storageClassName": "nfs"}
    assert "storageClassName" not in made["r50-dataset"]["spec"]
    experiment = one(objects, "ResNetExperiment")["spec"]
    assert experiment["checkpoint"]["volume"]["persistentVolumeClaim"] == {"claimName": "r50-checkpoints"}
    # The preset's claim is mounted read-only: so is the one in its place.
    wanted = {"claimName": "r50-dataset", "readOnly": True}
    assert experiment["dataset"]["volume"]["persistentVolumeClaim"] == wanted


def test_the_network_policy_names_own_pods_dns_and_who_reads_the_metrics_and_nothing_else() -> None:
    prometheus = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    values = {"preset": "resnet50-2nodes", "networkPolicy": {"metricsFrom": [prometheus]}}
    policy = one(template(EXPERIMENT, values, release="r50"), "NetworkPolicy")["spec"]
    own = {"podSelector": {"matchLabels": {"resnet-operator.io/experiment": "r50"}}}
    assert policy == {
        **own,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [own]}, {"from": [prometheus], "ports": [{"port": "metrics", "protocol": "TCP"}]}],
        "egress": [{"to": [own]}, {"ports": [{"port": 53, "protocol": each} for each in ("UDP", "TCP")]}],
    }
    made = {"kind": "ResNetExperiment", "apiVersion": "resnet-operator.io/v1alpha1", "metadata": {"name": "r50"}}
    text = yaml.safe_dump({**made, "spec": EXAMPLES["resnet50-2nodes"]})
    job = render_job(load(text, "experiment"), 1, training_image="image")
    pod = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]
    assert own["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert "metrics" in {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    off = template(EXPERIMENT, {"preset": "digits", "networkPolicy": {"enabled": False}})
    assert "NetworkPolicy" not in {each["kind"] for each in off}
