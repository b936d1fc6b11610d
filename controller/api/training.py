"""`spec.training`: made from the options of app.config, so that each of them is described once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, create_model
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from app.config import OPTIONS, check_value, type_of
from controller.api.base import Model

SPEC_OPTIONS = {name: option.spec for name, (option, _) in OPTIONS.items() if option.spec}
"""TrainConfig field -> its name in `spec.training`."""


PATH_LENGTH = 512
"""Bound of an option that is free text: a path."""


@dataclass(frozen=True, eq=False)
class _InSchema:
    """Metadata of a type: what its schema says besides. A field's `json_schema_extra` is lost where it is optional."""

    facts: dict[str, Any]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), **self.facts}


def option_type(name: str) -> Any:
    """The annotated type of an option: app.config's own check decides, the schema carries its bounds."""
    option, _ = OPTIONS[name]
    schema: dict[str, Any] = {}
    if option.choices:
        schema["enum"] = list(option.choices)
    if option.low is not None:
        schema["minimum"] = option.low if option.off is None else min(option.low, option.off)
    if option.high is not None:
        schema["maximum"] = option.high
    length = (128 if option.choices else PATH_LENGTH) if type_of(name) is str else None
    return Annotated[type_of(name), Field(max_length=length), _InSchema(schema), AfterValidator(_checker(name))]


def option_field(name: str) -> Any:
    """Default and description of an option, as a pydantic field."""
    option, field = OPTIONS[name]
    return Field(default=field.default, description=option.help)


def _checker(name: str) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        check_value(name, value)
        return value

    return check


def _fields() -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, alias in SPEC_OPTIONS.items():
        option, field = OPTIONS[name]
        kind, default, described = option_type(name), field.default, option.help
        if name == "learning_rate":  # the one required flag that a spec may leave out
            kind, default, described = kind | None, None, f"{described}; absent: global batch / 1000"
        elif option.required:
            default = ...
        fields[name] = (kind, Field(default=default, alias=alias, description=described))
    return fields


if TYPE_CHECKING:

    class Training(Model):
        """How the network is trained. Attributes have the names and types of app.config.TrainConfig."""

        def __getattr__(self, name: str) -> Any: ...

else:
    Training = create_model("Training", __base__=Model, __module__=__name__, __doc__="How it is trained.", **_fields())
