"""The metrics as a scraper sees them."""

from __future__ import annotations

import dataclasses
import math

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.config import TrainConfig
from app.resilience.heartbeat import Beat, Phase
from app.telemetry.identity import Identity
from app.telemetry.metrics import OF_THE_RUN, RULES, SERIES, Beats, registry

WHO = Identity("team", "resnet50", "uid", 3, "pod")
CONFIG = TrainConfig(model="resnet50", device="sdaa", dataset="imagenet", nnodes=2, nproc_per_node=2)
BEAT = Beat(
    phase=Phase.TRAIN, epoch=2, epochs=8, step=30, steps=90, images=960, nonfinite_steps=1, bad_images=4,
    checkpoint_step=20, checkpoint_bytes=1000, checkpoint_failures=2, memory_bytes=77, moved_at=90.0, beat_at=100.0,
    updated_at=1_700_000_100.0, first_step_at=1_700_000_010.0, busy_seconds=12.5, data_wait_seconds=0.5, loss=1.5,
    learning_rate=0.1, gradient_scale=65536.0, images_per_second=1125.0, eta_seconds=60.0, top1=0.9, top5=0.99,
    best_top1=0.95, validation_loss=1.1, checkpoint_time=1_700_000_000.0, checkpoint_seconds=3.0, step_seconds_sum=4.5,
    step_seconds_buckets=[0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 1], slowdown_ratio=1.5, straggler_rank=1,
    straggler_ratio=1.5,
)  # fmt: skip

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(beats: Beats) -> Samples:
    text = generate_latest(registry(WHO, CONFIG, lambda: beats)).decode()
    result: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("namespace") == "team"
            assert labels.pop("experiment") == "resnet50"
            result[sample.name, tuple(sorted(labels.items()))] = sample.value
    return result


def test_every_value_of_node_0() -> None:
    samples = scrape({0: BEAT, 1: dataclasses.replace(BEAT, busy_seconds=99.0, slowdown_ratio=0.5, memory_bytes=78)})
    phases = {name: samples.pop(("resnet_training_phase", (("phase", name),))) for name in
              ("start", "scan", "first_step", "train", "validate", "checkpoint", "export", "done")}  # fmt: skip
    assert [name for name, value in phases.items() if value] == ["train"]
    buckets = [value for (name, _), value in samples.items() if name == "resnet_training_step_seconds_bucket"]
    assert buckets == [0, 0, 0, 1, 3, 3, 3, 3, 3, 3, 3, 3, 4]
    rest = {key: value for key, value in samples.items() if key[0] != "resnet_training_step_seconds_bucket"}
    assert rest == {
        ("resnet_training_info", (("dataset", "imagenet"), ("device", "sdaa"), ("model", "resnet50"))): 1,
        ("resnet_training_world_size", ()): 4,
        ("resnet_training_epoch", ()): 2,
        ("resnet_training_epochs", ()): 8,
        ("resnet_training_steps_total", ()): 30,
        ("resnet_training_planned_steps", ()): 90,
        ("resnet_training_images_total", ()): 960,
        ("resnet_training_loss", ()): 1.5,
        ("resnet_training_learning_rate", ()): 0.1,
        ("resnet_training_gradient_scale", ()): 65536,
        ("resnet_training_images_per_second", ()): 1125,
        ("resnet_training_eta_seconds", ()): 60,
        ("resnet_training_step_seconds_count", ()): 4,
        ("resnet_training_step_seconds_sum", ()): 4.5,
        ("resnet_training_data_wait_seconds_total", ()): 0.5,
        ("resnet_training_rank_busy_seconds_total", (("rank", "0"),)): 12.5,
        ("resnet_training_rank_busy_seconds_total", (("rank", "1"),)): 99,
        ("resnet_training_rank_slowdown_ratio", (("rank", "0"),)): 1.5,
        ("resnet_training_rank_slowdown_ratio", (("rank", "1"),)): 0.5,
        ("resnet_training_nonfinite_steps_total", ()): 1,
        ("resnet_training_bad_images_total", ()): 4,
        ("resnet_training_last_progress_timestamp_seconds", ()): 1_700_000_090,
        ("resnet_training_first_step_timestamp_seconds", ()): 1_700_000_010,
        ("resnet_validation_top1_ratio", ()): 0.9,
        ("resnet_validation_top5_ratio", ()): 0.99,
        ("resnet_validation_loss", ()): 1.1,
        ("resnet_checkpoint_interval_seconds", ()): 600,
        ("resnet_checkpoint_last_success_timestamp_seconds", ()): 1_700_000_000,
        ("resnet_checkpoint_write_seconds", ()): 3,
        ("resnet_checkpoint_bytes", ()): 1000,
        ("resnet_checkpoint_failures_total", ()): 2,
        ("resnet_accelerator_memory_bytes", (("rank", "0"),)): 77,
        ("resnet_accelerator_memory_bytes", (("rank", "1"),)): 78,
    }


def test_other_nodes_show_only_their_own_ranks() -> None:
    names = set(scrape({2: BEAT, 3: BEAT}))
    assert names == {
        (name, (("rank", rank),))
        for name in (
            "resnet_training_rank_busy_seconds_total",
            "resnet_training_rank_slowdown_ratio",
            "resnet_accelerator_memory_bytes",
        )
        for rank in ("2", "3")
    }


def test_what_does_not_exist_yet_is_left_out() -> None:
    samples = scrape({0: None})
    assert not [key for key, value in samples.items() if math.isnan(value)]
    names = {name for name, _ in samples}
    assert samples["resnet_training_phase", (("phase", "start"),)] == 1
    assert "resnet_training_world_size" in names
    for absent in ("resnet_training_loss", "resnet_validation_top1_ratio", "resnet_checkpoint_bytes",
                   "resnet_training_rank_slowdown_ratio", "resnet_training_first_step_timestamp_seconds",
                   "resnet_training_last_progress_timestamp_seconds"):  # fmt: skip
        assert absent not in names


def test_counters_of_the_run_begin_where_a_resumed_run_goes_on() -> None:
    counters = {series.name for series in SERIES if series.kind == "counter" and not series.labels}
    before = {name for name, _ in scrape({0: dataclasses.replace(BEAT, steps=0)})}
    assert not counters & before
    assert counters <= {name for name, _ in scrape({0: dataclasses.replace(BEAT, step=0, images=0)})}


def test_table_names_existing_sources_and_keeps_the_naming_rules() -> None:
    fields = {field.name for field in dataclasses.fields(Beat)}
    assert len({series.name for series in SERIES}) == len(SERIES)
    for series in SERIES:
        assert series.source in fields | set(RULES) | set(OF_THE_RUN) | {"config"}, series.name
        assert series.name.endswith("_total") == (series.kind == "counter"), series.name
        assert series.help.endswith("."), series.name
        assert set(series.labels) <= {"rank", "phase", "model", "dataset", "device"}, series.name
