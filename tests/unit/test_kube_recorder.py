"""The same event again raises a count, and a failure to tell one harms nothing."""

from __future__ import annotations

from typing import Any

from controller.events import Event
from controller.kube import recorder as module
from controller.kube.client import ApiError
from controller.kube.recorder import Recorder
from tests.unit.documents import experiment

HUNG = Event("Warning", "Hung", "attempt 1 hung")


class Api:
    """Keeps events by name; `error` is what it answers instead."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.error: ApiError | None = None

    def create(self, _resource: object, _namespace: str, document: dict[str, Any]) -> None:
        if self.error:
            raise self.error
        assert document["metadata"]["name"] not in self.events
        self.events[document["metadata"]["name"]] = document

    def patch(self, _resource: object, _namespace: str, name: str, patch: dict[str, Any]) -> None:
        if self.error:
            raise self.error
        if name not in self.events:
            raise ApiError(404, "NotFound", "no such event")
        self.events[name] |= patch


def test_one_that_repeats_is_counted_up_and_another_stands_beside_it() -> None:
    api = Api()
    recorder = Recorder(api, "me")  # type: ignore[arg-type]
    for event in (HUNG, HUNG, Event("Warning", "Hung", "attempt 2 hung"), HUNG):
        recorder.tell(experiment(), event)
    assert [each["count"] for each in api.events.values()] == [3, 1]
    first = next(iter(api.events.values()))
    assert first["involvedObject"]["uid"] == "uid-of-experiment"
    assert (first["type"], first["reason"], first["source"]) == ("Warning", "Hung", {"component": "resnet-operator"})


def test_one_that_the_api_server_has_forgotten_is_told_anew() -> None:
    api = Api()
    recorder = Recorder(api, "me")  # type: ignore[arg-type]
    recorder.tell(experiment(), HUNG)
    api.events.clear()
    recorder.tell(experiment(), HUNG)
    assert len(api.events) == 1


def test_one_that_can_not_be_told_is_lost_and_no_error() -> None:
    api = Api()
    recorder = Recorder(api, "me")  # type: ignore[arg-type]
    api.error = ApiError(403, "Forbidden", "no")
    recorder.tell(experiment(), HUNG)
    recorder.tell(experiment(), HUNG)
    assert api.events == {}


def test_no_more_than_so_many_are_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_KEPT", 3)
    api = Api()
    recorder = Recorder(api, "me")  # type: ignore[arg-type]
    for number in range(6):
        recorder.tell(experiment(), Event("Normal", "Running", f"attempt {number}"))
    assert len(recorder._known) == 3
