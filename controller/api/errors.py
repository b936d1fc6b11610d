"""pydantic's errors in one clear line each: the field's path, what was wrong, what would be right."""

from __future__ import annotations

import difflib
import math
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from app.config import OPTIONS, ConfigError
from app.resilience.exit_codes import ExitCode
from controller.api.base import WORDS, OneOf
from controller.api.experiment import PATHS, Experiment
from controller.api.training import SPEC_OPTIONS

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
LONGEST = 500
"""Characters of a message; longer ones quote an input that nobody reads whole."""
_SILENT = {"default_factory_not_called"}  # follows from another error of the same object
_PLACES = {
    word.strip("-").replace("_", "").replace("-", "").lower(): PATHS[name]
    for name, (option, _) in OPTIONS.items()
    if name in PATHS
    for word in (name, *option.flags, *([SPEC_OPTIONS[name]] if name in SPEC_OPTIONS else []))
}
"""What an option is called on the command line and in `spec.training` -> where in an experiment it stands."""


class SpecError(Exception):
    """An experiment that can't be taken as it is. Its text is one line a problem.

    Args:
        source: the file, as messages name it.
        problems: one line each, beginning with the field's path where there is one.
        code: what a command ends with (64 bad option, 66 file missing).
    """

    def __init__(self, source: str, problems: Sequence[str], code: ExitCode = ExitCode.BAD_OPTION) -> None:
        self.source = _one_line(source)
        self.problems = tuple(_one_line(problem) for problem in problems)
        super().__init__("\n".join(f"{self.source}: {problem}" for problem in self.problems))
        self.code = code


def explain(error: ValidationError) -> list[str]:
    """One line for each error, in the order of the fields."""
    return [f"{_path(e['loc'])}: {_problem(e)}" for e in error.errors(include_url=False) if e["type"] not in _SILENT]


def shown(value: Any) -> str:
    """A value in a message: on one line, and short."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...'"


def _path(loc: Sequence[int | str]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part == "[key]":
            path += " (its name)"
        else:
            path += f".{part}" if path else part
    return path


def _one_line(text: str) -> str:
    """The text without line breaks and control characters, cut where nobody would read on."""
    text = text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _problem(error: Mapping[str, Any]) -> str:  # noqa: PLR0912
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    owner, field = _at(error["loc"])
    if kind == "missing":
        return f"is required: {field.description}{_choices(field)}" if field else "is required"
    if kind == "extra_forbidden":
        return "unknown field" + _did_you_mean(error["loc"], owner)
    if kind in _TYPES:
        hint = ""
        if kind == "string_type" and isinstance(value, (bool, int, float)):
            hint = ": put it in quotes"
        elif kind in ("int_type", "float_type"):
            hint = _number_hint(value, whole=kind == "int_type")
        return f"must be {_TYPES[kind]}, not {shown(value)}{hint}"
    if kind == "value_error":
        cause = context["error"]
        return cause.problem if isinstance(cause, ConfigError) else str(cause)
    if kind == "string_pattern_mismatch":
        return f"{WORDS[context['pattern']]}, not {shown(value)}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters, not {len(value)}"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "too_long":
        return f"must have at most {context['max_length']} entries, not {len(value)}"
    if kind == "literal_error":
        return f"must be {context['expected']}, not {shown(value)}"
    if kind == "string_unicode":
        return f"holds half a character (a lone surrogate): {shown(value)}"
    if kind == "finite_number":
        return f"must be a finite number, not {value}"
    if kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(field)
        if low is not None and high is not None:
            return f"must be {low} to {high}, not {shown(value)}"
    message = str(error["msg"])
    return f"{message[0].lower()}{message[1:]}, not {shown(value)}"


def _choices(field: FieldInfo) -> str:
    words = next((fact.choices for fact in field.metadata if isinstance(fact, OneOf)), ())
    return f", one of {', '.join(words)}" if words else ""


def _number_hint(value: Any, *, whole: bool) -> str:
    """How to write the number that is meant: quotes, an exponent or a ".0" too many; empty where it isn't clear."""
    if isinstance(value, bool) or not isinstance(value, (str, float)):
        return ""
    try:
        number = float(value)
    except ValueError:
        return ""
    if number.is_integer() and abs(number) < 1e15:
        return f": write {number:.0f}"
    return f": write {number!r}" if math.isfinite(number) and not whole else ""


def _did_you_mean(loc: Sequence[int | str], owner: type[BaseModel] | None) -> str:
    if owner is None:
        return ""
    word = str(loc[-1]).replace("_", "").replace("-", "").lower()
    names = {
        (field.alias or attribute).lower(): field.alias or attribute for attribute, field in owner.model_fields.items()
    }
    place = _PLACES.get(word)
    if place and word not in names:
        parent, _, name = place.rpartition(".")
        return f" (did you mean {name if parent == _path(loc[:-1]) else place!r}?)"
    close = difflib.get_close_matches(word, names, n=1)
    return f" (did you mean {names[close[0]]!r}?)" if close else f"; known here: {', '.join(names.values())}"


def _bounds(field: FieldInfo | None) -> tuple[Any, Any]:
    low = high = None
    for fact in field.metadata if field else ():
        if isinstance(fact, annotated_types.Ge):
            low = fact.ge
        elif isinstance(fact, annotated_types.Le):
            high = fact.le
    return low, high


def _at(loc: Sequence[int | str]) -> tuple[type[BaseModel] | None, FieldInfo | None]:
    """The model that holds the last part of a path, and the field of that name, where there are such."""
    owner: type[BaseModel] | None = Experiment
    field: FieldInfo | None = None
    for i, part in enumerate(loc):
        if isinstance(part, int):
            continue
        if owner is None:
            return None, None
        field = next((f for name, f in owner.model_fields.items() if part in (f.alias, name)), None)
        if i < len(loc) - 1:
            owner = _model_in(field.annotation) if field else None
    return owner, field


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)
