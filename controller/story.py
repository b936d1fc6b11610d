"""What `resnetctl list`, `watch` and `why` say of experiments, from their documents. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controller.crd import COLUMNS
from controller.figures import duration
from controller.status import FINISHED
from controller.times import to_unix

Document = Mapping[str, Any]
_GAP = "   "
_EVENTS = 15
NOT_SEEN = "the controller has not looked at it yet: is it running? (kubectl get pods -n resnet-operator)"
"""Of an experiment without a status."""
# Conditions that are as they should be say nothing new.
_WELL = {"ProgressReachable": "True", "Accepted": "True", "PodsScheduled": "True", "Running": "True"}


def table(experiments: Sequence[Document], now: float, *, namespaces: bool, wide: bool) -> list[str]:
    """The columns of `kubectl get`, a line each."""
    columns = [column for column in COLUMNS if wide or not column[3]]
    head = [*(["NAMESPACE"] if namespaces else []), "NAME", *(name.upper() for name, *_ in columns)]
    rows = [
        [
            *([each["metadata"]["namespace"]] if namespaces else []),
            each["metadata"]["name"],
            *(_cell(each, path, kind, now) for _, path, kind, _ in columns),
        ]
        for each in experiments
    ]
    widths = [max(map(len, cells)) for cells in zip(head, *rows, strict=True)]
    return [
        _GAP.join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]


def moment(status: Document) -> str:
    """Where an experiment is, in one line."""
    parts = [str(status.get("phase", "Pending"))]
    if status.get("attempt"):
        parts.append(f"attempt {status['attempt']}")
    if status.get("phase") != "Running":
        return ", ".join([*parts, *filter(None, [status.get("message")])])
    if status.get("trainingPhase"):
        parts.append(str(status["trainingPhase"]))
    if status.get("progress"):
        parts.append(f"epoch {status['progress']}")
    for name, words in (
        ("step", "step {}"), ("imagesPerSecond", "{:g} img/s"), ("loss", "loss {:.3f}"), ("top1Percent", "top-1 {} %"),
        ("eta", "{} left"),
    ):  # fmt: skip
        if status.get(name) is not None:
            parts.append(words.format(status[name]))
    return ", ".join(parts)


def well(status: Document) -> bool:
    """Whether an experiment trains and says so, has succeeded, or stands still because its user wants it to."""
    reachable = any(c["type"] == "ProgressReachable" and c["status"] == "True" for c in status.get("conditions") or ())
    phase = status.get("phase")
    return phase in ("Succeeded", "Suspended") or (phase == "Running" and reachable)


def story(experiment: Document, events: Sequence[Document], now: float) -> list[str]:
    """What has happened and why it is where it is: facts, attempts, conditions, events."""
    return list(_story(experiment, events, now))


def _story(experiment: Document, events: Sequence[Document], now: float) -> Iterator[str]:
    metadata, spec, status = experiment["metadata"], experiment["spec"], experiment.get("status") or {}
    devices = status.get("devices") or spec["accelerator"]["type"]
    yield f"{metadata['namespace']}/{metadata['name']}: {spec['model']} on {devices}, {status.get('phase', 'Pending')}"
    if not status:
        yield f"  {NOT_SEEN}"
        return
    if status.get("message"):
        yield f"  {status['message']}"
    yield from _attempts(status, now)
    yield from _conditions(status)
    yield from _events(events, now)


def _attempts(status: Document, now: float) -> Iterator[str]:
    history, attempt = status.get("history") or [], status.get("attempt", 0)
    if not attempt:
        return
    yield ""
    yield f"attempts: {attempt}, {status.get('restarts', 0)} of them ended by a fault that counts"
    if history and history[0]["attempt"] > 1:
        yield f"  the first {history[0]['attempt'] - 1} are not on record any more"
    for entry in history:
        took = _between(entry.get("start"), entry.get("end"))
        judged = "counts" if entry.get("counted") else "does not count"
        if entry["attempt"] == attempt and status.get("phase") in FINISHED:
            judged = "the end"
        facts = [f"step {entry['step']}" if entry.get("step") is not None else "", took and f"after {took}", judged]
        yield f"  {entry['attempt']:>3}  {entry['reason']:<20} {', '.join(filter(None, facts))}".rstrip()
    if not any(entry["attempt"] == attempt for entry in history[-1:]):
        since = _ago(status.get("attemptStartTime"), now)
        yield f"  {attempt:>3}  {'is under way':<20} {since and f'began {since}'}".rstrip()
    verdict = status.get("lastVerdict")
    if verdict:
        where = [f"{name} {verdict[name]}" for name in ("pod", "node") if verdict.get(name)]
        code = f"exit code {verdict['exitCode']}" if verdict.get("exitCode") is not None else ""
        found = ", ".join(filter(None, [*where, code]))
        yield f"last verdict: {verdict['reason']}{f' ({found})' if found else ''}: {verdict.get('message', '')}"
    if status.get("retryAt"):
        yield f"the next attempt begins at {status['retryAt']}"
    if status.get("lastCheckpoint") is not None:
        yield f"newest checkpoint: step {status['lastCheckpoint']}"


def _conditions(status: Document) -> Iterator[str]:
    told = [
        each
        for each in status.get("conditions") or ()
        if each.get("message") and _WELL.get(each["type"]) != each["status"]
    ]
    if told:
        yield ""
        yield "conditions:"
        for each in told:
            yield f"  {each['type']}={each['status']} ({each.get('reason', '')}): {each['message']}"


def _events(events: Sequence[Document], now: float) -> Iterator[str]:
    if not events:
        return
    newest = sorted(events, key=_order)[-_EVENTS:]
    yield ""
    yield "events:"
    for each in newest:
        times = f" (x{each['count']})" if int(each.get("count") or 1) > 1 else ""
        mark = "!" if each.get("type") == "Warning" else " "
        when = _ago(each.get("lastTimestamp"), now)
        about = each.get("involvedObject") or {}
        of = f" ({about['kind']})" if about.get("kind") not in (None, "ResNetExperiment") else ""
        yield f"{mark} {when:>10}  {each.get('reason', '')}{of}{times}: {each.get('message', '')}"


def _order(event: Document) -> tuple[float, int]:
    """By time, and inside a second by the order of the writes."""
    version = str(event["metadata"].get("resourceVersion", ""))
    return to_unix(event.get("lastTimestamp")) or 0.0, int(version) if version.isdigit() else 0


def _cell(document: Document, path: str, kind: str, now: float) -> str:
    value: Any = document
    for name in path.strip(".").split("."):
        value = (value or {}).get(name)
    if value is None:
        return ""
    if kind == "date":
        return _ago(str(value), now).removesuffix(" ago")
    return f"{value:g}" if kind == "number" else str(value)


def _ago(time: str | None, now: float) -> str:
    at = to_unix(time)
    return "" if at is None else f"{duration(max(0.0, now - at))} ago"


def _between(start: str | None, end: str | None) -> str:
    first, last = to_unix(start), to_unix(end)
    return "" if first is None or last is None else duration(max(0.0, last - first))
