"""The pages of runs, in a real Chromium: what it shows is what the event files say, in both colour schemes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller import cli
from controller.api import HistoryEntry, Status, load
from controller.local.rundir import RunDirectory
from tests.browser import Browser, browser

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits.yaml"
STEPS, PER_EPOCH, LATER = 40, 10, 22
CONFUSED = [["three", "eight", 4, 36], ["one", "seven", 1, 37]]
# Every text against what is painted behind it, as WCAG 2 counts it.
CONTRAST = """
(() => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = text => channels(text).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if ((channels(color)[3] ?? 1) > 0) return color;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || element.closest("script, title")) continue;
    const style = getComputedStyle(element), svg = element instanceof SVGElement;
    const [a, b] = [light(svg ? style.fill : style.color), light(behind(element))];
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), walk.currentNode.data.trim()]);
  }
  return found.sort((a, b) => a[0] - b[0]).slice(0, 3);
})()
"""

UNNAMED = """
[...document.querySelectorAll("svg, .wide")]
  .filter(e => !e.ariaLabel && !document.getElementById(e.getAttribute("aria-labelledby")))
  .map(e => e.outerHTML.slice(0, 200))
"""
BOX = """
(({left, top, width, height}) => [left, top, width, height])(
  document.querySelector("svg.chart").getBoundingClientRect())
