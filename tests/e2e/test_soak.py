"""Random faults over several experiments at once: all end Succeeded, and the operator grows in nothing."""

from __future__ import annotations

import os
import random
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import KubectlError
from tests.e2e.experiments import Experiment, Laboratory
from tests.e2e.faults import delete_job, delete_pod, kill_launcher, kill_rank, stop_rank
from tests.e2e.operator import Operator
from tests.e2e.soak import MINUTES, SEED, setting

pytestmark = pytest.mark.timeout(7200)
AT_A_TIME = 3
# Two cores: an attempt needs so long to get to its next checkpoint, and a soak is to make progress.
BETWEEN_SECONDS = (8.0, 25.0)
MIB = 1 << 20
# An allocator's own noise, and what Python keeps of a first use.
SPARE = {"memory": 24 * MIB, "files": 4, "threads": 2}
# Twice that is what an export may take, on a machine that is busy.
TRAINING = {"epochs": 4, "watchdogSeconds": 30}
# Chance may strike one again and again before its next checkpoint.
PATIENT = {"maxRestarts": 20}


@dataclass(frozen=True)
class Weight:
    """What a process holds: resident bytes, open files, threads."""

    memory: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Weight:
        """That of a process of this machine."""
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        held = (len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task"))
        return cls(pages * os.sysconf("SC_PAGE_SIZE"), *held)


FAULTS = (kill_rank, stop_rank, kill_launcher, delete_pod, delete_job)


def test_random_faults_end_no_experiment_and_the_operator_does_not_grow(
    cluster: Cluster, operator: Operator, laboratory: Laboratory
) -> None:
    dice = random.Random(int(setting(SEED)))
    numbers = iter(range(1, 10_000))

    def another() -> Experiment:
        nodes = dice.choice((1, 2))
        training = TRAINING | {"batchSizePerDevice": 16 // nodes}
        return laboratory.experiment(f"soak-{next(numbers)}", nodes=nodes, training=training, faultTolerance=PATIENT)

    pid = operator.process(cluster)
    under_way = [another() for _ in range(AT_A_TIME)]
    done = 0
    began = time.monotonic()
    before: Weight | None = None
    faults = 0
    while under_way:
        time.sleep(dice.uniform(*BETWEEN_SECONDS))
        over = time.monotonic() - began > 60 * setting(MINUTES)
        for each in [each for each in under_way if each.status.get("phase") == "Succeeded"]:
            under_way.remove(each)
            each.succeeded(intervals=2)
            shutil.rmtree(each.folder)  # of a hundred experiments they would fill the disk
            done += 1
            if not over:
                under_way.append(another())
        assert not [each.why() for each in under_way if each.status.get("phase") == "Failed"]
        # All its code has run once by then.
        if before is None and done >= AT_A_TIME:
            before = Weight.of(pid)
        training = [each for each in under_way if each.status.get("phase") == "Running"]
        if training and not over:
            struck, fault = dice.choice(training), dice.choice(FAULTS)
            try:
                fault(cluster, struck, dice.randrange(struck.spec["nodes"]))
            except (KubectlError, ProcessLookupError, ValueError):
                continue  # it ended meanwhile
            faults += 1
            print(f"{time.monotonic() - began:6.0f} s  {fault.__name__} {struck.name}", flush=True)

    assert operator.process(cluster) == pid
    after = Weight.of(pid)
    print(f"{done} experiments, {faults} faults, the operator: {before} before, {after} after", flush=True)
    assert faults >= setting(MINUTES)
    assert before is not None
    for what, spare in SPARE.items():
        assert getattr(after, what) <= getattr(before, what) + spare, (before, after)
