"""When the operator says that it should be restarted."""

from __future__ import annotations

import time
from typing import Any

import pytest

from controller import operator as module
from controller.kube.client import ApiError
from controller.operator import Operator
from controller.options import parse


class Api:
    """Answers /version, or does not."""

    def __init__(self) -> None:
        self.up = True
        self.asked = 0

    def call(self, *_: Any, **__: Any) -> dict[str, Any]:
        self.asked += 1
        if not self.up:
            raise ApiError(0, "Unreachable", "away")
        return {}


class Leader:
    def leading(self) -> bool:
        return True


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Operator, Api]:
    monkeypatch.setattr(module, "STUCK_SECONDS", 5.0)
    api = Api()
    operator = Operator(parse([]), api, Leader(), "me")  # type: ignore[arg-type]
    operator._started = True
    return operator, api


def test_a_new_one_is_alive_and_not_ready_before_its_lists(made: tuple[Operator, Api]) -> None:
    operator, _ = made
    assert operator.alive() == ""
    assert operator.ready() == "waits for the first list of resnetexperiments"
    for reflector in operator._reflectors:
        reflector.synced.set()
    assert operator.ready() == ""


def test_a_worker_that_is_stuck_is_a_reason_to_restart(made: tuple[Operator, Api]) -> None:
    operator, _ = made
    operator._since["worker-3"] = time.monotonic() - 6
    assert operator.alive().startswith("worker-3 has looked at one experiment for 6 s")


def test_a_silent_watch_is_one_only_while_the_api_server_answers(made: tuple[Operator, Api]) -> None:
    operator, api = made
    operator._reflectors[-1].contact -= 6
    assert operator.alive() == "the watch of pods has been silent for 6 s"
    api.up = False
    assert operator.alive() == ""


def test_an_api_server_that_is_away_is_asked_once_however_many_watches_are_silent(made: tuple[Operator, Api]) -> None:
    operator, api = made
    api.up = False
    for reflector in operator._reflectors:
        reflector.contact -= 6
    assert (operator.alive(), api.asked) == ("", 1)


def test_a_replica_that_waits_to_lead_is_alive_and_ready(made: tuple[Operator, Api]) -> None:
    operator, _ = made
    operator._started = False
    operator._reflectors[0].contact -= 6
    assert (operator.alive(), operator.ready()) == ("", "")
