"""DDP changes nothing of the mathematics: K ranks train as one plain loop over the same K micro-batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app import model, recipe
from app.config import TrainConfig
from app.data.decode import MEAN, STD
from app.data.loader import Loader
from app.data.open import open_dataset
from app.resilience import checkpoint
from tests.integration.test_training import ROOT, free_port

STEPS = 20
GLOBAL_BATCH = 64
RATE = 1e-5
"""Small: at the recipe's rate two plain loops that only round differently are apart after five steps."""
TOLERANCE = 0.05
"""Of the distance that the weights have moved; rounding is amplified from step to step."""


def write_noise(folder: Path) -> None:
    """Images without flat areas: where pixels tie, rounding decides which one of a max-pool gets the gradient."""
    random = np.random.default_rng(0)
    for part, each in (("train", STEPS * GLOBAL_BATCH // 10), ("val", 2)):
        for label in range(10):
            (folder / part / str(label)).mkdir(parents=True)
            for number in range(each):
                pixels = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / str(label) / f"{number}.png")


def plain_loop(config: TrainConfig) -> dict[str, torch.Tensor]:
    """One process, one weight copy; each of the K micro-batches has BatchNorm statistics of its own."""
    data = open_dataset(config)
    loaders = [Loader(data, config, rank=rank) for rank in range(config.world_size)]
    network = model.build(config.model, len(data.classes), config.seed)
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


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_k_ranks_equal_a_plain_loop_over_the_same_micro_batches(ranks: int, tmp_path: Path) -> None:
    images = tmp_path / "images"
    write_noise(images)
    config = TrainConfig(
        model="resnet18", device="cpu", dataset="imagenet", dataset_path=str(images), image_size=24, learning_rate=RATE,
        batch_size=GLOBAL_BATCH // ranks, nproc_per_node=ranks, num_workers=0, epochs=1,
    )  # fmt: skip
    done = subprocess.run(
        [
            sys.executable, "-m", "app.run_resnet", "--model_name=resnet18", "--device=cpu", "--dataset=imagenet",
            f"--dataset_path={images}", "--image_size=24", f"--lr={RATE}", f"--bs={config.batch_size}",
            f"--nproc_per_node={ranks}", "--num_workers=0", "--epoch=1", "--export=False",
            f"--checkpoint_dir={tmp_path / 'run'}", f"--master_port={free_port()}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tensors, state = checkpoint.load(tmp_path / f"run/1/step-{STEPS}")
    assert (state["global_batch"], state["step"]) == (GLOBAL_BATCH, STEPS)
    expected = plain_loop(config)
    ours = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    assert ours.keys() == expected.keys()
    untrained = model.build("resnet18", 10, config.seed).state_dict()
    learnt = [name for name, _ in model.build("resnet18", 10, config.seed).named_parameters()]
    moved = torch.cat([(expected[n] - untrained[n]).flatten() for n in learnt]).double().norm()
    apart = torch.cat([(expected[n] - ours[n]).flatten() for n in learnt]).double().norm()
    assert apart <= TOLERANCE * moved
    for name in expected.keys() - set(learnt):
        torch.testing.assert_close(ours[name], expected[name], rtol=1e-3, atol=1e-3, msg=lambda t, n=name: f"{n}: {t}")
