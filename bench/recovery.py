"""How long does a fault keep a training from its next step, and is what is said of the time left true?

    python -m bench.recovery [--repeats 3] [--json FILE]

On the two-node cluster of the tests (root), with the operator installed by its chart and the image from the Dockerfile:
a small network on two nodes is struck again and again. The limit is the start of a training that nothing happened to:
from `kubectl apply` to its first step, which no recovery can beat by more than the operator's own first look.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL

from app.telemetry.events import read_events
from bench.report import Report, Table, versions
from controller.kube.election import Terms
from tests.cluster.cluster import Cluster, default_state
from tests.cluster.fixtures import own_namespace
from tests.cluster.images import load_built
from tests.cluster.waiting import wait_for
from tests.e2e import faults
from tests.e2e.claims import claims
from tests.e2e.experiments import SOON, Experiment, Laboratory, few_digits
from tests.e2e.operator import TIMES, Operator
from tests.e2e.pods import ready

WATCHDOG_SECONDS = 15
FAULTS = {
    "`kill -9` of a rank": faults.kill_rank,
    "`kill -9` of a launcher": faults.kill_launcher,
    "`kubectl delete pod`": faults.delete_pod,
    "PyTorchJob deleted": faults.delete_job,
    f"a rank under SIGSTOP, `watchdogSeconds: {WATCHDOG_SECONDS}`": faults.stop_rank,
}
"""What strikes the second of two pods."""
_EPOCHS = 1000
_HALF_TIME_EPOCHS = 40


@dataclass
class Found:
    """What was measured; seconds."""

    start: list[float] = field(default_factory=list)
    next_step: dict[str, list[float]] = field(default_factory=dict)
    next_attempt: dict[str, list[float]] = field(default_factory=dict)
    lost: dict[str, list[int]] = field(default_factory=dict)
    takeover: list[float] = field(default_factory=list)
    left: list[tuple[float, float]] = field(default_factory=list)  # at half time: as said, and in truth


@contextmanager
def furnished() -> Iterator[tuple[Cluster, Operator, Laboratory]]:
    """The cluster, the operator in it, and a place for experiments; what was not there before is removed."""
    cluster = Cluster(default_state("full"), say=lambda line: print(line, file=sys.stderr))
    started = cluster.up()
    try:
        load_built([node.containerd.socket for node in cluster.nodes])
        operator = Operator.of(cluster)
        operator.install()
        with (
            tempfile.TemporaryDirectory() as folder,
            own_namespace(cluster.kubectl) as kubectl,
            claims(kubectl) as claim,
        ):
            few_digits(Path(folder) / "few", Path(folder) / "all")
            yield cluster, operator, Laboratory.furnished(kubectl, claim, Path(folder) / "few")
        operator.remove()
    finally:
        if started:
            cluster.down()


def recoveries(cluster: Cluster, laboratory: Laboratory, repeats: int, found: Found) -> None:
    """Every fault, so many times, in turns."""
    for turn in range(repeats):
        began = time.time()
        struck = laboratory.experiment(
            f"struck-{turn}",
            training={"epochs": _EPOCHS, "watchdogSeconds": WATCHDOG_SECONDS},
            faultTolerance={"maxRestarts": 2 * len(FAULTS)},
        )
        struck.trains(1)
        found.start.append(first_step(struck, 1) - began)
        for attempt, name in enumerate(FAULTS, start=2):
            recovery(cluster, struck, name, attempt, found)
        struck.change(suspend=True)
        struck.phase("Suspended")


def recovery(cluster: Cluster, struck: Experiment, name: str, attempt: int, found: Found) -> None:
    """One fault, after which there is this attempt."""
    began = time.time()
    FAULTS[name](cluster, struck, 1)
    struck.until(lambda status: status["attempt"] == attempt, "there is no new attempt")
    found.next_attempt.setdefault(name, []).append(time.time() - began)
    struck.trains(attempt)
    found.next_step.setdefault(name, []).append(first_step(struck, attempt) - began)
    found.lost.setdefault(name, []).append(struck.lost()[-1])
    print(f"{name}: {found.next_step[name][-1]:.1f} s", file=sys.stderr, flush=True)


def first_step(experiment: Experiment, attempt: int) -> float:
    """When an attempt's first step was done, unix seconds."""
    (start,) = (start for start in experiment.starts if start.attempt == attempt)
    return min(start.times.values())


