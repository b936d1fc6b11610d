"""What every type of the API shares: names, the strict base model, and patterns with their meaning in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from app.config import not_among

GROUP = "resnet-operator.io"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "ResNetExperiment"
LABEL_EXPERIMENT = f"{GROUP}/experiment"
LABEL_ATTEMPT = f"{GROUP}/attempt"


def camel(name: str) -> str:
    """The name of a field outside: camelCase, with Kubernetes' capitals (hostIPC, podUIDs)."""
    return to_camel(name).replace("Ipc", "IPC").replace("Uids", "UIDs")


class Model(BaseModel):
    """Base of all types: strict (nothing is coerced), unknown fields refused, immutable, camelCase outside."""

    model_config = ConfigDict(
        alias_generator=camel,
        populate_by_name=True,
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
    )


NAME = r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$"
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
EXTENDED_RESOURCE = r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
# No ':' (Kubernetes refuses it in a mount path) and no '$' (the kubelet expands $(NAME) in arguments).
ABSOLUTE_PATH = r"^/[^\x00-\x1f\x7f:$]*$"
IMAGE = r"^[A-Za-z0-9][-A-Za-z0-9._/:@]*$"
ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_.-]*$"
NO_NUL = r"^[^\x00]*$"

WORDS = {
    NAME: "must be 1 to 40 lower-case letters, digits and '-', beginning with a letter and not ending with '-'",
    DNS_LABEL: "must be 1 to 63 lower-case letters, digits and '-', with no '-' at either end",
    DNS_SUBDOMAIN: "must be lower-case letters, digits, '-' and '.', with a letter or digit at both ends",
    LABEL_KEY: "must be a label key such as example.com/name",
    LABEL_VALUE: "must be a label value: at most 63 letters, digits, '-', '_' and '.', with no sign at either end",
    EXTENDED_RESOURCE: "must be a resource name with a domain, such as tecorigin.com/tcaicard",
    QUANTITY: 'must be a quantity such as "500m", "4" or "16Gi"',
    ABSOLUTE_PATH: "must be an absolute path without ':', '$' and control characters",
    IMAGE: "must be an image reference such as registry.example.com/name:tag",
    ENV_NAME: "must be a variable's name: letters, digits, '_', '.' and '-', not beginning with a digit",
    NO_NUL: "must not hold a NUL character, which no environment variable can",
}
"""Pattern -> what a person must know of it; messages never show a regular expression."""

Path = Annotated[str, Field(max_length=1024, pattern=ABSOLUTE_PATH)]
Quantity = Annotated[str, Field(max_length=32, pattern=QUANTITY)]
ObjectName = Annotated[str, Field(max_length=253, pattern=DNS_SUBDOMAIN)]
LabelKey = Annotated[str, Field(max_length=317, pattern=LABEL_KEY)]
LabelValue = Annotated[str, Field(max_length=63, pattern=LABEL_VALUE)]


@dataclass(frozen=True)
class OneOf:
    """Metadata of a text that is one of these words: a did-you-mean in the message, an enum in the schema."""

    choices: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(core), "enum": list(self.choices)}

    def _check(self, value: str) -> str:
        if value not in self.choices:
            raise ValueError(not_among(value, self.choices))
        return value
