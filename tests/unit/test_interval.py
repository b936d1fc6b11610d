"""What is counted on the device between two log lines."""

from __future__ import annotations

import math

import pytest
import torch

from app.accelerators.cpu import Cpu
from app.interval import Interval

CPU = torch.device("cpu")


def test_non_finite_losses_are_counted_and_those_in_a_row() -> None:
    interval, cpu = Interval(CPU), Cpu()
    for loss in (1.0, math.nan, 3.0, math.inf, math.nan):
        interval.count(torch.tensor(loss))
        interval.busy(10.0, 10.5)
    assert interval.nonfinite_in_row == 0, "until it is read"
    assert interval.losing() == 2
    assert interval.read(cpu)["loss"] == 2.0
    assert (interval.nonfinite_steps, interval.nonfinite_in_row) == (3, 2)
    assert interval.busy_seconds == pytest.approx(2.5)
    interval.count(torch.tensor(math.nan))
    interval.busy(20.0, 20.5)
    assert math.isnan(interval.read(cpu)["loss"])
    assert interval.nonfinite_in_row == 3, "a row of non-finite losses goes on over a log line"
    assert interval.busy_seconds == pytest.approx(3.0)
    interval.count(torch.tensor(4.0))
    assert interval.read(cpu) == {"loss": 4.0, "last_loss": 4.0}
    assert (interval.nonfinite_steps, interval.nonfinite_in_row, interval.losing()) == (4, 0, 0)


@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_the_loss_scaler_left_out_are_counted_in_a_row(fused: bool) -> None:
    # A fused optimizer is called in every step and skips by itself; a plain one is not called.
    weight = torch.ones(3, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    interval = Interval(CPU)
    optimizer.register_step_post_hook(lambda optimizer, *_: interval.updated(optimizer))
    rows = []
    for overflow in (0, 1, 1, 1, 0, 1):
        before = weight.detach().clone()
        loss = weight.sum() * (math.inf if overflow else 1.0)
        scaler.scale(loss).backward()
        interval.count(torch.tensor(1.0))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        interval.read(Cpu())
        rows.append(interval.skipped_in_row)
        assert torch.equal(weight.detach(), before) == bool(overflow)
    assert rows == [0, 1, 2, 3, 0, 1]


def test_without_a_loss_scaler_no_step_is_left_out() -> None:
    optimizer = torch.optim.SGD([torch.ones(3, requires_grad=True)], lr=0.1)
    interval = Interval(CPU)
    optimizer.register_step_post_hook(lambda optimizer, *_: interval.updated(optimizer))
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(3):
        interval.count(torch.tensor(1.0))
        scaler.step(optimizer)
    interval.read(Cpu())
    assert interval.skipped_in_row == 0
