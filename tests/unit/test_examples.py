"""The examples are the rows of the launch and results tables of ModelZoo's ResNet README, and render as such."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.config import plan
from controller.api import load_file, train_config
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


def test_there_is_one_example_a_row_and_the_digits() -> None:
    assert {p.stem for p in EXAMPLES.glob("*.yaml")} == {*ROWS, "digits"}


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
        "checkpoints": {"claimName": "checkpoints", "readOnly": False},
    }


def test_the_digits_run_on_two_cpu_nodes_with_two_ranks_each() -> None:
    planned = plan(train_config(load_file(EXAMPLES / "digits.yaml")))
    expected = {"model": "resnet18", "device": "cpu", "nnodes": 2, "nproc_per_node": 2, "dataset": "digits"}
    assert {key: planned[key] for key in expected} == expected


@pytest.mark.parametrize("name", ["resnet18-1card", "resnet101-1card"])
def test_assumed_epochs_and_published_results_are_marked(name: str) -> None:
    comment = " ".join(line.strip("# ") for line in (EXAMPLES / f"{name}.yaml").read_text().splitlines())
    assert "50 epochs are assumed" in comment
    assert "published by ModelZoo, not reproduced here" in comment
