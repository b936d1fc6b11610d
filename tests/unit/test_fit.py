"""A checkpoint that does not fit is refused in one line, before any tensor is copied."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from app.config import TrainConfig
from app.resilience.exit_codes import TrainingError
from app.resilience.fit import options, require_fit

CONFIG = TrainConfig(model="resnet18", dataset="digits", batch_size=8, learning_rate=0.1, device="cpu")
STATE: dict[str, Any] = json.loads(json.dumps({"model": "resnet18", "options": options(CONFIG), "classes": ("0", "1")}))


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


def test_a_checkpoint_from_before_the_options_were_kept_is_judged_by_its_model() -> None:
    older = {"model": "resnet18", "classes": ["0", "1"]}
    require_fit("1/step-4", older, CONFIG, ("0", "1"))
    assert refused(older, replace(CONFIG, model="resnet50"))[0] == 64
