"""What of the charts is made from the types: it is current, and it takes what the types take."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from app.version import version
from controller.api.base import NAME, WORDS
from controller.api.schema import structural_schema
from controller.chart import CHARTS, EXPERIMENT, files, main, read_examples

ROOT = Path(__file__).parents[2]
EXAMPLES = read_examples(ROOT / "examples")
SCHEMA = json.loads((ROOT / EXPERIMENT / "values.schema.json").read_text())
VALUES = yaml.safe_load((ROOT / EXPERIMENT / "values.yaml").read_text())
SPEC = structural_schema()["properties"]["spec"]
TEMPLATES = ROOT / EXPERIMENT / "templates"


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in schema.get("properties", {}).items():
        yield (*path, name)
        yield from leaves(inner, (*path, name))


@pytest.mark.parametrize("path", files(EXAMPLES))
def test_a_committed_file_is_current(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == files(EXAMPLES)[path], "run `make docs`"


def test_the_files_are_written_into_a_clone(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for path in files(EXAMPLES):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    for chart in CHARTS:
        (tmp_path / chart).mkdir(parents=True, exist_ok=True)
        (tmp_path / chart / "Chart.yaml").write_text("name: a\nversion: 0.0.1\nappVersion: 0.0.1\n")
    main(tmp_path)
    for chart in CHARTS:
        facts = yaml.safe_load((tmp_path / chart / "Chart.yaml").read_text())
        assert facts == {"name": "a", "version": version(), "appVersion": version()}
    assert {path: (tmp_path / path).read_text(encoding="utf-8") for path in files(EXAMPLES)} == files(EXAMPLES)


def test_the_values_are_the_fields_of_the_spec_and_all_of_them_are_null() -> None:
    def walk(values: dict[str, Any], schema: dict[str, Any]) -> None:
        assert list(values) == list(schema["properties"])
        for name, value in values.items():
            if value is not None:
                walk(value, schema["properties"][name])

    walk({name: VALUES[name] for name in SPEC["properties"]}, SPEC)
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_valid_and_a_key_too_many_is_not_wherever_it_stands(name: str) -> None:
    jsonschema.validate(VALUES | EXAMPLES[name], SCHEMA)
    for path in [(), *(path for path in leaves(SPEC) if isinstance(_at(EXAMPLES[name], path), dict))]:
        changed = json.loads(json.dumps(EXAMPLES[name]))
        if path[-1:] in [("requests",), ("limits",)]:
            continue
        _at(changed, path)["learnigRate"] = 1
        with pytest.raises(jsonschema.ValidationError, match="learnigRate"):
            jsonschema.validate(VALUES | changed, SCHEMA)


@pytest.mark.parametrize("path", list(leaves(SPEC)), ids=".".join)
def test_null_leaves_a_field_out_and_another_type_is_refused(path: tuple[str, ...]) -> None:
    def nested(value: Any) -> dict[str, Any]:
        for name in reversed(path):
            value = {name: value}
        return dict(value)

    jsonschema.validate(VALUES | nested(None), SCHEMA)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(VALUES | nested(object), SCHEMA)


def test_the_template_asks_for_what_the_types_require() -> None:
    def required(schema: dict[str, Any], path: str) -> Iterator[str]:
        for name in schema.get("required", ()):
            inner = schema["properties"][name]
            if "properties" in inner:
                yield from required(inner, f"{path}{name}.")
            else:
                yield f"{path}{name}"

    (asked,) = re.findall(r"range \$path := list (.*?) -", (TEMPLATES / "_helpers.tpl").read_text())
    assert [word.strip('"') for word in asked.split()] == list(required(SPEC, ""))


def test_the_template_knows_what_an_experiment_may_be_called() -> None:
    text = (TEMPLATES / "experiment.yaml").read_text()
    assert f'"{NAME}"' in text
    assert WORDS[NAME] in text


def test_a_default_that_the_notes_repeat_is_that_of_the_spec() -> None:
    said = re.findall(r'dig ((?:"\w*" )+?)(\d+|"[^"]*") \$spec', (TEMPLATES / "NOTES.txt").read_text())
    repeated = {tuple(re.findall(r'"(\w+)"', path)): json.loads(value) for path, value in said}
    assert repeated.pop(("checkpoint", "volume", "persistentVolumeClaim", "claimName")) == ""
    assert repeated.pop(("accelerator", "type")) == ""
    assert len(repeated) == 3
    for path, value in repeated.items():
        schema = SPEC
        for name in path:
            schema = schema["properties"][name]
        assert schema["default"] == value, path


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_is_of_this_version_and_says_what_it_is(chart: str) -> None:
    facts = yaml.safe_load((ROOT / chart / "Chart.yaml").read_text())
    assert facts["version"] == facts["appVersion"] == version()
    assert facts["name"] == Path(chart).name
    assert facts.keys() >= {"description", "kubeVersion", "keywords", "maintainers"}
    assert facts["annotations"]["artifacthub.io/license"] == "Apache-2.0"
    assert (ROOT / chart / "README.md").is_file()


def _at(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    found: Any = document
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found
