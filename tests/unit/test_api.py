"""The types of a ResNetExperiment: defaults, derived values, and what generated schemas will need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from app.command_line import parse, to_args
from app.config import OPTIONS, check
from controller.api import Experiment, HistoryEntry, Status, Training, load, load_file, train_config

MINIMAL = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: tiny}
spec:
  model: resnet18
  accelerator: {type: TYPE, cardsPerNode: 2}
  dataset: {name: digits}
  training: {batchSizePerDevice: 16}
"""


def experiment(**spec: Any) -> Experiment:
    document = load(MINIMAL.replace("TYPE", "cpu"), "x").model_dump(by_alias=True, exclude_none=True)
    document["spec"].update(spec)
    return Experiment.model_validate(document)


@pytest.mark.parametrize(
    ("kind", "devices", "resource"),
    [("sdaa", 4, "tecorigin.com/tcaicard"), ("cuda", 1, "nvidia.com/gpu"), ("cpu", 1, "")],
)
def test_an_accelerator_knows_its_devices_per_card_and_its_resource(kind: str, devices: int, resource: str) -> None:
    spec = load(MINIMAL.replace("TYPE", kind), "x").spec
    assert (spec.accelerator.devices_per_card, spec.accelerator.resource_name) == (devices, resource)
    assert spec.devices_per_node == 2 * devices
    assert spec.accelerator.resource_count == 2 * devices


def test_a_card_with_three_usable_devices_and_a_resource_counted_in_cards() -> None:
    text = MINIMAL.replace("TYPE, cardsPerNode: 2", "sdaa, cardsPerNode: 2, devicesPerCard: 3, resourceUnit: card")
    spec = load(text, "x").spec
    assert (spec.devices_per_node, spec.accelerator.resource_count) == (6, 2)


def test_a_resource_may_be_named_for_the_cpu() -> None:
    text = MINIMAL.replace("TYPE", "cpu, resourceName: tecorigin.com/tcaicard")
    assert load(text, "x").spec.accelerator.resource_name == "tecorigin.com/tcaicard"


def test_the_learning_rate_follows_the_global_batch_unless_it_is_given() -> None:
    training = {"batchSizePerDevice": 16, "accumulate": 4}
    derived = experiment(nodes=3, training=training).spec
    assert (derived.world_size, derived.global_batch, derived.learning_rate) == (6, 384, 0.384)
    assert experiment(training={**training, "learningRate": 0.5}).spec.learning_rate == 0.5


def test_training_has_exactly_the_options_that_name_a_spec_field() -> None:
    expected = {name: option.spec for name, (option, _) in OPTIONS.items() if option.spec}
    assert {name: field.alias for name, field in Training.model_fields.items()} == expected
    for name, field in Training.model_fields.items():
        option, default = OPTIONS[name]
        assert (field.description or "").startswith(option.help)
        if not option.required:
            assert field.default == default.default


@pytest.mark.parametrize("name", [name for name, (option, _) in OPTIONS.items() if option.spec])
def test_every_training_option_of_a_spec_reaches_the_training(name: str) -> None:
    option, field = OPTIONS[name]
    default: Any = field.default
    value: Any
    if isinstance(default, bool):
        value = not default
    elif option.choices:
        value = next(c for c in option.choices if c != default)
    else:
        value = type(default)(min(max(option.low or 0, 2) * 2, option.high or math.inf))
    training = {"batchSizePerDevice": 16, option.spec: value}
    assert getattr(train_config(experiment(training=training)), name) == value


