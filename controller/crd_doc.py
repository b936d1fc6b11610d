"""docs/crd.md, made from the definition of the kind: `python -m controller.crd_doc` prints it (`make docs`)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator

from controller.api.base import API_VERSION, KIND, WORDS
from controller.api.schema import Schema
from controller.crd import COLUMNS, definition

IMMUTABLE = " can't be changed"
_HEAD = f"""# {KIND}

Made from `controller/api` by `make docs`; a test fails where it is not current. `{API_VERSION}`, short name
`rnx`, namespaced. What the fields do together is in [architecture.md](architecture.md#4-the-experiment), files to begin
with are in [examples.md](examples.md), and `kubectl explain rnx.spec` says the same as this page.

An unknown field is refused. "Must" lists what the API server checks besides the tables; `resnetctl validate -f FILE`
checks all of it, without a cluster, and names the nearest field where one is misspelt.

`kubectl get rnx` shows {{narrow}}; `-o wide` adds {{wide}}.
"""


def markdown() -> str:
    """The whole page."""
    names = {wide: ", ".join(name.upper() for name, _, _, last in COLUMNS if last == wide) for wide in (False, True)}
    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    parts = [_HEAD.format(narrow=names[False], wide=names[True])]
    for name in ("spec", "status"):
        parts += _sections(name, schema["properties"][name], {}, with_defaults=name == "spec")
    return "\n".join(parts)


def _sections(path: str, schema: Schema, told: dict[str, str], *, with_defaults: bool) -> Iterator[str]:
    """The section of an object and of those in it; `told` has the path of each that has one: what is alike has one."""
    required = schema.get("required", ())
    rows = []
    inner: list[tuple[str, Schema]] = []
    for name, field in schema["properties"].items():
        whole = _item(field)
        if "properties" in whole:
            place = told.setdefault(json.dumps(whole["properties"]), f"{path}.{name}{'[]' if 'items' in field else ''}")
            if place.removesuffix("[]") == f"{path}.{name}":
                inner.append((place, whole))
            kind = f"[{'list of objects' if 'items' in field else 'object'}](#{_anchor(place)})"
        else:
            kind = _type(field)
        default = "required" if name in required else _default(field)
        cells = [f"`{name}`", kind, *([default] if with_defaults else []), _allowed(field)]
        rows.append([*cells, _plain(field["description"])])
    titles = ["field", "type", *(["default"] if with_defaults else []), "allowed", "what it is"]
    yield f"{'#' * (2 if '.' not in path else 3)} {path}\n"
    yield _table(titles, rows)
    rules = [each["message"] for each in schema.get("x-kubernetes-validations", ())]
    if rules:
        yield "Must:\n\n" + "".join(f"- {_plain(rule)}\n" for rule in _folded(rules))
    for name, field in inner:
        yield from _sections(name, field, told, with_defaults=with_defaults)


def _folded(rules: list[str]) -> list[str]:
    """Rules in a row that say the same of several fields, as one."""
    subjects: dict[str, list[str]] = {}
    for rule in rules:
        subject, found, said = rule.partition(IMMUTABLE)
        subjects.setdefault(found + said if found else rule, []).append(subject)
    return [f"{', '.join(names)}{said}" if said not in names else said for said, names in subjects.items()]


def _anchor(path: str) -> str:
    return re.sub(r"[^a-z0-9-]", "", path.lower())


def _item(schema: Schema) -> Schema:
    found: Schema = schema.get("items", schema)
    return found


def _type(schema: Schema) -> str:
    if "items" in schema:
        return f"list of {schema['items']['type']}s"
    return "map of strings" if "additionalProperties" in schema else str(schema["type"])


def _default(schema: Schema) -> str:
    # Of an object each field has its own.
    if "default" not in schema or "properties" in schema:
        return ""
    return f"`{json.dumps(schema['default'])}`"


def _allowed(schema: Schema) -> str:
    schema = schema.get("items") or schema.get("additionalProperties") or schema
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    if "pattern" in schema:
        return _plain(WORDS[schema["pattern"]].removeprefix("must be ").replace("must not hold", "without"))
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is None:
        return "an RFC 3339 time" if schema.get("format") == "date-time" else ""
    # 2^53 is what JSON can carry: no bound of its own.
    return f"from {_number(low)}" if high in (None, 2**53) else f"{_number(low)} to {_number(high)}"


def _number(value: float) -> str:
    return f"{value:.12g}"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _plain(text: str) -> str:
    """Signs that Markdown would take for its own."""
    return text.replace("*", "\\*").replace("<", "&lt;").replace("_", "\\_")


if __name__ == "__main__":
    sys.stdout.write(markdown())
