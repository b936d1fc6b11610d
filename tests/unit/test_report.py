"""report.html: what it shows of a run, and that nothing of a run's text gets out of its place."""

import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api import Experiment, HistoryEntry, Status, load
from controller.report import render_report
from controller.report.chart import Chart, Line, describe, draw, thin, tick_label, ticks
from controller.report.curves import Point, counted, curves

TEXT = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: digits}
spec:
  model: resnet18
  accelerator: {type: cpu, cardsPerNode: 2}
  nodes: 2
  dataset: {name: digits}
  training: {epochs: 2, batchSizePerDevice: 32}
"""


def experiment(**status: Any) -> Experiment:
    return load(TEXT, "digits.yaml").model_copy(update={"status": Status(**status)})


def event(kind: str, step: int, attempt: int = 1, epoch: int = 1, **values: Any) -> dict[str, Any]:
    return {"time": 1e9 + step, "kind": kind, "attempt": attempt, "epoch": epoch, "step": step, **values}


def train(step: int, loss: float | None, attempt: int = 1) -> dict[str, Any]:
    return event("train", step, attempt, loss=loss, learning_rate=0.1, images_per_second=1234.0)


TWO_STARTS = [
    event("start", 0),
    *(train(step, 3.0) for step in (1, 2, 3, 4)),
    event("start", 2, attempt=2),
    *(train(step, 1.0, attempt=2) for step in (3, 4, 5)),
    event("validate", 5, attempt=2, top1=0.9876, loss=0.2),
]


class Page(HTMLParser):
    """Every tag with its attributes, and every text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_was_done_again_is_kept_apart_and_the_later_start_counts():
    loss = curves(TWO_STARTS).train_loss
    assert [(p.step, p.value) for p in counted(loss)] == [(1, 3.0), (2, 3.0), (3, 1.0), (4, 1.0), (5, 1.0)]
    assert [p.step for p in loss if p.redone] == [3, 4]


def test_a_start_that_went_further_back_takes_over_from_all_before_it():
    events = [
        event("start", 0), train(1, 1.0), train(2, 1.0),
        event("start", 2, attempt=2), train(3, 2.0, 2),
        event("start", 1, attempt=3), train(2, 3.0, 3),
    ]  # fmt: skip
    assert [(p.step, p.value) for p in counted(curves(events).train_loss)] == [(1, 1.0), (2, 3.0)]


def test_an_epoch_that_is_validated_again_after_a_resume_counts_once():
    events = [
        event("start", 0), event("validate", 5, top1=0.1),
        event("start", 5, attempt=2), event("validate", 5, attempt=2, top1=0.2),
    ]  # fmt: skip
    assert [(p.step, p.value) for p in counted(curves(events).top1)] == [(5, 0.2)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), min_size=1, max_size=6))
def test_however_often_it_resumes_the_counted_steps_never_go_back(starts: list[tuple[int, int]]):
    events = []
    for attempt, (first, length) in enumerate(starts, 1):
        events.append(event("start", first, attempt))
        events += [train(step, 1.0, attempt) for step in range(first + 1, first + 1 + length)]
    steps = [p.step for p in counted(curves(events).train_loss)]
    assert steps == sorted(set(steps))


def test_a_loss_that_was_not_finite_breaks_the_line_and_is_no_number_of_the_epoch():
    found = curves([event("start", 0), train(1, 1.0), train(2, None), train(3, 2.0)])
    assert math.isnan(found.train_loss[1].value)
    assert found.epochs[0].train_loss == 2.0
    svg = draw(Chart("Loss", "", [Line("training", found.train_loss)], str))
    assert svg.count("<polyline") == 2


@pytest.mark.parametrize(
    ("low", "high", "result"),
    [
        (0, 100, [0, 50, 100]),
        (0, 1, [0, 0.5, 1]),
        (10, 73, [0, 25, 50, 75]),
        (70, 98, [70, 80, 90, 100]),
        (0.1, 0.34, [0.1, 0.2, 0.3, 0.4]),
        (5, 5, [2, 4, 6, 8]),
        (0, 0, [-0.5, 0, 0.5]),
    ],
)
def test_ticks_are_round_numbers_around_the_values(low: float, high: float, result: list[float]):
    assert ticks(low, high, 4) == pytest.approx(result)


@given(st.floats(-1000, 1000), st.floats(1e-6, 1e6))
def test_ticks_always_enclose_the_values_and_are_few(low: float, span: float):
    found = ticks(low, low + span)
    assert found[0] <= low + 1e-6 * span
    assert found[-1] >= low + span * (1 - 1e-6)
    assert 2 <= len(found) <= 8
    assert len({tick_label(tick, found) for tick in found}) == len(found)


