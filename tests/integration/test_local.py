"""`resnetctl run` with real processes: a small launcher that keeps the contract instead of the real training."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from controller.api import Experiment, load
from controller.display import PlainDisplay
from controller.local.loop import Renderer
from controller.local.process import Mark
from controller.local.rundir import RunDirectory
from controller.local_run import run_experiment
from controller.render import render_job

FAKE = "tests.integration.fake_launcher"
ROOT = Path(__file__).parents[2]
TEXT = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: tiny}
spec:
  model: resnet18
  accelerator: {type: cpu}
  nodes: 2
  dataset: {name: digits}
  training: {epochs: 2, batchSizePerDevice: 32}
  podTemplate: {terminationGracePeriodSeconds: 6}
"""


def experiment(text: str = TEXT) -> Experiment:
    return load(text, "tiny.yaml")


def renderer(what: str) -> Renderer:
    def render(of: Experiment, attempt: int, avoid_node: str | None) -> dict[str, Any]:
        job = render_job(of, attempt, training_image="none", avoid_node=avoid_node)
        container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
        container["command"] = ["python", "-m", FAKE, what]
        return job

    return render


class Screen:
    """What a pipe would have got."""

    def __init__(self) -> None:
        self.file = io.StringIO()
        self.display = PlainDisplay(Console(file=self.file, width=100))

    def text(self) -> str:
        return self.file.getvalue()


def launched(run: RunDirectory, pod: str) -> dict[str, Any]:
    line = next(line for line in (run.logs / f"{pod}.log").read_text().splitlines() if '"argv"' in line)
    found: dict[str, Any] = json.loads(line.partition(":")[2])
    return found


