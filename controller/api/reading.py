"""YAML text -> Experiment. The text is a stranger's: it is bounded, and only plain values are read from it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from app.config import OPTIONS, ConfigError, check
from app.resilience.exit_codes import ExitCode
from controller.api.base import API_VERSION, KIND
from controller.api.errors import SpecError, explain, shown
from controller.api.experiment import PATHS, Experiment, rules, train_config

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
_CORE = "tag:yaml.org,2002:"
_NOTHING = "is empty: a ResNetExperiment is expected"


def load_file(path: str | Path) -> Experiment:
    """The experiment in a file.

    Raises:
        SpecError: as `load`; with code 66 where the file is missing or can't be read.
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(str(path), [f"can't be read: {reason}"], ExitCode.DATA_MISSING) from None
    return load(raw, str(path))


def load(text: str | bytes, source: str) -> Experiment:
    """The experiment in one YAML document. Its status, if it has one, is left out: only the controller writes it.

    Raises:
        SpecError: names `source`, each field that is wrong, what was wrong and what would be right.
    """
    document = _read(text, source)
    if document is None:
        raise SpecError(source, [_NOTHING])
    if not isinstance(document, dict):
        raise SpecError(source, [f"must be a mapping with apiVersion, kind, metadata and spec, not {shown(document)}"])
    for field, right in (("apiVersion", API_VERSION), ("kind", KIND)):
        if document.get(field) != right:
            wrong = f", not {shown(document[field])}" if field in document else ", and is missing"
            raise SpecError(source, [f"{field}: must be {right}{wrong}"])
    document.pop("status", None)
    empty = _empty(document["spec"], "spec") if "spec" in document else []
    if empty:
        raise SpecError(source, [f"{path}: is empty: give a value or leave it out" for path in empty])
    return from_document(document, source)


def from_document(document: Mapping[str, Any], source: str, *, may_be_newer: bool = False) -> Experiment:
    """The experiment in a document of plain values, its status included.

    Args:
        document: with the names of the API.
        source: what an error calls it.
        may_be_newer: fields that are unknown here are left out, as the API server does with those that its own
            definition of the kind does not know.

    Raises:
        SpecError: as `load`.
    """
    try:
        experiment = Experiment.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        unknown = [each["loc"] for each in error.errors() if each["type"] == "extra_forbidden"]
        if may_be_newer and unknown:
            return from_document(_without(document, unknown), source)
        raise SpecError(source, explain(error)) from None
    problems = [f"{path}: {problem}" for path, problem in rules(experiment)]
    if not problems:
        try:
            check(train_config(experiment))
        except ConfigError as error:
            problems = [f"{PATHS[error.option]}: {_FLAG.sub(_path_of_flag, error.problem)}"]
    if problems:
        raise SpecError(source, problems)
    return experiment


def _without(document: Mapping[str, Any], paths: Sequence[tuple[int | str, ...]]) -> Mapping[str, Any]:
    kept = copy.deepcopy(dict(document))
    for *parents, last in paths:
        holder: Any = kept
        for name in parents:
            holder = holder[name]
        del holder[last]
    return kept


_FLAGS = {flag: name for name, (option, _) in OPTIONS.items() for flag in option.flags}
_FLAG = re.compile(r"--[a-z_-]+")


def _path_of_flag(match: re.Match[str]) -> str:
    """app.config speaks of flags; whoever wrote a spec knows its fields."""
    return PATHS.get(_FLAGS.get(match[0], ""), match[0])


def _empty(value: Any, path: str) -> list[str]:
    if value is None:
        return [path]
    if isinstance(value, dict):
        return [p for key, inner in value.items() for p in _empty(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [p for i, inner in enumerate(value) for p in _empty(inner, f"{path}[{i}]")]
    return []


class _Refused(yaml.MarkedYAMLError):
    """YAML that is well-formed and not taken."""


class _Loader(yaml.SafeLoader):
    """Plain values only: no tags, no aliases (a small file could stand for gigabytes), no duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        tag, mark = getattr(event, "tag", None), event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(None, None, f"the alias *{event.anchor} is not read: write the value out", mark)
        if tag not in (None, "!", f"{_CORE}str"):
            shown_tag = tag.replace(_CORE, "!!")
            raise _Refused(None, None, f"the tag {shown_tag} is not read: write a plain value", mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused(None, None, f"is nested deeper than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ARG002
        if not isinstance(node, yaml.MappingNode):
            raise _Refused(None, None, "a mapping is expected", node.start_mark)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _Refused(None, None, f"the key {shown(key)} must be text", key_node.start_mark)
            if key in result:
                raise _Refused(None, None, f"the key {key!r} is given twice", key_node.start_mark)
            result[key] = self.construct_object(value_node, deep=True)
        return result


# YAML 1.1 without its surprises: 1:30 is no 90, 017 is no 15 and 2024-01-01 no date; they arrive as text.
for _tag, _pattern, _first in (
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF", "yYnNtTfFoO"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,18})", "-+0123456789"),
    ("float", r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|\.(inf|Inf|INF))|\.(nan|NaN|NAN)", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"{_CORE}{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _is_nothing(node: yaml.Node | None) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"{_CORE}null" and not node.value


def _read(text: str | bytes, source: str) -> Any:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise SpecError(source, [f"is larger than {MAX_BYTES // 1024} KiB: no experiment needs that"])
    try:
        decoded = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(source, [f"is no UTF-8 text (byte {error.start}): a YAML file is expected"]) from None
    try:
        loader = _Loader(decoded)
        nodes = []
        while loader.check_node():
            nodes.append(loader.get_node())
        # "---" at the end of a file begins a document without anything in it: kubectl takes that too.
        nodes = [node for node in nodes if not _is_nothing(node)] or nodes[:1]
        if len(nodes) > 1:
            raise SpecError(source, [f"holds {len(nodes)} documents: put each experiment into a file of its own"])
        if not nodes:
            raise SpecError(source, [_NOTHING])
        return loader.construct_document(nodes[0])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        prefix = "" if isinstance(error, _Refused) else "no valid YAML: "
        raise SpecError(source, [f"{where}{prefix}{error.problem or error.context}"]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise SpecError(source, [f"no valid YAML: {' '.join(str(error).split())}"]) from None
