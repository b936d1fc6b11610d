from __future__ import annotations

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.events import EventLog, read_events


def test_each_event_is_one_line_that_names_its_time_kind_attempt_epoch_and_step(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", attempt=3)
    log.append("train", epoch=1, step=20, loss=2.5, learning_rate=0.1)
    log.append("validate", epoch=1, step=28, top1=0.9)
    first, second = (json.loads(text) for text in (tmp_path / "events.jsonl").read_text().splitlines())
    time = first.pop("time")
    assert first == {"kind": "train", "attempt": 3, "epoch": 1, "step": 20, "loss": 2.5, "learning_rate": 0.1}
    assert time <= second["time"]
    assert read_events(tmp_path / "events.jsonl") == [{"time": time, **first}, second]


def test_what_is_not_finite_becomes_null_at_any_depth(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl", attempt=1)
    log.append("train", epoch=1, step=1, loss=math.nan, more={"ips": [math.inf, 1.0]})
    (event,) = read_events(tmp_path / "events.jsonl")
    assert (event["loss"], event["more"]) == (None, {"ips": [None, 1.0]})


def test_a_file_that_cannot_be_written_is_counted_and_tried_again(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "absent" / "events.jsonl", attempt=1)
    log.append("start", epoch=0, step=0)
    assert log.failures == 1
    assert str(tmp_path / "absent") in log.error
    (tmp_path / "absent").mkdir()
    log.append("train", epoch=1, step=1)
    assert (log.failures, log.error) == (1, "")
    assert [event["kind"] for event in read_events(tmp_path / "absent" / "events.jsonl")] == ["train"]


def test_no_file_is_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path / "events.jsonl") == []


@given(cut=st.integers(0, 400))
def test_whatever_a_crash_cut_off_the_events_before_and_after_it_are_read(tmp_path_factory, cut: int) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.mktemp("events") / "events.jsonl"
    log = EventLog(path, attempt=1)
    for step in range(4):
        log.append("train", epoch=1, step=step, loss="é")
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n") + (whole[cut : cut + 1] == b"\n")  # all but its line's end is a whole event
    assert [event["step"] for event in read_events(path)] == list(range(kept))
    EventLog(path, attempt=2).append("start", epoch=1, step=9)
    assert [event["step"] for event in read_events(path)] == [*range(kept), 9]
