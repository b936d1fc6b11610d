"""PURE: everything that is made here, as files of the repository."""

from __future__ import annotations

from observability.dashboards import experiment, fleet, operator
from observability.dashboards.build import json_of
from observability.pace import Pace
from observability.page import markdown
from observability.rules import rule_files

CHART = "charts/resnet-operator"
BOARDS = (fleet.BOARD, experiment.BOARD, operator.BOARD)


def files() -> dict[str, str]:
    """Path in the repository -> content."""
    rules = {f"{CHART}/rules/{name}": content for name, content in rule_files(Pace()).items()}
    boards = {f"{CHART}/dashboards/{board.name}.json": json_of(board) for board in BOARDS}
    return rules | boards | {"docs/metrics.md": markdown(BOARDS)}
