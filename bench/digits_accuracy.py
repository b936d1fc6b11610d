"""Does this project train as well as a plain torchvision-style loop with the same recipe?

    python -m bench.digits_accuracy [--seeds 1234 1235 …]

Both train ResNet18 on the embedded digits as examples/digits.yaml says: 8 epochs, global batch 64, learning rate 0.064,
SGD with momentum 0.875, no decay of names with "bn", label smoothing 0.1, cosine schedule. Ours runs as 4 ranks of 16
images; the plain loop (ImageFolder, PIL, DataLoader; fp32) is one process that takes the 64 images of a step as four
times 16, one after another, so that BatchNorm sees batches of 16 in both. Top-1 is that of the last epoch, over all 360
held-out images. About two minutes a seed and side on two idle cores.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.models import resnet18
from torchvision.transforms import CenterCrop, Compose, Normalize, RandomResizedCrop, Resize, ToTensor

from app.data import digits
from app.modules import python_command, python_environment
from app.telemetry.events import read_events

EPOCHS, BATCH, RANKS, RATE, SIDE = 8, 16, 4, 0.064, 32
NORMALIZE = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def ours(images: Path, seed: int, scratch: Path) -> float:
    """Top-1 in percent of this project's training, by its command line."""
    flags = {
        "model_name": "resnet18", "dataset": "digits", "dataset_path": images, "device": "cpu", "nproc_per_node": RANKS,
        "bs": BATCH, "lr": RATE, "epoch": EPOCHS, "seed": seed, "num_workers": 0, "autocast": True, "export": False,
        "checkpoint_dir": scratch / f"run-{seed}",
    }  # fmt: skip
    command = [*python_command("app.run_resnet"), *(f"--{name}={value}" for name, value in flags.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=python_environment(os.environ))
    events = read_events(scratch / f"run-{seed}" / "1" / "events.jsonl")
    return 100 * float([event for event in events if event["kind"] == "validate"][-1]["top1"])


def plain(images: Path, seed: int) -> float:
    """Top-1 in percent of a loop as torchvision's reference has it."""
    torch.manual_seed(seed)
    network = resnet18(num_classes=10)
    norms = [parameter for name, parameter in network.named_parameters() if "bn" in name]
    others = [parameter for name, parameter in network.named_parameters() if "bn" not in name]
    optimizer = torch.optim.SGD(
        [{"params": norms, "weight_decay": 0.0}, {"params": others, "weight_decay": 3.0517578125e-05}],
        lr=RATE, momentum=0.875,
    )  # fmt: skip
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    seen = Compose([RandomResizedCrop(SIDE, scale=(0.6, 1.0)), ToTensor(), NORMALIZE])
    train = DataLoader(ImageFolder(str(images / "train"), seen), BATCH * RANKS, shuffle=True, drop_last=True)
    judged = Compose([Resize(SIDE), CenterCrop(SIDE), ToTensor(), NORMALIZE])
    validation = DataLoader(ImageFolder(str(images / "val"), judged), BATCH * RANKS)
    for epoch in range(EPOCHS):
        for group in optimizer.param_groups:
            group["lr"] = 0.5 * RATE * (1 + math.cos(math.pi * epoch / EPOCHS))
        network.train()
        for pixels, labels in train:
            optimizer.zero_grad()
            for some, of in zip(pixels.split(BATCH), labels.split(BATCH), strict=True):
                (criterion(network(some), of) / RANKS).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        right = sum(int((network(pixels).argmax(1) == labels).sum()) for pixels, labels in validation)
    return 100 * right / digits.HELD_OUT


def summary(name: str, found: Sequence[float]) -> str:
    """One line: mean, spread, and the single results, in percent."""
    spread = f" ± {statistics.stdev(found):.2f}" if len(found) > 1 else ""
    single = " ".join(f"{top1:.2f}" for top1 in found)
    return f"{name}: top-1 {statistics.mean(found):.2f} %{spread} over {len(found)} seeds ({single})"


def main() -> None:
    """Prints each result as it comes, and a line for each side at the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1234, 1235, 1236, 1237, 1238])
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        digits.write(scratch / "images")
        mine, theirs = [], []
        for seed in seeds:
            mine.append(ours(scratch / "images", seed, scratch))
            theirs.append(plain(scratch / "images", seed))
            print(f"seed {seed}: ours {mine[-1]:.2f} %, plain loop {theirs[-1]:.2f} %", file=sys.stderr, flush=True)
        print(summary("this project, 4 ranks", mine))
        print(summary("plain torchvision loop", theirs))


if __name__ == "__main__":
    main()
