"""The types of the API as one structural OpenAPI v3 schema, as a CustomResourceDefinition wants it. PURE.

pydantic writes JSON Schema; what Kubernetes does not take of it is rewritten: references are filled in, `anyOf` with
null becomes an optional field, a `const` an enum, and patterns of keys become rules.
"""

from __future__ import annotations

from typing import Any

from controller.api.cel import RULES, Rule, key_rules
from controller.api.experiment import Experiment

Schema = dict[str, Any]

# List -> the fields by which its items are told apart: the API server refuses the same one twice.
_LIST_KEYS = {"env": ["name"], "conditions": ["type"]}
_KEPT = {
    "description", "enum", "format", "maximum", "minimum", "maxItems", "maxLength", "minLength", "maxProperties",
    "pattern", "required", "type",
}  # fmt: skip
_DROPPED = {
    "$defs", "additionalProperties", "anyOf", "const", "default", "items", "patternProperties", "properties",
    "propertyNames", "title",
}  # fmt: skip


def structural_schema() -> Schema:
    """The schema of one ResNetExperiment.

    Raises:
        ValueError: a type holds what no structural schema can say, or a string, list or map without a bound.
    """
    raw = Experiment.model_json_schema(by_alias=True)
    definitions = raw["$defs"]
    text: Schema = {"type": "string"}
    standard = {
        "apiVersion": text | {"description": "version of this kind: resnet-operator.io/v1alpha1"},
        "kind": text | {"description": "ResNetExperiment"},
        "metadata": {"type": "object"},  # the API server describes it itself
    }
    return {
        "type": "object",
        "description": Experiment.__doc__,
        "required": ["spec"],
        "x-kubernetes-validations": _validations(RULES["Experiment"]),
        "properties": standard
        | {
            name: _structural(raw["properties"][name], definitions, name, with_defaults=name == "spec")
            for name in ("spec", "status")
        },
    }


def _structural(schema: Schema, definitions: Schema, path: str, *, with_defaults: bool) -> Schema:
    schema, rules = _resolved(schema, definitions, path)
    unknown = schema.keys() - _KEPT - _DROPPED
    if unknown:
        raise ValueError(f"{path}: no structural schema has {', '.join(sorted(unknown))}")
    result = {key: value for key, value in schema.items() if key in _KEPT}
    if "const" in schema:
        result["enum"] = [schema["const"]]
    if schema.get("type") == "integer":
        result["format"] = "int64"
    if "properties" in schema:
        result["properties"] = {
            name: _structural(inner, definitions, f"{path}.{name}", with_defaults=with_defaults)
            for name, inner in schema["properties"].items()
        }
    elif schema.get("type") == "object":
        value, key = _map_value(schema, path)
        result["additionalProperties"] = _structural(value, definitions, f"{path}.*", with_defaults=with_defaults)
        rules = (*rules, *key_rules(key, schema["propertyNames"]["maxLength"]))
    if "items" in schema:
        result["items"] = _structural(schema["items"], definitions, f"{path}[]", with_defaults=with_defaults)
        name = path.rpartition(".")[2]
        result["x-kubernetes-list-type"] = "map" if name in _LIST_KEYS else "atomic"
        if name in _LIST_KEYS:
            result["x-kubernetes-list-map-keys"] = _LIST_KEYS[name]
    if with_defaults and schema.get("default") is not None:
        # In full: the API server holds a default against the rules before it would fill in what is inside.
        inside = {name: inner["default"] for name, inner in result.get("properties", {}).items() if "default" in inner}
        result["default"] = inside if "properties" in schema else schema["default"]
    if rules and with_defaults:
        result["x-kubernetes-validations"] = _validations(rules)
    _bounded(result, path)
    return result


def _resolved(schema: Schema, definitions: Schema, path: str) -> tuple[Schema, tuple[Rule, ...]]:
    """The schema with its reference filled in and without "or null", and the rules of the type that it refers to."""
    rules: tuple[Rule, ...] = ()
    while "$ref" in schema or "anyOf" in schema:
        outer = {key: value for key, value in schema.items() if key not in ("$ref", "anyOf")}
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            inner, rules = definitions[name], RULES.get(name, ())
        else:
            inner, *others = (each for each in schema["anyOf"] if each != {"type": "null"})
            if others:
                raise ValueError(f"{path}: is of more than one type, which no structural schema can say")
        schema = {**inner, **outer}
    return schema, rules


def _map_value(schema: Schema, path: str) -> tuple[Schema, str]:
    """The schema of a map's values, and the pattern of its keys."""
    if len(schema.get("patternProperties", {})) != 1:
        raise ValueError(f"{path}: the keys of a map need one pattern")
    ((key, value),) = schema["patternProperties"].items()
    return value, key


def _bounded(schema: Schema, path: str) -> None:
    bound = {"string": "maxLength", "array": "maxItems"}.get(schema["type"])
    if schema["type"] == "object" and "additionalProperties" in schema:
        bound = "maxProperties"
    if bound is not None and bound not in schema and "enum" not in schema:
        raise ValueError(f"{path}: needs {bound}: the API server refuses rules whose cost has no bound")


def _validations(rules: tuple[Rule, ...]) -> list[Schema]:
    return [{"rule": rule, "message": message} for rule, message in rules]
