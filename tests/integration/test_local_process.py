"""Processes that stand for pods: their ends, and what they leave behind."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from controller.local.process import Mark, Process, Waker, end_leftovers, free_ports

ENV = {"PATH": os.environ["PATH"]}
IGNORES_TERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)


def start(tmp_path: Path, code: str, waker: Waker | None = None) -> Process:
    return Process([sys.executable, "-c", code], ENV, tmp_path, tmp_path / "log", waker or Waker())


def wait_for_log(tmp_path: Path) -> str:
    while not (tmp_path / "log").read_text().endswith("\n"):
        time.sleep(0.02)
    return (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("pass", 0),
        ("raise SystemExit(66)", 66),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
    ],
)
def test_an_end_has_the_exit_code_that_a_container_would_have_and_wakes_the_loop(
    tmp_path: Path, code: str, expected: int
):
    waker = Waker()
    process = start(tmp_path, code, waker)
    assert process.wait(30)
    assert process.exit_code == expected
    assert process.ended_at > 0
    waker.wait(3600)  # returns at once, or the test never ends


def test_it_has_a_session_of_its_own_and_its_output_goes_to_the_log(tmp_path: Path):
    process = start(tmp_path, "import os, sys; print(os.getsid(0) == os.getpid()); print('bad', file=sys.stderr)")
    assert process.wait(30)
    assert sorted((tmp_path / "log").read_text().split()) == ["True", "bad"]


def test_what_it_leaves_in_its_group_dies_with_it_when_it_is_killed(tmp_path: Path):
    child = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])"
    process = start(tmp_path, f"{child}; print(p.pid, flush=True); p.wait()")
    mark = Mark.of(int(wait_for_log(tmp_path)))
    assert mark is not None
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(30)
    while mark.alive():
        time.sleep(0.02)


def test_a_leftover_is_asked_to_stop_and_then_killed(tmp_path: Path):
    process = start(tmp_path, IGNORES_TERM)
    wait_for_log(tmp_path)
    mark = Mark.of(process.pid)
    assert mark is not None
    assert end_leftovers([mark], grace_seconds=0.5) == 1
    assert process.wait(30)
    assert process.exit_code == 137
    assert end_leftovers([mark], grace_seconds=60.0) == 0


def test_a_number_that_belongs_to_another_process_now_is_left_alone(tmp_path: Path):
    process = start(tmp_path, "import time; time.sleep(60)")
    mark = Mark.of(process.pid)
    assert mark is not None
    assert end_leftovers([Mark(mark.pid, mark.started - 1, mark.boot)], grace_seconds=60.0) == 0
    assert end_leftovers([Mark(mark.pid, mark.started, "another boot")], grace_seconds=60.0) == 0
    assert mark.alive()
    process.kill()
    assert process.wait(30)


def test_free_ports_are_different_and_nobody_listens_on_them():
    ports = free_ports(8)
    assert len(set(ports)) == 8
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
