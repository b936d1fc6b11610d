"""What is rendered is valid against the schema of the real PyTorchJob CRD, as an API server that refuses unknown
fields reads it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from controller.api import load, load_file
from controller.render import render_text
from tests.cluster.gomodule import module_directory

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
CRD = "manifests/base/crds/kubeflow.org_pytorchjobs.yaml"


def strict(schema: Any) -> Any:
    """A structural schema of Kubernetes that refuses the fields it does not name."""
    if isinstance(schema, list):
        return [strict(s) for s in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: {name: strict(s) for name, s in value.items()} if key == "properties" else strict(value)
        for key, value in schema.items()
    }
    if schema.get("x-kubernetes-int-or-string") is True:
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    free = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields") is True
    if isinstance(schema.get("properties"), dict) and not free:
        result["additionalProperties"] = False
    return result


def unique_keys(_: Any, keys: list[str], items: Any, schema: dict[str, Any]) -> Iterator[jsonschema.ValidationError]:
    """x-kubernetes-list-map-keys: no two items of the list have the same keys."""
    defaults = {k: s.get("default") for k, s in schema["items"]["properties"].items()}
    seen = [tuple(item.get(key, defaults[key]) for key in keys) for item in items]
    for twice in {s for s in seen if seen.count(s) > 1}:
        yield jsonschema.ValidationError(f"{twice} is listed twice")


@pytest.fixture(scope="module")
def validator() -> Any:
    root = module_directory("training-operator", "github.com/kubeflow/training-operator")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load((root / CRD).read_text(), Loader=loader)
    (version,) = [v for v in crd["spec"]["versions"] if v["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"])
    # The API server itself checks an object's metadata; these are the fields that we set.
    schema["properties"]["metadata"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
            "namespace": {"type": "string"},
            "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
            "ownerReferences": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["apiVersion", "kind", "name", "uid"],
                    "properties": {
                        **{k: {"type": "string"} for k in ("apiVersion", "kind", "name", "uid")},
                        **{k: {"type": "boolean"} for k in ("controller", "blockOwnerDeletion")},
                    },
                },
            },
        },
    }
    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"x-kubernetes-list-map-keys": unique_keys})
    return kind(schema)


@pytest.mark.parametrize("standalone", [False, True], ids=["plain", "standalone"])
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_a_rendered_example_is_a_valid_pytorchjob(validator: Any, path: Path, standalone: bool) -> None:
    text = render_text(load_file(path), 1, training_image="localhost/training:1", standalone=standalone)
    job = yaml.safe_load(text)
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(job)] == []
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")


EVERYTHING = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: all, namespace: team, uid: 0d5b1d0e-0000-4000-8000-000000000000}
spec:
  model: resnet34
  accelerator: {type: cuda, cardsPerNode: 8, resourceName: example.com/gpu, resourceUnit: card}
  nodes: 3
  dataset: {name: flowers, path: /data, volume: {emptyDir: {sizeLimit: 20Gi}}}
  training: {epochs: 2, batchSizePerDevice: 8, profiler: true}
  checkpoint: {volume: {persistentVolumeClaim: {claimName: c}}, path: /keep, everyMinutes: 5.0, keep: 2, adopt: true}
  faultTolerance: {maxRestarts: 0, nodeGracePeriodSeconds: 5}
  activeDeadlineSeconds: 60
  ttlSecondsAfterFinished: 0
  suspend: true
  queueName: queue
  priorityClassName: high
  image: registry.example.com/training@sha256:0000
  imagePullPolicy: Always
  podTemplate:
    resources: {requests: {cpu: 500m}, limits: {memory: 64Gi}}
    nodeSelector: {example.com/pool: a}
    tolerations: [{key: example.com/a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {operator: Exists}]
    sharedMemory: 128Gi
    hostNetwork: true
    hostIPC: true
    ports: {master: 20000, metrics: 20001, gang: 20002}
    env: [{name: A, value: b}, {name: EMPTY}]
    imagePullSecrets: [{name: pull}]
    securityContext: {runAsUser: 5, runAsGroup: 6, fsGroup: 7, supplementalGroups: [44]}
    terminationGracePeriodSeconds: 30
"""


@pytest.mark.parametrize("standalone", [False, True], ids=["plain", "standalone"])
def test_a_job_that_uses_every_field_is_valid(validator: Any, standalone: bool) -> None:
    text = render_text(load(EVERYTHING, "x"), 7, training_image="i", avoid_node="bad-node", standalone=standalone)
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(yaml.safe_load(text))] == []


def _misspelt(job: dict[str, Any], pod: dict[str, Any]) -> None:
    pod["spec"]["automountServiceAccountTokens"] = pod["spec"].pop("automountServiceAccountToken")


def _wrong_type(job: dict[str, Any], pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["ports"][0]["containerPort"] = "23456"


def _missing(job: dict[str, Any], pod: dict[str, Any]) -> None:
    del pod["spec"]["containers"]


def _unknown_in_run_policy(job: dict[str, Any], pod: dict[str, Any]) -> None:
    job["spec"]["runPolicy"]["deadline"] = 5


def _number_as_env_value(job: dict[str, Any], pod: dict[str, Any]) -> None:
    pod["spec"]["containers"][0]["env"][0]["value"] = 5


def _same_port_twice(job: dict[str, Any], pod: dict[str, Any]) -> None:
    ports = pod["spec"]["containers"][0]["ports"]
    ports.append({**ports[0], "name": "again"})


@pytest.mark.parametrize(
    "spoil",
    [_misspelt, _wrong_type, _missing, _unknown_in_run_policy, _number_as_env_value, _same_port_twice],
    ids=lambda f: f.__name__.strip("_"),
)
def test_a_job_that_is_wrong_is_refused(validator: Any, spoil: Any) -> None:
    job = yaml.safe_load(render_text(load(EVERYTHING, "x"), 1, training_image="i"))
    wrong = copy.deepcopy(job)
    spoil(wrong, wrong["spec"]["pytorchReplicaSpecs"]["Worker"]["template"])
    assert validator.is_valid(job)
    assert not validator.is_valid(wrong)
