"""The processes of a cluster: recorded before they run, ended by who they are."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.processes import Processes, children, end, identity, runs
from tests.cluster.waiting import wait_for


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    started = Processes(tmp_path / "records", tmp_path / "logs")
    yield started
    for name in started.names():
        started.end(name)


def test_a_process_is_found_and_ended_by_whoever_reads_its_record(processes: Processes) -> None:
    processes.start("talks", ["sh", "-c", "echo $WORD; exec sleep 1000"], {"WORD": "hello"})
    other = Processes(processes.records, processes.logs)
    assert other.pid("talks") is not None
    started = identity((other.records / "talks").read_text())
    wait_for(lambda: other.last_lines("talks") == "hello", 10, "no output")
    assert other.names() == ["talks"]
    other.end("talks")
    assert not runs(started)
    assert processes.names() == []
    processes.end("talks")


def test_one_that_was_killed_does_not_run(processes: Processes) -> None:
    processes.start("killed", ["sleep", "1000"])
    pid = processes.pid("killed")
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: processes.pid("killed") is None, 10, "it still runs")
    assert processes.names() == ["killed"]


def test_another_process_with_the_same_id_is_left_alone(processes: Processes) -> None:
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        stat = Path(f"/proc/{bystander.pid}/stat").read_text()
        itself = identity(f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {stat}")
        assert runs(itself)
        for stranger in (
            dataclasses.replace(itself, started=itself.started - 1),
            dataclasses.replace(itself, boot="another"),
        ):
            assert not runs(stranger)
            end(stranger)
        assert bystander.poll() is None
        assert bystander.pid in children(os.getpid())
        end(itself)
        assert bystander.wait() == -signal.SIGKILL


def test_a_program_that_does_not_exist_is_told_in_its_log(processes: Processes) -> None:
    processes.start("absent", ["/no/such/program"])
    wait_for(lambda: "not found" in processes.last_lines("absent"), 10, "no word about it")
    assert processes.pid("absent") is None
