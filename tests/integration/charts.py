"""What the tests of the charts share: the examples, both versions of Helm, and a chart with content."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, get_args

import yaml

from controller.chart import read_examples
from tests.cluster.helm import CHARTS, Program
from tests.cluster.kubectl import Object

ROOT = CHARTS.parent
PROGRAMS: tuple[Program, ...] = get_args(Program)
EXAMPLES = read_examples(ROOT / "examples")
OPERATOR, EXPERIMENT = "resnet-operator", "resnet-experiment"
CRD = "resnetexperiments.resnet-operator.io"
MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
BOARD = '{"title": "ResNet", "legend": "{{namespace}}/{{ experiment }}", "quote": "a \\"b\\" \u2013 \'c\'"}\n'
RULES: Any = {
    "name": "one",
    "rules": [{"alert": "Away", "expr": "up == 0", "annotations": {"summary": "{{ $labels.pod }} is `away`"}}],
}


def one(objects: list[Object], kind: str) -> Object:
    """The object of that kind."""
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def with_content(tmp_path: Path) -> str:
    """The operator's chart with a dashboard and two rules in it, all of them with braces that are not Helm's."""
    folder = tmp_path / OPERATOR
    shutil.copytree(CHARTS / OPERATOR, folder, ignore=shutil.ignore_patterns("dashboards", "rules"))
    for name in ("dashboards", "rules"):
        (folder / name).mkdir()
    (folder / "dashboards" / "one.json").write_text(BOARD)
    (folder / "rules" / "one.yaml").write_text(yaml.safe_dump({"groups": [RULES]}))
    (folder / "rules" / "two.yaml").write_text(yaml.safe_dump({"groups": [{**RULES, "name": "two"}]}))
    return str(folder)