def takeover(cluster: Cluster, operator: Operator) -> float:
    """`kill -9` of the controller that leads: seconds until another does."""
    holder = operator.holder()
    began = time.time()
    os.kill(operator.process(cluster), SIGKILL)
    wait_for(lambda: operator.holder() not in ("", holder), SOON, "nobody takes over")
    seconds = time.time() - began
    wait_for(
        lambda: all(ready(operator.kubectl, each["metadata"]["name"]) for each in operator.pods()),
        SOON,
        "the killed controller does not come back",
    )
    return seconds


def half_time(laboratory: Laboratory, name: str) -> tuple[float, float]:
    """Seconds left that a training says when half of its steps are done, and those that it then takes."""
    training = {"epochs": _HALF_TIME_EPOCHS, "batchSizePerDevice": 16}
    even = laboratory.experiment(name, nodes=1, training=training)
    half = even.interval * _HALF_TIME_EPOCHS // 2
    wait_for(lambda: any(start.reached >= half for start in even.starts), 2 * SOON, "half time does not come")
    at, told = time.time(), re.search(r"^resnet_training_eta_seconds{.*} (\S+)$", even.metrics(), re.MULTILINE)
    if told is None:
        raise LookupError(f"{name} says nothing of the time left at half time")
    even.phase("Succeeded", 2 * SOON)
    events = read_events(even.folder / "1" / "events.jsonl")
    return float(told[1]), max(event["time"] for event in events if event["kind"] == "validate") - at


def spread(values: list[float]) -> str:
    """Median and extremes, in seconds."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def report(found: Found, command: str) -> Report:
    """The section of it."""
    limit = statistics.median(found.start)
    head = ["fault", "to the next attempt", "to the next step", "of a plain start", "steps lost"]
    rows = [["none: apply to the first step", "", spread(found.start), "1.00", ""]]
    for name, seconds in found.next_step.items():
        ratio = statistics.median(seconds) / limit
        rows.append(
            [name, spread(found.next_attempt[name]), spread(seconds), f"{ratio:.2f}", str(max(found.lost[name]))]
        )
    lease = Terms().duration
    said, true = (list(seconds) for seconds in zip(*found.left, strict=True))
    others = [
        ["`kill -9` of the leading controller to the next leader, seconds", spread(found.takeover)],
        [f"of its lease of {lease:.0f} s", f"{statistics.median(found.takeover) / lease:.2f}"],
        ["time left as said at half time, seconds", spread(said)],
        ["time that it then took, seconds", spread(true)],
        ["wrong by, at most", f"{max(abs(s / t - 1) for s, t in found.left):.0%}"],
    ]
    return Report(
        "recovery",
        "Recovery",
        command,
        versions("torch"),
        [
            Table("Seconds from a fault to the first step of the next attempt: median, least and most.", head, rows),
            Table("The controller's own faults, and its word.", ["what", "figure"], others),
        ],
        [
            "Two nodes, control plane and all ranks share the cores, so a start (Python, torch, DDP's first "
            "collectives) takes most of each time; the controller's waits are those of `tests/e2e/operator.py` "
            f"(`{' '.join(TIMES)}`). Its back-off grows with attempts without progress; all here made some.",
        ],
    )


def main() -> None:
    """Measures, and prints the section."""
    parser = argparse.ArgumentParser(prog="python -m bench.recovery", description="how soon a struck training goes on")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of every fault")
    parser.add_argument("--json", type=Path, metavar="FILE", help="for python -m bench.report")
    args = parser.parse_args()
    found = Found()
    with furnished() as (cluster, operator, laboratory):
        found.left = [half_time(laboratory, f"even-{turn}") for turn in range(args.repeats)]
        recoveries(cluster, laboratory, args.repeats, found)
        found.takeover = [takeover(cluster, operator) for _ in range(args.repeats)]
    result = report(found, f"python -m bench.recovery --repeats {args.repeats}")
    if args.json:
        result.save(args.json)
    print(result.section())


if __name__ == "__main__":
    main()
