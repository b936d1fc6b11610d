"""When checkpoints end a run."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from app.config import TrainConfig
from app.resilience.exit_codes import ExitCode
from app.resilience.heartbeat import Heart
from app.resilience.keeper import FAILURES_LIMIT, Keeper

SOUND, SPOILT = {"w": torch.ones(2)}, {"w": torch.tensor([1.0, math.nan])}


def opened(directory: Path, heart: Heart, said: list[str]) -> Keeper:
    config = TrainConfig(
        model="resnet18", dataset="digits", device="cpu", batch_size=8, learning_rate=0.1, checkpoint_dir=str(directory)
    )
    return Keeper(config, heart, said.append)


def save(keeper: Keeper, step: int, tensors: dict[str, torch.Tensor] = SOUND) -> None:
    keeper.save(1, step, tensors, {}, -1)
    while keeper.busy:
        pass
    keeper.take_news()


def test_a_volume_that_takes_nothing_ends_the_run_after_some_checkpoints_in_a_row(tmp_path: Path) -> None:
    heart, said = Heart(None), []
    heart.beat(checkpoint_failures=3)  # of the run before this start
    keeper = opened(tmp_path, heart, said)
    place = keeper.lineage.directory
    save(keeper, 1)
    for row in range(1, FAILURES_LIMIT + 1):
        assert keeper.ending is None
        place.rename(tmp_path / "aside")
        place.write_text("a file, so that no folder can be made here")
        save(keeper, 1 + row)
        place.unlink()
        (tmp_path / "aside").rename(place)
        assert f"checkpoint failed ({row} of at most {FAILURES_LIMIT} in a row), training goes on: " in said[-1]
    assert heart.state.checkpoint_failures == 3 + FAILURES_LIMIT
    ending = keeper.ending
    assert ending is not None
    assert ending.code == ExitCode.VOLUME_IO
    assert f"5 checkpoints in a row were not written, the newest there is: {place}/step-1; " in ending.message
    save(keeper, 20)
    assert keeper.ending is ending, "what the other ranks were told stands"
    keeper.close()


def test_weights_that_are_not_finite_end_the_run_and_name_the_checkpoint_before(tmp_path: Path) -> None:
    keeper = opened(tmp_path, Heart(None), [])
    save(keeper, 1)
    assert keeper.ending is None
    save(keeper, 2, SPOILT)
    ending = keeper.ending
    assert ending is not None
    assert ending.code == ExitCode.DIVERGED
    assert ending.message.startswith("diverged: w holds numbers that are not finite at step 2")
    assert f"the checkpoint before it is kept: {tmp_path}/1/step-1; " in ending.message
    keeper.close()
