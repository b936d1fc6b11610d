"""The committed rules, as Prometheus itself reads and evaluates them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from observability import alerts
from observability.metrics import Program, programs
from observability.pace import Pace
from tests.cluster.toolchain import tool
from tests.integration.rule_scenarios import EXPERIMENT, HEALTHY, INTERVAL, POD, SCENARIOS, Scenario, series

RULES = sorted((Path(__file__).parents[2] / "charts" / "resnet-operator" / "rules").glob("*.yaml"))
ALERTS = [*alerts.of_training(Pace()), *alerts.of_operator(Pace())]
SEVERITY = {alert.name: alert.severity for alert in ALERTS}


def promtool(*arguments: str, typed: str = "") -> None:
    """Run promtool, which explains what it does not like on either stream."""
    done = subprocess.run([tool("promtool"), *arguments], input=typed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def evaluate(folder: Path, *tests: Mapping[str, Any]) -> None:
    """Let promtool evaluate the rules over made-up series."""
    content = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": f"{INTERVAL}s",
        "tests": [{"interval": f"{INTERVAL}s", **test} for test in tests],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(content))
    promtool("test", "rules", str(file))


def inputs(samples: Mapping[str, str]) -> list[dict[str, str]]:
    """Series as promtool wants them."""
    return [{"series": name, "values": values} for name, values in samples.items()]


def expected(expression: str, minute: float, samples: Mapping[str, float]) -> dict[str, Any]:
    """What an expression is to yield."""
    found = [{"labels": labels, "value": value} for labels, value in samples.items()]
    return {"expr": expression, "eval_time": f"{round(60 * minute)}s", "exp_samples": found}


def firing(scenario: Scenario) -> dict[str, Any]:
    """What is to be seen in a scenario of its alert."""
    name = scenario.alert
    common = {"alertname": name, "alertstate": "firing", "severity": SEVERITY[name]}
    samples = {series("ALERTS", common, **labels): 1.0 for labels in scenario.fires}
    return expected(f'ALERTS{{alertname="{name}",alertstate="firing"}}', scenario.minute, samples)


def test_promtool_has_nothing_against_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))


@pytest.mark.parametrize("program", programs(), ids=lambda program: program.title)
def test_promtool_has_nothing_against_the_metrics(program: Program) -> None:
    promtool("check", "metrics", typed=program.text)


def test_every_alert_has_a_scenario_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    assert {each.alert for each in SCENARIOS if each.fires} == set(SEVERITY)
    assert {each.alert for each in SCENARIOS if not each.fires} == set(SEVERITY)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: f"{each.alert}: {each.what}")
def test_an_alert_fires_when_it_should_and_only_then(scenario: Scenario, tmp_path: Path) -> None:
    evaluate(tmp_path, {"input_series": inputs(scenario.input), "promql_expr_test": [firing(scenario)]})


def test_a_healthy_run_fires_nothing(tmp_path: Path) -> None:
    looks = [expected('ALERTS{alertstate="firing"}', minute, {}) for minute in range(10, 150, 5)]
    evaluate(tmp_path, {"input_series": inputs(HEALTHY), "promql_expr_test": looks})


def test_what_a_step_spends_its_time_on_adds_up_to_the_whole(tmp_path: Path) -> None:
    samples = {
        series("resnet_training_step_seconds_sum"): "0+30x30",
        series("resnet_training_data_wait_seconds_total"): "0+3x30",
        series("resnet_training_rank_busy_seconds_total", rank="0"): "0+21x30",
        series("resnet_training_rank_busy_seconds_total", rank="1"): "0+29x30",
    }
    name = "experiment:resnet_training_step_share:ratio"
    shares = {"data": 0.1, "busy": 0.7, "communication": 0.2}
    looks = [
        expected(f'round({name}{{part="{part}"}}, 0.001)', 10, {series("", EXPERIMENT, part=part): share})
        for part, share in shares.items()
    ]
    evaluate(tmp_path, {"input_series": inputs(samples), "promql_expr_test": looks})


def test_a_new_attempt_makes_neither_a_gap_nor_a_peak_in_the_throughput(tmp_path: Path) -> None:
    samples = {
        series("resnet_training_images_total", POD): "0+3000x20 stale",
        series("resnet_training_images_total", {**EXPERIMENT, "pod": "next"}): "_x21 60000+3000x20",
    }
    name = "experiment:resnet_training_images:rate"
    looks = [
        expected(f"round({name}, 20)", minute, {series("", EXPERIMENT): 100}) for minute in (5, 10, 11, 12, 13, 14, 18)
    ]
    evaluate(tmp_path, {"input_series": inputs(samples), "promql_expr_test": looks})
