"""docs/crd.md is what the kind is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controller.crd import definition
from controller.crd_doc import markdown

ROOT = Path(__file__).parents[2]
SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]


def test_the_committed_page_is_current() -> None:
    assert (ROOT / "docs" / "crd.md").read_text(encoding="utf-8") == markdown(), "run `make docs`"


def test_every_field_is_a_row_of_its_objects_section_and_every_rule_is_told() -> None:
    sections = dict(re.findall(r"^##+ (\S+)\n(.*?)(?=^##|\Z)", markdown(), re.M | re.S))
    by_fields = {tuple(re.findall(r"^\| `(\w+)` \|", text, re.M)): text for text in sections.values()}
    assert len(by_fields) == len(sections), "what is alike has one section"
    paths = set()
    for name in ("spec", "status"):
        for path, schema in objects(SCHEMA[name], name):
            paths.add(path)
            section = by_fields[tuple(schema["properties"])]
            for rule in schema.get("x-kubernetes-validations", ()):
                subject, found, said = rule["message"].partition(" can't be changed")
                for part in (subject, found + said):
                    assert part.replace("*", "\\*").replace("_", "\\_") in section, path
    assert set(sections) <= paths


def objects(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema["properties"].items():
        inner = field.get("items", field)
        if "properties" in inner:
            yield from objects(inner, f"{path}.{name}{'[]' if 'items' in field else ''}")
