"""resnetctl against a real API server."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli import main
from controller.kube.client import PODS
from tests.integration import trainjobs
from tests.integration.kube import Namespace, operator, wait_for


@pytest.fixture
def resnetctl(kubeconfig: Path, team: Namespace, capfd: pytest.CaptureFixture[str]) -> Any:
    def run(command: str, *words: str) -> tuple[int, str]:
        code = main([command, *words, "--kubeconfig", str(kubeconfig), "--namespace", team.name])
        out, error = capfd.readouterr()
        assert "Traceback" not in error
        return code, out + error

    return run


def test_a_whole_life_as_a_user_sees_it(kubeconfig: Path, team: Namespace, tmp_path: Path, resnetctl: Any) -> None:
    assert resnetctl("list") == (0, f"no experiments in namespace {team.name}\n")
    team.create(nodes=1)
    assert "has not looked at it yet" in resnetctl("why", "digits")[1]
    code, text = resnetctl("check", "digits")
    assert (code, text.count("\n")) == (1, 1)
    assert text.startswith("resnetctl: digits: the controller has not looked at it yet: is it running?")
    assert resnetctl("logs", "digits") == (1, "resnetctl: digits has no attempt yet: it is new\n")
    with operator(kubeconfig, tmp_path, "--namespace", team.name) as process:
        process.leading()
        team.start()
        team.phase("Running")
        code, text = resnetctl("list")
        head, row = text.splitlines()
        assert (code, head.split()[:4], row.split()[:4]) == (
            0, ["NAME", "MODEL", "DEVICES", "PHASE"], ["digits", "resnet18", "1x2", "cpu"],
        )  # fmt: skip
        assert team.name in resnetctl("list", "-A", "-w")[1]
        code, text = resnetctl("check", "digits")
        assert (code, text.split(",")[0]) == (1, "resnetctl: digits: Running")
        assert resnetctl("resume", "digits") == (0, "digits is resumed already (Running)\n")
        assert resnetctl("stop", "digits") == (0, "digits: stops after a checkpoint\n")
        team.collect(1)
        team.phase("Suspended")
        assert resnetctl("stop", "digits") == (0, "digits is stopped already (Suspended)\n")
        assert resnetctl("check", "digits")[0] == 0
        assert resnetctl("resume", "digits")[0] == 0
        team.start(2)
        team.phase("Running")
        watched: list[Any] = []
        thread = threading.Thread(target=lambda: watched.append(resnetctl("watch", "digits")))
        thread.start()
        team.end("digits-2-worker-0", 65, team.words(2, exit_code=65, message="no images in train/"))
        thread.join(30)
        code, text = watched[0]
        assert code == 1
        assert "Failed, attempt 2, no images in train/" in text.splitlines()[-1]
        wait_for(lambda: {"Suspending", "Suspended"} < {each["reason"] for each in team.events()})
        code, story = resnetctl("why", "digits")
        assert code == 0
        assert story.startswith(f"{team.name}/digits: resnet18 on 1x2 cpu, Failed\n  no images in train/")
        for part in (
            "attempts: 2, 0 of them ended by a fault that counts",
            "  1  Suspended", "does not count", "  2  BadData", "the end",
            "last verdict: BadData (pod digits-2-worker-0, node ",
            "conditions:\n", "Failed=True (BadData): no images", "events:\n", "AttemptStarting: attempt 1 begins",
        ):  # fmt: skip
            assert part in story, story
        assert resnetctl("resume", "digits") == (1, "resnetctl: digits has failed and can't be resumed\n")
        assert resnetctl("watch", "digits")[0] == 1
        assert "Failed, attempt 2, no images" in resnetctl("check", "digits", "--wait", "60")[1]


@pytest.mark.parametrize("command", ["watch", "check", "logs", "stop", "resume", "why"])
def test_an_experiment_that_does_not_exist_is_one_line(resnetctl: Any, command: str) -> None:
    code, text = resnetctl(command, "nobody")
    assert code == 1
    assert text.count("\n") == 1
    assert 'resnetexperiments.resnet-operator.io "nobody" not found: `resnetctl list -A` shows what there is' in text


def test_no_cluster_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--kubeconfig", str(tmp_path / "none")]) == 1
    out, error = capfd.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert error == f"resnetctl: --kubeconfig {tmp_path / 'none'}: there is no such file\n"


def test_a_context_that_is_not_there_is_one_line_with_those_that_are(
    kubeconfig: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = yaml.safe_load(kubeconfig.read_text())["current-context"]
    assert main(["list", "--kubeconfig", str(kubeconfig), "--context", "none"]) == 1
    assert capfd.readouterr() == ("", f"resnetctl: --context: there is no 'none' in the kubeconfig, but {known}\n")


def test_logs_of_a_pod_that_is_gone_say_so(team: Namespace, resnetctl: Any) -> None:
    team.create()
    code, text = resnetctl("logs", "digits", "--attempt", "7", "--node", "1")
    assert (code, text) == (1, 'resnetctl: pods "digits-7-worker-1" not found\n')


def test_logs_of_a_trainjob_are_found_by_label(team: Namespace, resnetctl: Any) -> None:
    team.create(target="TrainJob")
    words = ("logs", "digits", "--attempt", "7", "--node", "1")
    assert resnetctl(*words) == (1, "resnetctl: attempt 7 of digits has no pod of node 1\n")
    labels = {"resnet-operator.io/experiment": "digits", "resnet-operator.io/attempt": "7", trainjobs.INDEX: "1"}
    spec = {"containers": [{"name": "node", "image": "i"}], "nodeName": "node-of-that-pod"}
    metadata = {"name": "digits-7-node-0-1-abcde", "labels": labels}
    team.client.create(PODS, team.name, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    assert resnetctl(*words) == (1, 'resnetctl: pods "node-of-that-pod" not found\n')