def spawn(tmp_path: Path, what: str) -> "subprocess.Popen[str]":
    """The same in a process of its own, so that it can get signals."""
    (tmp_path / "tiny.yaml").write_text(TEXT)
    program = textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from tests.integration.test_local import *
        display = PlainDisplay(Console(width=100))
        sys.exit(run_experiment(experiment(), Path({str(tmp_path)!r}), display, renderer({what!r})))
    """)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def step_of(run: RunDirectory) -> int:
    try:
        return json.loads(run.experiment.read_text())["status"].get("step") or 0
    except (FileNotFoundError, KeyError):
        return 0


def pids(run: RunDirectory) -> list[Mark]:
    return [record.mark for record in run.recorded_pods() if record.mark is not None]


def test_a_run_leaves_everything_in_its_directory_and_says_where(tmp_path: Path):
    screen, run = Screen(), RunDirectory(tmp_path / "tiny")
    assert run_experiment(experiment(), tmp_path, screen.display, renderer("train")) == 0
    kept = json.loads(run.experiment.read_text())
    assert kept["status"]["phase"] == "Succeeded"
    assert kept["status"]["top1"] == 0.99
    assert [entry["reason"] for entry in kept["status"]["history"]] == ["Succeeded"]
    assert run.model.read_bytes() == b"model of attempt 1"
    assert [json.loads(line)["kind"] for line in run.events.read_text().splitlines()][:2] == ["start", "train"]
    assert "resnet_training_epoch" in run.metrics.read_text()
    assert "99.00 %" in run.report.read_text()
    text = screen.text()
    assert "1 rank" not in text
    assert "global batch" in text
    assert "top-1        99.00 %" in text
    for path in (run.model, run.report, run.events, run.logs, run.checkpoints):
        assert str(path) in text
    assert "\x1b" not in text
    assert run.recorded_pods() == []
    assert not run.pods.exists() or not list(run.pods.iterdir())


def test_what_a_cluster_would_run_as_a_trainjob_runs_here_as_any_other(tmp_path: Path):
    text = TEXT + "  target: TrainJob\n"
    screen = Screen()
    assert run_experiment(experiment(text), tmp_path, screen.display, renderer("train")) == 0
    assert "tiny: Succeeded" in screen.text()


def test_each_pod_gets_the_environment_of_its_template_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("A_SECRET", "of the caller")
    run = RunDirectory(tmp_path / "tiny")
    assert run_experiment(experiment(), tmp_path, Screen().display, renderer("train")) == 0
    first, second = launched(run, "tiny-1-worker-0"), launched(run, "tiny-1-worker-1")
    a, b = first["env"], second["env"]
    assert (a["PET_NODE_RANK"], b["PET_NODE_RANK"]) == ("0", "1")
    assert a["MASTER_ADDR"] == b["MASTER_ADDR"] == "127.0.0.1"
    assert (a["MASTER_PORT"], a["RESNET_GANG_PORT"]) == (b["MASTER_PORT"], b["RESNET_GANG_PORT"])
    assert len({a["MASTER_PORT"], a["RESNET_GANG_PORT"], a["RESNET_METRICS_PORT"], b["RESNET_METRICS_PORT"]}) == 4
    assert a["HOME"] != b["HOME"]
    assert not Path(a["HOME"]).exists()
    assert a["RESNET_PARENT_PID"] == str(os.getpid())
    assert a["RESNET_EXPERIMENT_UID"] == json.loads(run.experiment.read_text())["metadata"]["uid"]
    assert "A_SECRET" not in a
    assert f"--checkpoint_dir={run.checkpoints}/local/tiny" in first["argv"]


def test_after_a_killed_launcher_the_next_attempt_goes_on_and_the_report_shows_both(tmp_path: Path):
    screen, run = Screen(), RunDirectory(tmp_path / "tiny")
    assert run_experiment(experiment(), tmp_path, screen.display, renderer("kill-once")) == 0
    status = json.loads(run.experiment.read_text())["status"]
    assert status["attempt"] == 2
    assert status["restarts"] == 1
    assert [(entry["attempt"], entry["counted"]) for entry in status["history"]] == [(1, True), (2, False)]
    starts = [json.loads(line)["attempt"] for line in run.events.read_text().splitlines() if '"start"' in line]
    assert starts == [1, 2]
    assert "attempt 2" in run.report.read_text()
    assert run.model.read_bytes() == b"model of attempt 2"


def test_a_permanent_failure_ends_with_its_code_its_message_and_the_end_of_the_log(tmp_path: Path):
    screen, run = Screen(), RunDirectory(tmp_path / "tiny")
    assert run_experiment(experiment(), tmp_path, screen.display, renderer("fail:66")) == 66
    text = screen.text()
    assert "tiny: Failed" in text
    assert "the data set is not there" in text
    assert re.search(r"the end of .*tiny-1-worker-\d\.log", text)
    assert "Failed" in run.report.read_text()
    # The same command tries again: a person has changed something meanwhile.
    again = Screen()
    assert run_experiment(experiment(), tmp_path, again.display, renderer("train")) == 0
    assert "the last run failed (DataMissing): trying again from the beginning" in again.text()


def test_below_a_relative_workdir_the_launcher_s_last_word_arrives_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    assert run_experiment(experiment(), Path("runs"), Screen().display, renderer("fail:66")) == 66
    verdict = json.loads((tmp_path / "runs/tiny/experiment.json").read_text())["status"]["lastVerdict"]
    assert verdict["reason"] == "DataMissing"
    assert verdict["message"].startswith("the data set is not there (pod ")


def test_a_command_that_can_not_be_started_fails_like_a_container_that_can_not(tmp_path: Path):
    def render(of: Experiment, attempt: int, avoid_node: str | None) -> dict[str, Any]:
        job = renderer("train")(of, attempt, avoid_node)
        container = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]
        container["command"] = ["/nowhere/launcher"]
        return job

    screen = Screen()
    assert run_experiment(experiment(), tmp_path, screen.display, render) == 1
    assert "StartError" in screen.text()
    assert "/nowhere/launcher" in screen.text()


def test_a_run_that_has_succeeded_says_so_and_starts_nothing(tmp_path: Path):
    assert run_experiment(experiment(), tmp_path, Screen().display, renderer("train")) == 0
    RunDirectory(tmp_path / "tiny").report.unlink()
    screen = Screen()
    assert run_experiment(experiment(), tmp_path, screen.display, renderer("fail:70")) == 0
    assert RunDirectory(tmp_path / "tiny").report.is_file()
    assert "has already succeeded" in screen.text()
    assert "--workdir" in screen.text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal_stops_after_a_checkpoint_and_the_same_command_resumes(tmp_path: Path, number: int, code: int):
    run = RunDirectory(tmp_path / "tiny")
    process = spawn(tmp_path, "wait")
    until(lambda: step_of(run) >= 5)
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == code, text
    assert "stopped at step 4 of 10; the same command resumes" in text
    kept = json.loads(run.experiment.read_text())
    assert kept["status"]["phase"] == "Suspended"
    assert kept["spec"]["suspend"] is False
    assert "stopped after a checkpoint" in (run.logs / "tiny-1-worker-0.log").read_text()
    screen = Screen()
    assert run_experiment(experiment(), tmp_path, screen.display, renderer("train")) == 0
    assert "going on from step 4" in screen.text()
    assert json.loads(run.experiment.read_text())["status"]["attempt"] == 2


def test_a_second_ctrl_c_kills_what_does_not_stop(tmp_path: Path):
    run = RunDirectory(tmp_path / "tiny")
    process = spawn(tmp_path, "stubborn")
    until(lambda: step_of(run) >= 4)
    marks = pids(run)
    assert len(marks) == 2
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert all(mark.alive() for mark in marks)
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert not any(mark.alive() for mark in marks)


def test_what_a_killed_resnetctl_left_is_ended_before_the_next_attempt(tmp_path: Path):
    run = RunDirectory(tmp_path / "tiny")
    process = spawn(tmp_path, "wait")
    until(lambda: step_of(run) >= 5)
    marks = pids(run)
    scratch = [record.scratch for record in run.recorded_pods()]
    process.kill()
    process.communicate()
    assert all(mark.alive() for mark in marks)  # this launcher does not watch its parent, so it is a leftover
    screen = Screen()
    assert run_experiment(experiment(), tmp_path, screen.display, renderer("train")) == 0
    assert "an earlier run is still ending" in screen.text()
    assert not any(mark.alive() for mark in marks)
    assert not any(path.exists() for path in scratch)
    assert "stopped after a checkpoint" in (run.logs / "tiny-1-worker-0.log").read_text()


def occupied(path: Path) -> bool:
    """Puts a directory where resnetctl writes a file; False while the file is there."""
    try:
        path.mkdir()
    except FileExistsError:
        return False
    return True


def test_a_run_directory_that_can_no_longer_be_written_ends_all_in_one_line(tmp_path: Path):
    run = RunDirectory(tmp_path / "tiny")
    process = spawn(tmp_path, "wait")
    until(lambda: step_of(run) > 3)
    records = run.recorded_pods()
    assert len(records) == 2
    for name in (".pods.json.tmp", ".metrics.prom.tmp"):
        until(lambda path=run.path / name: occupied(path))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    line = output.splitlines()[-1]
    assert line.startswith(f"resnetctl: {run.path}: ")
    assert line.endswith("Is a directory; nothing runs any more: once that is mended, the same command goes on")
    assert "Traceback" not in output
    assert not any(record.mark is None or record.mark.alive() for record in records)
    assert not any(record.scratch.exists() for record in records)


def test_two_runs_in_one_directory_are_refused_by_the_pid_of_the_first(tmp_path: Path, capsys: Any):
    run = RunDirectory(tmp_path / "tiny")
    with run.held():
        assert run_experiment(experiment(), tmp_path, Screen().display, renderer("train")) == 1
    error = capsys.readouterr().err
    assert f"process {os.getpid()}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (TEXT.replace("name: digits", "name: imagenet, path: /nowhere/imagenet"), 66, "spec.dataset.path"),
        (TEXT + "  suspend: true\n", 64, "spec.suspend"),
        (TEXT + "  queueName: night\n", 64, "spec.queueName"),
    ],
)
def test_what_can_not_run_here_is_one_line_before_anything_starts(
    tmp_path: Path, capsys: Any, text: str, code: int, words: str
):
    assert run_experiment(experiment(text), tmp_path, Screen().display, renderer("train")) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "tiny").exists()
