"""DDP changes nothing of the mathematics: K ranks train as one plain loop over the same K micro-batches.

Without batch statistics, which see only a rank's own images, they train as one process over the whole batch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app import model, recipe
from app.command_line import to_args
from app.config import TrainConfig
from app.data.decode import MEAN, STD
from app.data.loader import Loader
from app.data.open import open_dataset
from app.resilience import checkpoint
from tests.integration.frozen_rank import frozen
from tests.integration.training_process import ROOT, free_port

STEPS = 20
GLOBAL_BATCH = 64
RATE = 1e-5
"""Small: at the recipe's rate two plain loops that only round differently are apart after five steps."""
TOLERANCE = 0.05
"""Of the distance that the weights have moved; rounding is amplified from step to step."""
FROZEN_TOLERANCE = 0.01
"""Likewise, without batch statistics, which amplify most: two plain loops, over 4 x 16 and over 64 images, are 0.0009
apart at this rate and 0.003 at a hundred times of it; leaving out the images of one rank of 4 makes it 0.3."""


def write_noise(folder: Path) -> None:
    """Images without flat areas: where pixels tie, rounding decides which one of a max-pool gets the gradient."""
    random = np.random.default_rng(0)
    for part, each in (("train", STEPS * GLOBAL_BATCH // 10), ("val", 2)):
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
            for number in range(each):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / str(label) / f"{number}.png")


def plain_loop(
    config: TrainConfig, change: Callable[[torch.nn.Module], torch.nn.Module] = lambda network: network
) -> dict[str, torch.Tensor]:
    """One process, one weight copy; each of the K micro-batches has BatchNorm statistics of its own."""
    data = open_dataset(config)
    loaders = [Loader(data, config, rank=rank) for rank in range(config.world_size)]
    network = change(model.build(config.model, len(data.classes), config.seed))
    buffers = [{n: b.clone() for n, b in network.named_buffers()} for _ in loaders]
    groups = recipe.parameter_groups(network, config.decay_filter)
    optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.875, foreach=False)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    batches = [loader.train_batches(0) for loader in loaders]
    for _ in range(STEPS):
        optimizer.zero_grad()
        for rank, own in enumerate(batches):
            given = next(own)
            for name, buffer in network.named_buffers():
                buffer.copy_(buffers[rank][name])
            logits = network((given.images.float() / 255 - mean) / std)
            loss = torch.nn.functional.cross_entropy(logits, given.labels, label_smoothing=0.1)
            (loss / config.world_size).backward()
            buffers[rank] = {n: b.clone() for n, b in network.named_buffers()}
        optimizer.step()
    return {**{n: p.detach() for n, p in network.named_parameters()}, **buffers[0]}


def trained(run: Path, config: TrainConfig) -> dict[str, torch.Tensor]:
    """The network in the checkpoint of the last step."""
    tensors, state = checkpoint.load(run / f"1/step-{STEPS}")
    assert (state["global_batch"], state["step"]) == (config.global_batch, STEPS) == (GLOBAL_BATCH, STEPS)
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def apart(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], config: TrainConfig) -> float:
    """How far our weights are from the expected ones, as a share of the way that those have come."""
    fresh = model.build(config.model, 10, config.seed)
    learnt = [name for name, _ in fresh.named_parameters()]
    moved = torch.cat([(expected[n] - fresh.state_dict()[n]).flatten() for n in learnt]).double().norm()
    return float(torch.cat([(expected[n] - ours[n]).flatten() for n in learnt]).double().norm() / moved)


def settings(images: Path, ranks: int, rate: float) -> TrainConfig:
    return TrainConfig(
        model="resnet18", device="cpu", dataset="imagenet", dataset_path=str(images), image_size=24, learning_rate=rate,
        batch_size=GLOBAL_BATCH // ranks, nproc_per_node=ranks, num_workers=0, epochs=1, export=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("noise") / "images"
    write_noise(path)
    return path


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_k_ranks_equal_a_plain_loop_over_the_same_micro_batches(ranks: int, noise: Path, tmp_path: Path) -> None:
    config = settings(noise, ranks, RATE)
    given = replace(config, checkpoint_dir=str(tmp_path / "run"), master_port=free_port())
    done = subprocess.run(
        [sys.executable, "-m", "app.run_resnet", *to_args(given)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours, expected = trained(tmp_path / "run", config), plain_loop(config)
    assert ours.keys() == expected.keys()
    assert apart(ours, expected, config) <= TOLERANCE
    # What is no parameter: the running statistics, rank 0's.
    statistics = [name for name in expected if "running_" in name or "num_batches" in name]
    assert len(statistics) == 3 * 20
    for name in statistics:
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-3, atol=1e-3, msg=lambda t, n=name: f"{n}: {t}")


@pytest.mark.parametrize("ranks", [2, 4])
def test_with_batch_norm_frozen_k_ranks_equal_one_big_batch(ranks: int, noise: Path, tmp_path: Path) -> None:
    config = settings(noise, ranks, RATE)
    given = replace(config, checkpoint_dir=str(tmp_path / "run"), master_port=free_port())
    world = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-m", "tests.integration.frozen_rank", *to_args(given)]
    processes = [
        subprocess.Popen(
            script, cwd=ROOT, env={**os.environ, **world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * ranks, outputs
    ours, expected = trained(tmp_path / "run", config), plain_loop(settings(noise, 1, RATE), frozen)
    assert ours.keys() == expected.keys()
    assert apart(ours, expected, config) <= FROZEN_TOLERANCE
    fresh = model.build(config.model, 10, config.seed).state_dict()
    assert all(torch.equal(ours[name], fresh[name]) for name in fresh if "running_" in name), "they were frozen"
