"""The CustomResourceDefinition is what the types say, and what a structural schema may be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from controller.api import Experiment, Spec
from controller.api import schema as module
from controller.api.schema import structural_schema
from controller.api.training import SPEC_OPTIONS
from controller.crd import FILE, definition, text

COMMITTED = Path(__file__).parents[2] / "manifests" / "crd" / FILE
VERSION = definition()["spec"]["versions"][0]
SPEC = VERSION["schema"]["openAPIV3Schema"]["properties"]["spec"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield from nodes(schema[word], f"{path}[]")


ALL = dict(nodes(VERSION["schema"]["openAPIV3Schema"]))


def test_the_committed_definition_is_current() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == text(), "run `make docs`"
    assert yaml.safe_load(text()) == definition()


def test_every_string_list_and_map_is_bounded_and_nothing_has_two_types() -> None:
    for path, schema in ALL.items():
        assert not schema.keys() & {"anyOf", "oneOf", "allOf", "not", "$ref", "x-kubernetes-int-or-string"}, path
        if path not in ("", ".apiVersion", ".kind", ".metadata"):
            kind = schema["type"]
            bounded = {
                "string": {"maxLength", "enum"},
                "array": {"maxItems"},
                "object": {"maxProperties", "properties"},
            }
            assert kind not in bounded or schema.keys() & bounded[kind], path
            assert kind not in ("integer",) or {"minimum", "maximum"} <= schema.keys() or path.endswith("exitCode"), (
                path
            )


def test_no_rule_stands_anywhere_twice() -> None:
    for path, schema in ALL.items():
        rules = [each["rule"] for each in schema.get("x-kubernetes-validations", ())]
        assert len(set(rules)) == len(rules), path


def test_every_field_is_described() -> None:
    assert [
        path for path, schema in ALL.items() if not path.endswith(("[]", ".metadata")) and not schema.get("description")
    ] == []


def test_every_option_of_the_training_is_there_with_its_default() -> None:
    training = SPEC["properties"]["training"]
    assert set(training["properties"]) == set(SPEC_OPTIONS.values())
    assert training["required"] == ["batchSizePerDevice"]
    assert training["properties"]["epochs"]["default"] == 1
    assert "default" not in training["properties"]["learningRate"]


def test_defaults_are_those_of_the_types() -> None:
    given = {"model": "resnet18", "accelerator": {"type": "cpu"}, "dataset": {"name": "digits"}}
    spec = Spec.model_validate(given | {"training": {"batchSizePerDevice": 1}})
    for name in ("checkpoint", "faultTolerance", "podTemplate", "nodes", "suspend", "imagePullPolicy"):
        whole = spec.model_dump(by_alias=True, exclude_none=True, mode="json")[name]
        assert SPEC["properties"][name]["default"] == whole, name
    assert "default" not in SPEC["properties"]["accelerator"]["properties"]["devicesPerCard"]
    assert not [path for path, schema in ALL.items() if path.startswith(".status") and "default" in schema]


@pytest.mark.parametrize("field", ["model", "accelerator", "nodes", "dataset", "training", "checkpoint"])
def test_what_a_checkpoint_depends_on_is_immutable_by_a_rule_on_spec(field: str) -> None:
    rules = [rule["rule"] for rule in SPEC["x-kubernetes-validations"] if "oldSelf" in rule["rule"]]
    assert any(f"self.{field}" in rule for rule in rules)
    others = [path for path, schema in ALL.items() if "oldSelf" in str(schema.get("x-kubernetes-validations", ""))]
    assert others == [".spec"]


def test_the_columns_of_kubectl_get() -> None:
    columns = VERSION["additionalPrinterColumns"]
    narrow = [column["name"].upper() for column in columns if not column.get("priority")]
    assert narrow == ["MODEL", "DEVICES", "PHASE", "EPOCH", "TOP1", "IMG/S", "ETA", "RESTARTS", "AGE"]
    assert [c["name"].upper() for c in columns if c.get("priority")] == ["LOSS", "BEST", "JOB", "MESSAGE"]
    for column in columns:
        assert column["jsonPath"] == ".metadata.creationTimestamp" or column["jsonPath"] in ALL
        assert column["type"] in ("date", ALL.get(column["jsonPath"], {}).get("type"))
    names = definition()["spec"]["names"]
    assert (names["shortNames"], names["categories"]) == (["rnx"], ["all"])
    assert VERSION["subresources"] == {"status": {}}


@pytest.mark.parametrize("annotation", [str, list[int], int | str], ids=["string", "list", "union"])
def test_a_type_that_kubernetes_would_refuse_is_refused_here(annotation: Any, monkeypatch: Any) -> None:
    raw = Experiment.model_json_schema(by_alias=True)
    raw["properties"]["spec"] = TypeAdapter(annotation).json_schema()
    monkeypatch.setattr(module.Experiment, "model_json_schema", lambda **_: raw)
    with pytest.raises(ValueError, match="spec"):
        structural_schema()
