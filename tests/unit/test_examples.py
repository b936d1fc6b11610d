"""The examples are the rows of ModelZoo's ResNet README, one for GPUs and two for CPUs, and render as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.config import plan
from controller.api import load_file, train_config
from controller.examples_doc import markdown
from controller.render import render_job

EXAMPLES = Path(__file__).parents[2] / "examples"

# name: (model, nodes, ranks per node, global batch, learning rate, auto warm-up, epochs). Source: ModelZoo ResNet.
ROWS = {
    "resnet50-1card": ("resnet50", 1, 4, 256, 0.256, 2, 50),
    "resnet50-4cards": ("resnet50", 1, 16, 1024, 1.024, 8, 50),
    "resnet50-8cards": ("resnet50", 1, 32, 2048, 2.048, 16, 90),
    "resnet50-2nodes": ("resnet50", 2, 16, 2048, 2.048, 16, 50),
    "resnet18-1card": ("resnet18", 1, 4, 256, 0.256, 2, 50),
    "resnet101-1card": ("resnet101", 1, 4, 256, 0.256, 2, 50),
}

CPU_ROWS = {
    "digits": ("resnet18", 2, 2, 64, 0.064, 0, 8, "digits"),
    "resnet18-cpu": ("resnet18", 1, 2, 128, 0.128, 0, 30, "cifar10"),
}


def test_there_is_one_example_a_row_one_for_gpus_and_those_for_cpus() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.yaml")} == {*ROWS, "resnet50-4gpus", *CPU_ROWS}


def test_the_page_of_examples_is_current() -> None:
    page = EXAMPLES.parent / "docs" / "examples.md"
    assert page.read_text(encoding="utf-8") == markdown(EXAMPLES), "run `make docs`"


@pytest.mark.parametrize("name", ROWS)
def test_an_example_plans_what_modelzoos_command_does(name: str) -> None:
    model, nodes, ranks, batch, rate, warmup, epochs = ROWS[name]
    experiment = load_file(EXAMPLES / f"{name}.yaml")
    assert experiment.metadata.name == name
    planned = plan(train_config(experiment))
    assert planned["learning_rate"] == pytest.approx(rate, rel=1e-12)
    expected = {
        "model": model, "nnodes": nodes, "nproc_per_node": ranks, "world_size": nodes * ranks, "global_batch": batch,
        "warmup_epochs": warmup, "epochs": epochs, "batch_size_per_device": 64, "autocast": True, "grad_scale": True,
        "device": "sdaa", "backend": "tccl", "dataset": "imagenet", "dataset_path": "/datasets/imagenet",
        "image_size": 224, "optimizer": "sgd",
    }  # fmt: skip
    assert {key: planned[key] for key in expected} == expected


@pytest.mark.parametrize("name", ROWS)
def test_an_example_asks_for_its_devices_per_pod(name: str) -> None:
    _, nodes, ranks, *_ = ROWS[name]
    job = render_job(load_file(EXAMPLES / f"{name}.yaml"), 1, training_image="t")
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    resources = worker["template"]["spec"]["containers"][0]["resources"]
    assert worker["replicas"] == nodes
    assert resources["limits"]["tecorigin.com/tcaicard"] == resources["requests"]["tecorigin.com/tcaicard"] == ranks
    claims = {
        v["name"]: v["persistentVolumeClaim"]
        for v in worker["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in v
    }
    assert claims == {
        "dataset": {"claimName": "imagenet", "readOnly": True},
        "checkpoints": {"claimName": "checkpoints"},
    }


@pytest.mark.parametrize("name", CPU_ROWS)
def test_an_example_for_cpus_asks_for_no_device(name: str) -> None:
    model, nodes, ranks, batch, rate, warmup, epochs, dataset = CPU_ROWS[name]
    experiment = load_file(EXAMPLES / f"{name}.yaml")
    planned = plan(train_config(experiment))
    expected = {
        "model": model, "device": "cpu", "backend": "gloo", "nnodes": nodes, "nproc_per_node": ranks,
        "global_batch": batch, "learning_rate": pytest.approx(rate), "warmup_epochs": warmup, "epochs": epochs,
        "dataset": dataset, "image_size": 32,
    }  # fmt: skip
    assert {key: planned[key] for key in expected} == expected
    assert set(resources(render_job(experiment, 1, training_image="t"))["limits"]) == {"memory"}


def test_the_example_for_gpus_is_the_published_row_of_one_card_on_four_of_them() -> None:
    experiment = load_file(EXAMPLES / "resnet50-4gpus.yaml")
    assert experiment.metadata.name == "resnet50-4gpus"
    gpus, card = (plan(train_config(load_file(EXAMPLES / f"resnet50-{name}.yaml"))) for name in ("4gpus", "1card"))
    differs = {key for key in card if gpus[key] != card[key]}
    assert differs == {"device", "backend", "checkpoint_dir"}
    assert (gpus["device"], gpus["backend"]) == ("cuda", "nccl")
    assert resources(render_job(experiment, 1, training_image="t"))["limits"] == {"nvidia.com/gpu": 4}


def resources(job: dict[str, Any]) -> dict[str, Any]:
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    return dict(worker["containers"][0]["resources"])


@pytest.mark.parametrize("name", ["resnet18-1card", "resnet101-1card"])
def test_assumed_epochs_and_published_results_are_marked(name: str) -> None:
    comment = " ".join(line.strip("# ") for line in (EXAMPLES / f"{name}.yaml").read_text().splitlines())
    assert "50 epochs are assumed" in comment
    assert "published by ModelZoo, not reproduced here" in comment
