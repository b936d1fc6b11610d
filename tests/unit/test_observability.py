"""Rules and runbooks, without Prometheus."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import OPTIONS
from observability import alerts, recording
from observability.files import BOARDS, files
from observability.pace import DAY, HOUR, MINUTE, Pace

ROOT = Path(__file__).parents[2]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
NAMES = [alert.name for alert in (*alerts.of_training(Pace()), *alerts.of_operator(Pace()))]
SECONDS = {"ms": Fraction(1, 1000), "s": 1, "m": MINUTE, "h": HOUR, "d": DAY}


@pytest.mark.parametrize("path", files())
def test_what_is_committed_is_current(path: str) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == files()[path], "run `make docs`"


@given(seconds=st.integers(1, 10 * DAY), factor=st.sampled_from([Fraction(1), Fraction(1, 2), Fraction(1, 60)]))
def test_a_duration_is_what_it_says(seconds: int, factor: Fraction) -> None:
    written = re.fullmatch(r"(\d+)(ms|s|m|h|d)", Pace(factor)(seconds))
    assert written
    assert abs(int(written[1]) * SECONDS[written[2]] - seconds * factor) < Fraction(1, 1000)


def test_a_faster_clock_changes_durations_alone() -> None:
    def shape(pace: Pace) -> list[tuple[str, str]]:
        rules = [(each.name, each.expression) for each in recording.of_training(pace) + recording.of_operator(pace)]
        rules += [(each.name, each.expression) for each in alerts.of_training(pace) + alerts.of_operator(pace)]
        return [(name, re.sub(r"\[\w+\]|\b(300|30)\b", "", expression)) for name, expression in rules]

    assert shape(Pace(Fraction(1, 10))) == shape(Pace())


def test_what_the_page_of_metrics_links_to_is_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)", files()["docs/metrics.md"]):
        assert (ROOT / "docs" / link).is_file(), link


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    assert sorted(NAMES) == [path.stem for path in RUNBOOKS]


@pytest.mark.parametrize("path", RUNBOOKS, ids=lambda path: path.stem)
def test_a_runbook_says_what_it_means_where_to_look_and_what_to_do(path: Path) -> None:
    text = path.read_text()
    title, meaning, look, do = re.split(r"\n\n## (?:Look|Do)\n\n|\n\n", text, maxsplit=3)
    assert title == f"# {path.stem}"
    assert all((meaning, look.startswith("1. "), do.startswith("- ")))
    options = {option.spec for option, _ in OPTIONS.values()}
    assert set(re.findall(r"`training\.(\w+)`", text)) <= options
    titles = {panel.title for board in BOARDS for panel in board.panels} | {
        title for board in BOARDS for title in (board.title, *(row.title for row in board.rows))
    }
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]*)\*", " ".join(text.split())))
    assert named - {"Targets"} <= titles  # that page is Prometheus's
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / link).is_file(), link
