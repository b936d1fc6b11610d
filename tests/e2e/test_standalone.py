"""What `resnetctl render --standalone` prints, applied to a cluster that has an unmodified training-operator only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.data import digits
from app.resilience.exit_codes import ExitCode
from tests.cluster.cluster import NODES, Cluster
from tests.cluster.kubectl import Kubectl, KubectlError, Object
from tests.cluster.prometheus import prometheus
from tests.cluster.waiting import wait_for
from tests.e2e.claims import Claim
from tests.onnx_accuracy import onnx_top1

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "digits.yaml"
CLAIM = "digits-checkpoints"
WORKERS = ("digits-1-worker-0", "digits-1-worker-1")
IMAGES_JUDGED = 360
SOON = 90.0
# Eight epochs of ResNet18 by four ranks on two cores, beside a cluster: about two minutes. Before it, pods of
# earlier tests may hold the CPUs for as long as their grace period.
TRAINED = 900.0
pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("images")]


def rendered(file: Path, namespace: Kubectl) -> str:
    """What a person pipes into `kubectl apply -f -`."""
    command = [sys.executable, "-m", "controller.cli", "render", "-f", str(file), "--standalone"]
    command += ["--namespace", namespace.namespace]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def changed(folder: Path, **spec: object) -> Path:
    """The example with other fields in its spec, as a file."""
    document = yaml.safe_load(EXAMPLE.read_text())
    document["spec"] |= spec
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def holds(kubectl: Kubectl, kind: str) -> bool:
    """Whether a condition of the job holds."""
    conditions = kubectl.get("pytorchjob", "digits-1").get("status", {}).get("conditions", ())
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)


def last_words(kubectl: Kubectl, pod: str) -> Object:
    """What the kubelet kept of a container's end: its exit code and the launcher's termination message."""
    (status,) = kubectl.get("pod", pod)["status"]["containerStatuses"]
    ended = status["state"]["terminated"]
    words: Object = {"exitCode": ended["exitCode"], **json.loads(ended["message"])}
    return words


def test_the_example_trains_on_two_nodes_to_a_model_as_good_as_it_says(
    cluster: Cluster, namespace: Kubectl, claim: Claim, tmp_path: Path
) -> None:
    checkpoints = claim(CLAIM)
    ours = f'namespace="{namespace.namespace}",experiment="digits"'
    with prometheus(cluster) as scraper:
        namespace.run("apply", "--filename", "-", stdin=rendered(EXAMPLE, namespace))
        wait_for(lambda: scraper.query(f"resnet_training_images_total{{{ours}}} > 0"), TRAINED, "no step was scraped")

        def ranks() -> list[tuple[str, str]]:
            busy = scraper.query(f"resnet_training_rank_busy_seconds_total{{{ours}}}")
            return sorted((each["rank"], each["pod"]) for each, _ in busy)

        # Every rank tells of itself, the whole run is told of once.
        told = [("0", WORKERS[0]), ("1", WORKERS[0]), ("2", WORKERS[1]), ("3", WORKERS[1])]
        wait_for(lambda: ranks() == told, SOON, "not every rank tells of itself")
        wait_for(lambda: holds(namespace, "Succeeded") or holds(namespace, "Failed"), TRAINED, "the job does not end")
        losses = scraper.query(f"count_over_time(resnet_training_loss{{{ours}}}[1h])")

    assert holds(namespace, "Succeeded")
    assert {namespace.get("pod", name)["spec"]["nodeName"] for name in WORKERS} == set(NODES)
    assert [each["pod"] for each, _ in losses] == [WORKERS[0]]

    end = last_words(namespace, WORKERS[0])
    assert (end["exitCode"], end["exit_code"], end["epoch"]) == (0, ExitCode.DONE, 8)
    model = checkpoints / namespace.namespace / "digits" / "1" / "model.onnx"
    assert end["exported"] == f"/checkpoints/{namespace.namespace}/digits/1/model.onnx"
    digits.write(tmp_path)
    top1, judged = onnx_top1(model, tmp_path / "val")
    assert judged == IMAGES_JUDGED
    # The training judges in bf16, where the CPU has it: an image or two may fall the other way.
    assert end["top1"] == pytest.approx(top1, abs=2 / judged)
    assert end["top1"] > 0.95


def test_a_missing_image_is_named_by_the_pod(namespace: Kubectl, claim: Claim, tmp_path: Path) -> None:
    claim(CLAIM)
    file = changed(tmp_path, image="localhost/no-such-image:1")
    namespace.run("apply", "--filename", "-", stdin=rendered(file, namespace))

    def waiting() -> Object:
        (status,) = namespace.get("pod", WORKERS[0])["status"]["containerStatuses"]
        found: Object = status["state"]["waiting"]
        return found if found["reason"] in ("ErrImagePull", "ImagePullBackOff") else {}

    assert "localhost/no-such-image:1" in wait_for(waiting, SOON, "the pod does not say what it lacks")["message"]


def test_a_missing_claim_is_named_by_the_pod(namespace: Kubectl) -> None:
    namespace.run("apply", "--filename", "-", stdin=rendered(EXAMPLE, namespace))

    def why() -> str:
        conditions = namespace.get("pod", WORKERS[0])["status"]["conditions"]
        (scheduled,) = (each for each in conditions if each["type"] == "PodScheduled")
        return str(scheduled["message"])

    assert f'persistentvolumeclaim "{CLAIM}" not found' in wait_for(why, SOON, "the pod does not say what it lacks")


def test_a_job_that_the_webhook_refuses_says_why_at_once(namespace: Kubectl) -> None:
    wrong = rendered(EXAMPLE, namespace).replace("name: pytorch\n", "name: other\n")
    with pytest.raises(KubectlError, match=r"denied the request.*container with name pytorch"):
        namespace.run("apply", "--filename", "-", stdin=wrong)


def test_data_that_is_missing_ends_the_pod_with_one_line_that_names_the_folder(
    namespace: Kubectl, claim: Claim, tmp_path: Path
) -> None:
    claim(CLAIM)
    claim("photographs")
    volume = {"persistentVolumeClaim": {"claimName": "photographs", "readOnly": True}}
    file = changed(tmp_path, dataset={"name": "imagenet", "path": "/datasets/imagenet", "volume": volume}, nodes=1)
    namespace.run("apply", "--filename", "-", stdin=rendered(file, namespace))
    wait_for(lambda: holds(namespace, "Failed"), SOON, "the job does not end")
    end = last_words(namespace, WORKERS[0])
    assert (end["exitCode"], end["reason"]) == (ExitCode.DATA_MISSING, "DataMissing")
    assert "/datasets/imagenet/train" in end["message"]
