"""Rates and the lines of the log."""

import math
import re

import pytest

from app.config import TrainConfig
from app.telemetry import console
from app.telemetry.meter import Meter
from app.validation import Validation

SEED_LINE = re.compile(
    r"^TCAPPDLL \d{4}-\d\d-\d\d \d\d:\d\d:\d\d - Epoch: (\d+) Iteration: (\d+)  rank : (\d+) "
    r"train\.loss : ([\d.]+) train\.ips : ([\d.]+) imgs/s$"
)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_counts_the_images_of_all_ranks_and_the_share_of_waiting() -> None:
    clock = Clock()
    meter = Meter(global_batch=64, clock=clock)
    meter.begin()
    for _ in range(10):
        clock.now += 0.5
        assert meter.step(data_wait=0.1) == pytest.approx(0.5)
    assert meter.rates() == pytest.approx((128.0, 0.2))


def test_a_pause_between_epochs_is_in_no_rate() -> None:
    clock = Clock()
    meter = Meter(global_batch=10, clock=clock)
    meter.begin()
    clock.now += 1
    meter.step(0)
    meter.rates()
    clock.now += 1000
    meter.begin()
    clock.now += 1
    meter.step(0)
    assert meter.rates()[0] == pytest.approx(10.0)


def test_the_time_left_counts_steps_and_validations() -> None:
    clock = Clock()
    meter = Meter(global_batch=1, clock=clock)
    assert math.isnan(meter.eta(5, 0))
    meter.begin()
    clock.now += 2
    meter.step(0)
    meter.rates()
    meter.validated(7.0)
    assert meter.eta(steps_left=10, validations_left=3) == pytest.approx(10 * 2 + 3 * 7)


def test_the_seeds_line_is_as_its_parsers_read_it() -> None:
    line = console.seed_line(epoch=3, iteration=7, rank=0, loss=1.25, rank_images_per_second=281.5)
    found = SEED_LINE.match(line)
    assert found
    assert found.groups() == ("3", "7", "0", "1.250000", "281.50")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.6, "1m0s"), (47, "47s"), (192, "3m12s"), (11520, "3h12m"), (183600, "2d3h"), (-5, "0s")],
)
def test_a_duration_reads_as_a_person_says_it(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_the_lines_for_a_person_name_epoch_rate_and_result() -> None:
    config = TrainConfig(model="resnet18", device="cpu", dataset="digits", batch_size=16, learning_rate=0.064, epochs=8)
    values = {
        "epoch": 2, "step": 44, "steps": 176, "loss": 1.5, "learning_rate": 0.064, "images_per_second": 420.4,
        "data_wait_share": 0.031, "eta_seconds": 75.0,
    }  # fmt: skip
    line = console.train_line(config, values)
    assert line == "epoch 2/8 step 44/176 loss 1.5000 lr 0.064 420 img/s data wait 3% left 1m15s"
    result = Validation(images=360, top1=0.9861, top5=1.0, loss=0.21)
    assert "top-1 98.61% top-5 100.00%" in console.validation_line(config, 2, result, 0.9861)


def test_a_run_that_is_all_warm_up_is_warned_of_with_the_rate_it_ends_at() -> None:
    config = TrainConfig(model="resnet18", dataset="digits", batch_size=8, learning_rate=0.1, device="cpu",
                         epochs=2, warmup_epochs=4)  # fmt: skip
    assert console.only_warm_up_line(config) == (
        "train: warning: the warm-up of 4 epochs takes the whole run of 2: the learning rate ends at 0.05 and is never "
        "lowered; give more --epoch or less --warm_up"
    )


@pytest.mark.parametrize(
    ("options", "images", "steps", "said"),
    [
        ({}, 1437, 22, ["train: an epoch is 22 steps of 64 images: 29 of the 1437 are left out, others each time"]),
        ({}, 1408, 22, []),
        ({"steps_per_epoch": 10}, 1437, 10, []),
        (
            {"steps_per_epoch": 30},
            1437,
            22,
            ["train: --step 30: an epoch has no more than 22 steps, and ends with them"],
        ),
    ],
)
def test_an_epoch_says_what_it_leaves_out_and_where_step_asks_for_too_much(options, images, steps, said) -> None:
    config = TrainConfig(model="resnet18", dataset="digits", device="cpu", batch_size=64, learning_rate=0.1, **options)
    assert console.epoch_lines(config, images, steps) == said
