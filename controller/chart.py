"""What of charts/ is made from the code: `python -m controller.chart .` writes it, as `make docs` does.

The values of charts/resnet-experiment are the spec of an experiment, each of them null: what is left null is left out.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from app.version import version
from controller import crd
from controller.api.base import QUANTITY
from controller.api.schema import Schema, structural_schema

EXPERIMENT = "charts/resnet-experiment"
OPERATOR = "charts/resnet-operator"
CHARTS = (EXPERIMENT, OPERATOR, "charts/resnet-device-plugin")
_MADE = "Made from controller/api by `make docs`; a test fails where it is not current."
_WIDTH = 120
_KEPT = {
    "description", "enum", "maximum", "minimum", "maxItems", "maxLength", "minLength", "maxProperties", "pattern",
}  # fmt: skip
_TEXT: Schema = {"type": "string"}
_SWITCH: Schema = {"type": "boolean"}


def _object(**properties: Schema) -> Schema:
    """An object with all of these and no other fields: what is set to null would be missing where it is read."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(properties),
        "properties": properties,
    }


def _claim() -> Schema:
    modes = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]
    made = _object(
        create=_SWITCH,
        accessModes={"type": "array", "minItems": 1, "items": {"enum": modes}},
        size={"type": "string", "pattern": QUANTITY},
    )
    made["properties"]["storageClassName"] = {"type": ["string", "null"]}
    return made


def _new_claim(size: str) -> dict[str, Any]:
    return {"create": False, "storageClassName": None, "accessModes": ["ReadWriteMany"], "size": size}


def _anywhere(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app.kubernetes.io/name": name}}}


def _own(presets: list[str]) -> list[tuple[str, str, Any, Schema]]:
    """The values that are not of the spec: name, comment, default, schema."""
    policies = ["IfNotPresent", "Always", "Never"]
    return [
        (
            "preset",
            f"A row of the tables to begin with: {', '.join(presets)}. What is set below changes it.",
            None,
            {"enum": [*presets, None]},
        ),
        (
            "claims",
            "Claims to make, named <release>-checkpoints and <release>-dataset, in the place of the volumes of the "
            "spec. storageClassName null: the cluster's default; empty: of a volume that is there. `helm uninstall` "
            "keeps them.",
            {"checkpoints": _new_claim("20Gi"), "dataset": _new_claim("200Gi")},
            _object(checkpoints=_claim(), dataset=_claim()),
        ),
        (
            "networkPolicy",
            "The pods reach each other and DNS, and are reached at their metrics port by these peers; nothing else.",
            {"enabled": True, "metricsFrom": [_anywhere("resnet-operator"), _anywhere("prometheus")]},
            _object(enabled=_SWITCH, metricsFrom={"type": "array", "minItems": 1, "items": {"type": "object"}}),
        ),
        (
            "test",
            "`helm test` waits so long for the experiment to train. The image is the operator's; an empty tag is the "
            "chart's appVersion.",
            {
                "image": {
                    "repository": "localhost/resnet-operator-operator", "tag": "", "pullPolicy": policies[0],
                },
                "waitSeconds": 240,
            },
            _object(
                image=_object(repository=_TEXT, tag=_TEXT, pullPolicy={"enum": policies}),
                waitSeconds={"type": "integer", "minimum": 0, "maximum": 86_400},
            ),
        ),
    ]  # fmt: skip


def files(examples: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Path below the repository -> content, from the specs of the examples by their names."""
    spec = structural_schema()["properties"]["spec"]
    own = _own(list(examples))
    return {
        f"{OPERATOR}/files/resnetexperiments.yaml": crd.text(),
        f"{EXPERIMENT}/presets.yaml": f"# The specs of examples/. {_MADE}\n{crd.dump(dict(examples))}",
        f"{EXPERIMENT}/values.schema.json": json.dumps(_schema(spec, own), indent=1, ensure_ascii=False) + "\n",
        f"{EXPERIMENT}/values.yaml": "\n".join([*_comment(_MADE), *_values(spec, own)]) + "\n",
    }


def of_version(chart: str, wanted: str) -> str:
    """A Chart.yaml with that version as its own and as its application's."""
    return re.sub(r"^(version|appVersion): .*$", rf"\1: {wanted}", chart, flags=re.MULTILINE)


def read_examples(folder: Path) -> dict[str, Any]:
    """Name -> spec of each file of examples/, as it is written there."""
    found = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    return {each["metadata"]["name"]: each["spec"] for each in found}


def _schema(spec: Schema, own: list[tuple[str, str, Any, Schema]]) -> Schema:
    """JSON Schema of the values. `required` is left to the template, since a preset may give what values leave out."""
    properties = {name: {"description": comment, **schema} for name, comment, _, schema in own}
    properties["global"] = {"type": "object"}  # Helm's own
    properties |= {name: _optional(inner) for name, inner in spec["properties"].items()}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "description": f"Values of the chart: the spec of a ResNetExperiment, and a few of its own. {_MADE}",
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, _, default, _ in own if default is not None],
        "properties": properties,
    }


def _optional(schema: Schema) -> Schema:
    """A field of the spec, or null."""
    result = _plain(schema, _optional)
    if "enum" in result:
        result["enum"] = [*result["enum"], None]
    return result | {"type": [schema["type"], "null"]}


def _exactly(schema: Schema) -> Schema:
    """A part of a list or a map, where null is no way to leave something out."""
    required = {"required": schema["required"]} if "required" in schema else {}
    return _plain(schema, _exactly) | {"type": schema["type"]} | required


def _plain(schema: Schema, inside: Any) -> Schema:
    result = {key: value for key, value in schema.items() if key in _KEPT}
    if "properties" in schema:
        result["properties"] = {name: inside(inner) for name, inner in schema["properties"].items()}
        result["additionalProperties"] = False
    for word in ("items", "additionalProperties"):
        if word in schema:
            result[word] = _exactly(schema[word])
    return result


def _values(spec: Schema, own: list[tuple[str, str, Any, Schema]]) -> Iterator[str]:
    for name, comment, default, _ in own:
        yield ""
        yield from _comment(comment)
        yield from crd.dump({name: default}).splitlines()
    yield ""
    yield from _comment("The spec. null: as the preset has it, else the default, which stands in brackets.")
    yield from _fields(spec, "")


def _fields(schema: Schema, indent: str) -> Iterator[str]:
    for name, inner in schema["properties"].items():
        yield from _comment(_described(inner), indent)
        if "properties" in inner and name != "volume":  # of a volume only one field may be there
            yield f"{indent}{name}:"
            yield from _fields(inner, indent + "  ")
        else:
            yield f"{indent}{name}: null"


def _described(schema: Schema) -> str:
    text = str(schema["description"])
    if "enum" in schema:
        text += f": {' | '.join(schema['enum'])}"
    if "properties" in schema:
        return text
    return text + (f" [{json.dumps(schema['default'])}]" if "default" in schema else "")


def _comment(text: str, indent: str = "") -> list[str]:
    head = f"{indent}# "
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=head, break_on_hyphens=False)


def main(root: Path) -> None:
    """Writes the files into a clone of the repository."""
    for path, text in files(read_examples(root / "examples")).items():
        (root / path).write_text(text, encoding="utf-8")
    for each in CHARTS:
        facts = root / each / "Chart.yaml"
        facts.write_text(of_version(facts.read_text(encoding="utf-8"), version()), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