def test_an_experiment_reaches_the_launcher_as_the_same_configuration() -> None:
    config = train_config(
        experiment(
            nodes=2,
            checkpoint={"path": "/keep/", "everyMinutes": 2.5, "keep": 7, "adopt": True},
            faultTolerance={"startTimeoutSeconds": 100},
            podTemplate={"terminationGracePeriodSeconds": 77},
            training={"batchSizePerDevice": 16, "profiler": True},
        )
    )
    check(config)
    assert parse(to_args(config), {}) == config
    assert (config.device, config.nnodes, config.nproc_per_node) == ("cpu", 2, 2)
    assert config.checkpoint_dir == "/keep/default/tiny"
    assert config.profiler_dir == "/keep/default/tiny/profiler"
    assert (config.checkpoint_minutes, config.keep, config.adopt) == (2.5, 7, True)
    assert (config.grace_seconds, config.rendezvous_timeout) == (77, 400)
    assert config.dataset_path == "/datasets/digits"


def test_all_that_is_not_said_by_an_experiment_is_the_training_s_own_default() -> None:
    config = train_config(experiment())
    said = {"model", "dataset", "dataset_path", "batch_size", "learning_rate", "device", "nproc_per_node"}
    said |= {"checkpoint_dir", "rendezvous_timeout"}
    for field in dataclasses.fields(config):
        if field.name not in said:
            assert getattr(config, field.name) == field.default, field.name


def test_a_new_status_says_pending_and_holds_no_nulls() -> None:
    assert Status().model_dump(by_alias=True, exclude_none=True) == {
        "phase": "Pending", "conditions": [], "attempt": 0, "restarts": 0, "faults": 0,
        "attemptsWithoutProgress": 0, "podUIDs": [], "history": [],
    }  # fmt: skip


def test_a_status_survives_json() -> None:
    status = Status(
        phase="Running", attempt=2, pod_uids=["a"], top1=0.5, history=[HistoryEntry(attempt=1, reason="Hung")]
    )
    assert Status.model_validate_json(status.model_dump_json(by_alias=True, exclude_none=True)) == status


def test_an_experiment_survives_json_with_its_status() -> None:
    before = experiment().model_copy(update={"status": Status(phase="Failed", message="why")})
    assert Experiment.model_validate_json(before.model_dump_json(by_alias=True, exclude_none=True)) == before


def test_values_can_t_be_changed_in_place() -> None:
    with pytest.raises(pydantic.ValidationError):
        experiment().spec.nodes = 3


def test_the_status_of_a_file_is_left_out() -> None:
    assert load(MINIMAL.replace("TYPE", "cpu") + "status: {phase: Succeeded}\n", "x").status == Status()


def test_load_takes_text_and_bytes_alike(tmp_path: Any) -> None:
    text = MINIMAL.replace("TYPE", "cpu")
    file = tmp_path / "x.yaml"
    file.write_text(text)
    assert load(text, "x") == load(text.encode(), "x") == load(b"\xef\xbb\xbf" + text.encode(), "x") == load_file(file)


def parts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every sub-schema that describes a value, with where it stands."""
    if isinstance(schema, dict):
        if "type" in schema and isinstance(schema["type"], str):
            yield path, schema
        for key, value in schema.items():
            yield from parts(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for i, value in enumerate(schema):
            yield from parts(value, f"{path}/{i}")


def test_every_text_list_map_and_whole_number_is_bounded() -> None:
    """The API server refuses a CRD whose rules could cost too much, and unbounded lists are what costs."""
    needs = {
        "string": lambda s: "maxLength" in s or "enum" in s or "const" in s,
        "array": lambda s: "maxItems" in s,
        "object": lambda s: "properties" in s or "maxProperties" in s,
        "integer": lambda s: "minimum" in s and "maximum" in s,
    }
    schema = Experiment.model_json_schema(by_alias=True)
    found = list(parts(schema))
    assert len(found) > 150
    assert [path for path, s in found if s["type"] in needs and not needs[s["type"]](s)] == []


def test_every_field_is_described_and_every_object_is_closed() -> None:
    schema = Experiment.model_json_schema(by_alias=True)
    for name, model in {**schema["$defs"], "Experiment": schema}.items():
        assert model["additionalProperties"] is False, name
        for field, facts in model["properties"].items():
            assert facts.get("description"), f"{name}.{field}"