"""


def loss(step: int, rate: float) -> float:
    """Of a made-up training."""
    return round(2.5 * math.exp(-rate * step) + 0.01 * (step % 3), 6)


def events(rate: float) -> list[dict[str, Any]]:
    """Two starts, the later of which goes back behind what the first has done."""

    def event(kind: str, step: int, attempt: int, **values: Any) -> dict[str, Any]:
        epoch = max(1, -(-step // PER_EPOCH))
        return {"time": 1e9 + step, "kind": kind, "attempt": attempt, "epoch": epoch, "step": step, **values}

    found = []
    for attempt, (first, last) in enumerate(((0, LATER + 6), (LATER, STEPS)), 1):
        found.append(event("start", first, attempt))
        for step in range(first + 1, last + 1):
            speed = {"learning_rate": 0.1, "images_per_second": 100.0 + step % 7}
            found.append(event("train", step, attempt, loss=loss(step, rate), **speed))
            if step % PER_EPOCH == 0:
                judged = {"top1": step / 50, "top5": 1.0, "loss": 2 * loss(step, rate), "images": 360}
                found.append(event("validate", step, attempt, confused=CONFUSED, **judged))
    return found


def made(folder: Path, rate: float, learning_rate: float) -> Path:
    """A run directory as `resnetctl run` leaves it."""
    text = EXAMPLE.read_text().replace("training:\n", f"training:\n    learningRate: {learning_rate}\n", 1)
    history = [
        HistoryEntry(
            attempt=1, start="2026-01-01T00:00:00Z", end="2026-01-01T00:01:00Z", reason="Killed", counted=True
        ),
        HistoryEntry(attempt=2, start="2026-01-01T00:01:20Z", end="2026-01-01T00:02:40Z", reason="Succeeded"),
    ]
    status = Status(
        phase="Succeeded", attempt=2, restarts=1, top1=0.8, best_top1=0.8, epoch=4, step=STEPS, history=history
    )
    run = RunDirectory(folder)
    folder.mkdir(parents=True)
    run.save(load(text, "digits.yaml").model_copy(update={"status": status}))
    run.events.write_text("".join(json.dumps(event) + "\n" for event in events(rate)))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made(folder / "slow", 0.05, 0.01), made(folder / "fast", 0.1, 0.02)]


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def report(runs: list[Path]) -> str:
    assert cli.main(["report", str(runs[0])]) == 0
    return (runs[0] / "report.html").as_uri()


@pytest.fixture(scope="module")
def comparison(runs: list[Path]) -> str:
    path = runs[0].parent / "both.html"
    assert cli.main(["report", *map(str, runs), "-o", str(path)]) == 0
    return path.as_uri()


def cells(chromium: Browser, heading: str) -> list[list[str]]:
    """The table under a heading."""
    rows = f"document.querySelector('#{heading} + .card').querySelectorAll('tbody tr')"
    found: list[list[str]] = chromium.evaluate(f"[...{rows}].map(row => [...row.cells].map(cell => cell.innerText))")
    return found


def tips(chromium: Browser) -> list[str]:
    """What the tooltip that is shown says."""
    found: list[str] = chromium.evaluate(
        "[...document.querySelectorAll('.tip:not([hidden]) div')].map(line => line.textContent)"
    )
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("page", ["report", "comparison"])
def test_a_page_is_readable_and_needs_nothing_from_elsewhere(
    chromium: Browser, page: str, width: int, dark: bool, request: pytest.FixtureRequest
) -> None:
    chromium.open(request.getfixturevalue(page), width, dark=dark)
    assert chromium.complaints == []
    assert chromium.evaluate("performance.getEntriesByType('resource').length") == 0
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    scheme = "matchMedia('(prefers-color-scheme: dark)').matches"
    assert chromium.evaluate(scheme) is dark
    contrast, text = chromium.evaluate(CONTRAST)[0]
    assert contrast >= 4.5, text
    assert chromium.evaluate(UNNAMED) == []


def test_the_numbers_of_the_report_are_those_of_the_event_file(chromium: Browser, report: str) -> None:
    chromium.open(report)
    trained = [loss(step, 0.05) for step in range(1, STEPS + 1)]
    assert cells(chromium, "epochs") == [
        [
            str(epoch), str(last := epoch * PER_EPOCH), f"{trained[last - 1]:.3f}", f"{2 * trained[last - 1]:.3f}",
            f"{2 * last:.2f}", "0.1", f"{100 + sum(step % 7 for step in range(last - 9, last + 1)) / 10:.0f}",
        ]
        for epoch in range(1, 5)
    ]  # fmt: skip
    assert cells(chromium, "confused") == [["three", "eight", "4", "11.11"], ["one", "seven", "1", "2.70"]]
    bars = "[...document.querySelectorAll('.timeline title')].map(title => title.textContent)"
    assert chromium.evaluate(bars) == ["attempt 1: Killed after 1 min 0 s", "attempt 2: Succeeded after 1 min 20 s"]


def test_a_chart_says_under_the_mouse_what_the_event_file_says(chromium: Browser, report: str) -> None:
    chromium.open(report)
    box = chromium.evaluate(BOX)
    x = (58 + (560 - 58 - 16) * 30 / STEPS) / 560
    chromium.point(box[0] + x * box[2], box[1] + box[3] / 2)
    trained = loss(30, 0.05)
    assert tips(chromium) == [
        f"training {trained:.3f} · step 30 · epoch 3",
        f"validation {2 * trained:.3f} · step 30 · epoch 3",
    ]


def test_a_chart_is_read_with_the_keyboard_alone(chromium: Browser, report: str) -> None:
    chromium.open(report)
    for _ in range(5):
        chromium.press("Tab")
        if chromium.evaluate("document.activeElement.matches('svg.chart')"):
            break
    chromium.press("End")
    assert tips(chromium)[0] == f"training {loss(STEPS, 0.05):.3f} · step {STEPS} · epoch 4"
    chromium.press("ArrowLeft")
    assert tips(chromium)[0] == f"training {loss(STEPS - 1, 0.05):.3f} · step {STEPS - 1} · epoch 4"
    chromium.press("Home")
    assert tips(chromium)[0] == f"training {loss(1, 0.05):.3f} · step 1 · epoch 1"
    chromium.press("Escape")
    assert tips(chromium) == []


def test_runs_side_by_side_show_their_results_and_what_differs(chromium: Browser, comparison: str) -> None:
    chromium.open(comparison)
    slow, fast = cells(chromium, "results")
    assert slow[:5] == ["slow", "Succeeded", "80.00", "80.00", f"{loss(STEPS, 0.05):.3f}"]
    assert fast[4] == f"{loss(STEPS, 0.1):.3f}"
    assert slow[-2:] == ["2 min 20 s", "2"]
    assert cells(chromium, "differences") == [["--lr", "0.01", "0.02"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "nowhere"], "nowhere: no run lies here (there is no experiment.json)"),
        (["report", *"abcdefg"], "report: at most 6 runs fit side by side, not 7"),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 64
    line = capsys.readouterr().err
    assert said in line
    assert line.count("\n") == 1