def test_a_value_far_above_all_others_does_not_flatten_the_curve():
    points = [Point(i, 1, 82.906 if i == 1 else 2.0, 0, False) for i in range(1, 60)]
    svg = draw(Chart("Loss", "", [Line("validation", points)], "{:.3f}".format, clipped=True))
    labels = re.findall(r'class="y">([^<]*)<', svg)
    assert max(map(float, labels)) <= 4
    assert "82.906</text>" in svg
    assert "82.906" not in draw(Chart("Loss", "", [Line("training", points[1:])], "{:.3f}".format, clipped=True))


def test_tick_labels_have_the_same_decimals():
    assert [tick_label(t, [0.0, 0.05, 0.1]) for t in (0.0, 0.05, 0.1)] == ["0.00", "0.05", "0.10"]
    assert [tick_label(t, [0.0, 2.5, 5.0]) for t in (0.0, 2.5, 5.0)] == ["0.0", "2.5", "5.0"]
    assert tick_label(20_000, [0, 20_000]) == "20\u202f000"


def test_many_points_are_thinned_without_losing_the_ends_and_the_peaks():
    points = [Point(i, 1, 9.0 if i == 7777 else float(i % 3), 0, False) for i in range(20_000)]
    thinned = thin(points)
    assert len(thinned) <= 600
    assert (thinned[0], thinned[-1]) == (points[0], points[-1])
    assert points[7777] in thinned
    assert [p.step for p in thinned] == sorted(p.step for p in thinned)


def test_a_chart_tells_its_content_to_those_who_can_not_see_it():
    chart = Chart("Loss", "cross-entropy", [Line("training", curves(TWO_STARTS).train_loss)], lambda v: f"{v:.1f}")
    assert describe(chart) == ("Loss (cross-entropy) over optimizer steps. training: 3.0 at step 1, 1.0 at step 5.")
    assert describe(chart) in Page(draw(chart)).tags[0][1]["aria-label"]


def test_the_page_shows_result_attempts_settings_and_curves():
    history = [
        HistoryEntry(
            attempt=1, start="2026-01-01T00:00:00Z", end="2026-01-01T00:01:00Z", reason="Killed", counted=True, step=4
        ),
        HistoryEntry(attempt=2, start="2026-01-01T00:10:00Z", end="2026-01-01T00:11:05Z", reason="Succeeded", step=5),
    ]
    html = render_report(
        experiment(
            phase="Succeeded", attempt=2, restarts=1, history=history, top1=0.9876, best_top1=0.9888, epoch=2, step=5,
        ),
        TWO_STARTS,
        0.0,
    )  # fmt: skip
    page = Page(html)
    for text in ("98.76 %", "best 98.88 %", "2 min 5 s", "Killed", "--batch_size", "global batch", "attempt 2"):
        assert text in page.text
    assert [attrs["class"] for tag, attrs in page.tags if tag == "svg"] == ["chart"] * 4 + ["timeline"]
    assert "done again" in page.text


def test_the_page_loads_nothing_from_anywhere():
    html = render_report(experiment(), TWO_STARTS, 0.0)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", html.replace("<!doctype html>", ""))
    assert not [tag for tag, attrs in Page(html).tags if tag in ("link", "img", "iframe") or "src" in attrs]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [event("start", 0)],
        [event("start", 0), train(1, 2.0)],
        [event("start", 0), train(1, None)],
        [train(5, 1.0)],
        [event("validate", 3, top1=1.0, loss=0.0)],
        [event("validate", 3, top1=1.0, loss=0.0, confused=[["a", "b", 1], 7, ["a", "b", "c", 4]])],
        [{"kind": "train"}, {"kind": "start", "step": "x"}, {}],
    ],
)
def test_few_missing_and_odd_events_still_make_a_page(events: list[dict[str, Any]]):
    page = Page(render_report(experiment(), events, 0.0))
    assert "nan" not in page.text.lower().split()
    assert "Learning rate" in page.text


def test_text_of_a_run_stays_text():
    evil = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    events = [event("start", 0), train(1, 1.0), event("start", 1, attempt=2), train(2, 1.0, attempt=2)]
    html = render_report(experiment(phase="Failed", message=evil, attempt=1), events, 0.0)
    assert evil in Page(html).text
    assert "<script>alert" not in html
    assert [tag for tag, _ in Page(html).tags].count("script") == 1
