"""The dashboards keep the rules of Grafana's own linter, and ask for nothing that does not exist.

The linter also wants variables `job` and `instance`, by which a server is told from others. What is watched here is an
experiment, whose pods come and go: `namespace` and `experiment` take their place.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from observability import alerts, recording
from observability.dashboards.panels import Kind, Panel, Query, Row, lay_out
from observability.files import BOARDS, CHART, files
from observability.metrics import known_names
from observability.pace import Pace
from tests.promql import filled_in

DASHBOARDS = {name: json.loads(text) for name, text in files().items() if name.startswith(f"{CHART}/dashboards/")}
PACE = Pace()
RECORDED = {rule.name for rule in (*recording.of_training(PACE), *recording.of_operator(PACE))}
COUNTED_BY = {"rate", "increase", "irate"}
# Ids of Grafana's unit formats; "none" is one.
UNITS = {"none", "percentunit", "s", "bytes", "ops", "locale"}

dashboards = pytest.mark.parametrize("board", DASHBOARDS.values(), ids=lambda board: board["uid"])


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def expressions(board: dict[str, Any]) -> list[str]:
    """Every query of a dashboard."""
    return [target["expr"] for panel in panels(board) for target in panel["targets"]]


def selectors(node: Any, inside: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every selector of an expression, with the functions around it."""
    match node:
        case promql_parser.VectorSelector():
            yield node, inside
        case promql_parser.MatrixSelector():
            yield node.vector_selector, inside
        case promql_parser.Call():
            for argument in node.args:
                yield from selectors(argument, (*inside, node.func.name))
        case promql_parser.BinaryExpr():
            yield from selectors(node.lhs, inside)
            yield from selectors(node.rhs, inside)
        case promql_parser.AggregateExpr() | promql_parser.ParenExpr() | promql_parser.UnaryExpr():
            yield from selectors(node.expr, inside)
        case promql_parser.SubqueryExpr():
            yield from selectors(node.expr, inside)


def parsed(expression: str) -> list[tuple[Any, tuple[str, ...]]]:
    """The selectors of a query, Grafana's variables filled in."""
    return list(selectors(promql_parser.parse(filled_in(expression, namespace="team", experiment="digits"))))


@dashboards
def test_it_is_one_that_nobody_edits_in_place(board: dict[str, Any]) -> None:
    assert board["editable"] is False
    assert re.fullmatch(r"resnet-[a-z]+", board["uid"])
    assert board["schemaVersion"] == 42
    assert "id" not in board


@dashboards
def test_it_has_one_variable_for_the_data_source(board: dict[str, Any]) -> None:
    (source,) = (each for each in board["templating"]["list"] if each["type"] == "datasource")
    assert (source["name"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")


@dashboards
def test_its_other_variables_follow_the_time_range(board: dict[str, Any]) -> None:
    variables = {each["name"]: each for each in board["templating"]["list"] if each["type"] == "query"}
    assert {"namespace"} <= set(variables) <= {"namespace", "experiment"}
    for each in variables.values():
        assert (each["refresh"], each["datasource"]["uid"]) == (2, "${datasource}")
    several = variables["namespace"]
    assert (several["multi"], several["includeAll"], several["allValue"]) == (True, True, ".+")


@dashboards
def test_every_panel_says_what_it_is_in_which_unit_and_asks_for_something(board: dict[str, Any]) -> None:
    for panel in panels(board):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles)


@dashboards
def test_nothing_overlaps_or_leaves_the_page(board: dict[str, Any]) -> None:
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for a, b in itertools.combinations(places, 2):
        beside = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        below = a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"]
        assert beside or below, (a, b)
    assert len({panel["id"] for panel in board["panels"]}) == len(places)


@dashboards
def test_every_query_is_promql_over_series_that_exist_and_keeps_to_what_was_chosen(board: dict[str, Any]) -> None:
    variables = {each["name"] for each in board["templating"]["list"]} - {"datasource"}
    for expression in expressions(board):
        for selector, functions in parsed(expression):
            assert selector.name in known_names() | RECORDED | {"ALERTS"}, expression
            chosen = {matcher.name for matcher in selector.matchers.matchers}
            # An alert about the operator has no experiment, and one that it is down no namespace.
            assert chosen >= variables or selector.name == "ALERTS", expression
            if selector.name.endswith("_total"):
                assert functions[-1] in COUNTED_BY, expression


@dashboards
def test_a_rate_is_taken_over_an_interval_that_fits_the_scrapes(board: dict[str, Any]) -> None:
    ranges = re.findall(r"\[([^\]]+)\]", " ".join(expressions(board)))
    assert set(ranges) <= {"$__rate_interval", "$__range"}


@pytest.mark.parametrize(
    "rule",
    [*recording.of_training(PACE), *recording.of_operator(PACE), *alerts.of_training(PACE), *alerts.of_operator(PACE)],
    ids=lambda rule: rule.name,
)
def test_a_rule_is_made_of_series_that_exist(rule: recording.Recording | alerts.Alert) -> None:
    names = {selector.name for selector, _ in parsed(rule.expression)}
    assert names
    assert names <= known_names() | RECORDED


def test_every_series_that_is_recorded_is_shown_or_told_of() -> None:
    asked = {
        selector.name for board in DASHBOARDS.values() for each in expressions(board) for selector, _ in parsed(each)
    }
    for alert in (*alerts.of_training(PACE), *alerts.of_operator(PACE)):
        asked |= {selector.name for selector, _ in parsed(alert.expression)}
    assert asked >= RECORDED


def test_a_panel_that_is_too_wide_is_refused() -> None:
    panel = Panel("Wide", "It is.", "none", [Query("up", "")], width=25, kind=Kind.STAT)
    with pytest.raises(ValueError, match="Wide: a width of 25 does not fit 24 columns"):
        list(lay_out([Row("Row", [panel])]))


def test_links_between_dashboards_lead_somewhere() -> None:
    names = {board.name for board in BOARDS}
    assert {name for board in BOARDS for name in board.links} <= names
    assert {panel.link for board in BOARDS for panel in board.panels} - {""} <= names
