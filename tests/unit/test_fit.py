"""A checkpoint that does not fit is refused in one line, before any tensor is copied."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from app.config import TrainConfig
from app.resilience.exit_codes import TrainingError
from app.resilience.fit import changes, options, require_fit, surroundings

CONFIG = TrainConfig(model="resnet18", dataset="digits", batch_size=8, learning_rate=0.1, device="cpu")
STATE: dict[str, Any] = json.loads(json.dumps({"model": "resnet18", "options": options(CONFIG), "classes": ("0", "1")}))
HERE = surroundings(CONFIG, 1437, "x86")


def refused(state: dict[str, Any], config: TrainConfig, classes: tuple[str, ...] = ("0", "1")) -> tuple[int, str]:
    with pytest.raises(TrainingError) as caught:
        require_fit("1/step-4", state, config, classes)
    return caught.value.code, caught.value.message


def test_the_run_itself_goes_on() -> None:
    require_fit("1/step-4", STATE, replace(CONFIG, epochs=9, learning_rate=0.2, nproc_per_node=4), ("0", "1"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": "resnet34"}, "1/step-4 was made with --model_name resnet18, not resnet34; give that option, or"),
        ({"optimizer": "adam"}, "1/step-4 was made with --optimizer sgd, not adam; "),
        ({"mlperf_mode": True}, "1/step-4 was made with --mlperf_mode False, not True; "),
        ({"decay_filter": "norm-bias"}, "1/step-4 was made with --decay_filter seed, not norm-bias; "),
    ],
)
def test_another_network_or_optimizer_is_refused_by_its_flag(change: dict[str, Any], line: str) -> None:
    code, message = refused(STATE, replace(CONFIG, **change))
    assert code == 64
    assert message.startswith(line)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("0",), "trained on 2 classes, not on these 1; "),
        (("0", "2"), "trained on 2 classes, not on these 2: '1' there, '2' here; "),
    ],
)
def test_other_classes_are_refused(classes: tuple[str, ...], words: str) -> None:
    code, message = refused(STATE, CONFIG, classes)
    assert code == 65
    assert f"--dataset_path: 1/step-4 was {words}" in message


def test_the_same_gang_and_images_are_nothing_to_tell() -> None:
    assert changes("1/step-4", HERE, surroundings(replace(CONFIG, epochs=9), 1437, "x86")) == []


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (0.1, "the learning rate stays 0.1 (in proportion to the batch it would be --lr 0.4)"),
        (0.3, "the learning rate is 0.3 as given, no longer 0.1"),
    ],
)
def test_another_gang_is_told_with_its_batch_and_learning_rate(rate: float, told: str) -> None:
    now = surroundings(replace(CONFIG, nproc_per_node=2, nnodes=2, learning_rate=rate), 1437, "x86")
    assert changes("1/step-4", HERE, now) == [
        f"1/step-4 was made by 1 ranks, now there are 4: the global batch is 32 and no longer 8; {told}"
    ]


def test_other_images_than_the_checkpoint_was_trained_on_are_told() -> None:
    (line,) = changes("1/step-4", HERE, surroundings(CONFIG, 1438, "x86"))
    assert line.startswith(
        "1/step-4 was trained on 1437 images, now there are 1438: in the rest of this epoch some may"
    )


def test_another_machine_is_told_because_the_run_is_not_bitwise_the_same_there() -> None:
    assert changes("1/step-4", HERE, surroundings(CONFIG, 1437, "arm")) == [
        "1/step-4 was made with x86, now it is arm: the run goes on, but not bit for bit as it would have there"
    ]
