"""The API server itself refuses what can't be, with a message that says what would be right."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from controller.api import SpecError, from_document
from controller.kube.client import EXPERIMENTS, ApiError
from tests.cluster.toolchain import tool
from tests.integration.kube import Namespace, experiment, merged, wait_for

EMPTY: dict[str, Any] = {"emptyDir": {}}


def refused(team: Namespace, document: dict[str, Any]) -> str:
    with pytest.raises(ApiError) as caught:
        team.client.call("POST", EXPERIMENTS.path(team.name), query={"fieldValidation": "Strict"}, body=document)
    assert caught.value.code in (400, 422), caught.value
    return caught.value.message


BAD = [
    # one field
    ({"model": "resnet51"}, 'spec.model: Unsupported value: "resnet51": supported values: "resnet18", "resnet34"'),
    ({"model": None}, "spec.model: Required value"),
    ({"accelerator": {"type": "tpu"}}, "spec.accelerator.type: Unsupported value"),
    ({"accelerator": {"cardsPerNode": 0}}, "should be greater than or equal to 1"),
    ({"accelerator": {"resourceName": "teco card"}}, "spec.accelerator.resourceName"),
    ({"nodes": 4097}, "should be less than or equal to 4096"),
    ({"nodes": "2"}, "spec.nodes: Invalid value"),
    ({"training": {"epoch": 3}}, 'unknown field "spec.training.epoch"'),
    ({"training": {"batchSizePerDevice": None}}, "spec.training.batchSizePerDevice: Required value"),
    ({"training": {"learningRate": 0}}, "learningRate must be 1e-09 to 1000"),
    ({"checkpoint": {"everyMinutes": 0}}, "everyMinutes must be at least 0.01"),
    ({"training": {"optimizer": "adamw"}}, 'supported values: "sgd", "rmsprop", "adam"'),
    ({"training": {"autocast": "yes"}}, "spec.training.autocast"),
    ({"checkpoint": {"path": "relative"}}, "spec.checkpoint.path"),
    ({"queueName": ""}, "spec.queueName"),
    ({"image": "no spaces"}, "spec.image"),
    ({"activeDeadlineSeconds": 0}, "spec.activeDeadlineSeconds"),
    ({"podTemplate": {"sharedMemory": "8 GB"}}, "spec.podTemplate.sharedMemory"),
    ({"podTemplate": {"hostPath": "/"}}, 'unknown field "spec.podTemplate.hostPath"'),
    ({"podTemplate": {"serviceAccountName": "admin"}}, "unknown field"),
    ({"podTemplate": {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}}, "unknown"),
    ({"podTemplate": {"env": [{"name": "A"}, {"name": "A"}]}}, "Duplicate value"),
    ({"podTemplate": {"nodeSelector": {"not a key": "x"}}}, "a key must be a label key such as example.com/name"),
    ({"podTemplate": {"securityContext": {"runAsUser": 0}}}, "should be greater than or equal to 1"),
    ({"podTemplate": {"terminationGracePeriodSeconds": 1}}, "should be greater than or equal to 6"),
    ({"podTemplate": {"nodeName": "node-a"}}, 'unknown field "spec.podTemplate.nodeName"'),
    ({"podTemplate": {"initContainers": []}}, 'unknown field "spec.podTemplate.initContainers"'),
    ({"podTemplate": {"containers": []}}, 'unknown field "spec.podTemplate.containers"'),
    ({"podTemplate": {"volumes": []}}, 'unknown field "spec.podTemplate.volumes"'),
    ({"podTemplate": {"labels": {"foreign.example.com/a": "b"}}}, 'unknown field "spec.podTemplate.labels"'),
    ({"podTemplate": {"annotations": {"a": "b"}}}, 'unknown field "spec.podTemplate.annotations"'),
    ({"podTemplate": {"hostPID": True}}, 'unknown field "spec.podTemplate.hostPID"'),
    ({"podTemplate": {"securityContext": {"privileged": True}}}, "unknown field"),
    ({"podTemplate": {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}}, "unknown field"),
    ({"dataset": {"volume": {"hostPath": {"path": "/"}}}}, "unknown field"),
    ({"dataset": {"volume": {"secret": {"secretName": "s"}}}}, "unknown field"),
    ({"checkpoint": {"volume": {"nfs": {"server": "s", "path": "/"}}}}, "unknown field"),
    ({"checkpoint": {"volume": {"projected": {"sources": []}}}}, "unknown field"),
    # what two fields say together
    ({"accelerator": {"cardsPerNode": 64, "devicesPerCard": 8}}, "at most 256 are started"),
    ({"dataset": {"name": "imagenet"}}, "path is required: the folder with train/ and val/"),
    ({"dataset": {"name": "synthetic", "path": "/x"}}, "needs no path and no volume with synthetic"),
    ({"dataset": {"path": "/tmp/"}}, "path can't be that: the pod has its own directory there"),
    ({"checkpoint": {"path": "//dev/shm"}}, "path can't be that"),
    ({"checkpoint": {"path": "/a/../b"}}, "path can't be that"),
    ({"checkpoint": {"path": "/"}}, "path can't be that"),
    ({"checkpoint": {"path": "/datasets//digits/"}}, "checkpoint.path is where the data set lies: name another"),
    ({"checkpoint": {"volume": {"persistentVolumeClaim": {"readOnly": True}}}}, "readOnly must be false"),
    ({"checkpoint": {"volume": EMPTY}}, "needs exactly one of persistentVolumeClaim and emptyDir"),
    ({"dataset": {"volume": {}}}, "needs exactly one of persistentVolumeClaim and emptyDir"),
    ({"training": {"lossScale": 2, "gradScale": True}}, "give one of them"),
    ({"training": {"lossScale": 0.5}}, "lossScale must be 1 to 16777216 (or 0"),
    ({"training": {"imageSize": 17}}, "imageSize must be 18 to 1024 (or 0"),
    ({"training": {"imageSize": 33}}, "imageSize must be even"),
    ({"training": {"pretrained": "weights.pth"}}, "pretrained must be the whole path inside the pod"),
    ({"training": {"stepsPerEpoch": 0}}, "stepsPerEpoch must be 1 to 10000000 (or -1"),
    ({"training": {"mlperfMode": True, "optimizer": "adam"}}, "leave the optimizer out"),
    ({"podTemplate": {"env": [{"name": "RESNET_POD"}]}}, "the pod template sets this variable itself"),
    ({"podTemplate": {"env": [{"name": "MASTER_PORT"}]}}, "the pod template sets this variable itself"),
    ({"podTemplate": {"ports": {"gang": 9401}}}, "needs three different ports for master, metrics and gang"),
    ({"podTemplate": {"tolerations": [{"operator": "Exists", "value": "x"}]}}, "operator Exists takes no value"),
    ({"podTemplate": {"tolerations": [{"value": "x"}]}}, "operator Equal needs a key"),
    ({"podTemplate": {"tolerations": [{"key": "a", "tolerationSeconds": 1}]}}, "needs effect NoExecute"),
    ({"target": "Job"}, 'spec.target: Unsupported value: "Job": supported values: "PyTorchJob", "TrainJob"'),
    *(
        ({"target": "TrainJob", **changes}, "or use target PyTorchJob")
        for changes in (
            {"priorityClassName": "high"},
            {"imagePullPolicy": "Always"},
            {"podTemplate": {"hostNetwork": True}},
            {"podTemplate": {"hostIPC": True}},
            {"podTemplate": {"ports": {"master": 20000}}},
            {"queueName": "q", "podTemplate": {"terminationGracePeriodSeconds": 121}},
        )
    ),
    (
        {"accelerator": {"type": "sdaa"}, "podTemplate": {"resources": {"limits": {"tecorigin.com/tcaicard": "1"}}}},
        "podTemplate.resources names the resource that accelerator counts: leave it out",
    ),
]


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_a_bad_field_is_refused_by_the_api_server_and_by_the_types(team: Namespace, changes: Any, said: Any) -> None:
    document = experiment(**changes)
    assert said in refused(team, document)
    with pytest.raises(SpecError):
        from_document(document, "x")


@pytest.mark.parametrize("name", ["Digits", "1digits", "a" * 41, "digits-", "a.b"])
def test_a_name_that_no_pod_could_have_is_refused(team: Namespace, name: str) -> None:
    assert "metadata.name" in refused(team, experiment(name))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "resnet34"},
        {"accelerator": {"cardsPerNode": 4}},
        {"accelerator": {"devicesPerCard": 2}},
        {"nodes": 3},
        {"dataset": {"path": "/elsewhere"}},
        {"training": {"epochs": 3}},
        {"training": {"learningRate": 0.5}},
        {"checkpoint": {"path": "/elsewhere"}},
        {"checkpoint": {"volume": None}},
        {"checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "other"}}}},
    ],
    ids=str,
)
def test_what_a_checkpoint_depends_on_can_not_be_changed(team: Namespace, changes: Any) -> None:
    team.create()
    with pytest.raises(ApiError, match="can't be changed, since checkpoints are bound to it: create another"):
        team.patch(changes)


def test_a_target_can_not_be_changed(team: Namespace) -> None:
    team.create()
    with pytest.raises(ApiError, match="target can't be changed: create another experiment"):
        team.patch({"target": "TrainJob"})


def test_a_volume_can_not_be_added_later(team: Namespace) -> None:
    team.create(checkpoint={"volume": None})
    with pytest.raises(ApiError, match=r"checkpoint\.volume can't be changed"):
        team.patch({"checkpoint": {"volume": {"persistentVolumeClaim": {"claimName": "c"}}}})


def test_the_rest_can_be_changed_and_counts_as_a_new_generation(team: Namespace) -> None:
    team.create()
    changed = team.patch(
        {
            "suspend": True,
            "activeDeadlineSeconds": 60,
            "ttlSecondsAfterFinished": 0,
            "queueName": "q",
            "image": "i:2",
            "checkpoint": {"everyMinutes": 1, "keep": 1, "adopt": True},
            "faultTolerance": {"maxRestarts": 0},
            "podTemplate": {"env": [{"name": "A", "value": "$(B)"}], "tolerations": [{"operator": "Exists"}]},
        }
    )
    assert changed["metadata"]["generation"] == 2


def test_status_is_a_subresource(team: Namespace) -> None:
    made = team.client.create(EXPERIMENTS, team.name, {**experiment(), "status": {"phase": "Succeeded"}})
    assert "status" not in made


def test_every_example_is_accepted_and_means_the_same_after_defaulting(team: Namespace) -> None:
    from controller.api import load_file

    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml")):
        wanted = load_file(path)
        document = {
            "apiVersion": wanted.api_version,
            "kind": wanted.kind,
            "metadata": {"name": wanted.metadata.name},
            "spec": wanted.spec.model_dump(by_alias=True, exclude_unset=True, mode="json"),
        }
        made = team.client.call("POST", EXPERIMENTS.path(team.name), query={"fieldValidation": "Strict"}, body=document)
        kept = merged(made["metadata"], {"managedFields": None})
        assert from_document({**made, "metadata": kept}, str(path)).spec == wanted.spec


def kubectl(kubeconfig: Path, *words: str) -> str:
    command = [tool("kubectl"), "--kubeconfig", kubeconfig, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "HOME": "/"}).stdout


def explained(kubeconfig: Path, field: str) -> str:
    """What `kubectl explain` says; empty: the API server has not published the kind yet."""
    try:
        return kubectl(kubeconfig, "explain", field)
    except subprocess.CalledProcessError:
        return ""


def test_kubectl_explain_reads_well(kubeconfig: Path) -> None:
    text = wait_for(lambda: explained(kubeconfig, "rnx.spec.training"))
    assert "how it is trained" in text
    assert "batchSizePerDevice\t<integer> -required-\n    images per step and DEVICE (rank)" in text
    assert "kept alive through faults" in " ".join(explained(kubeconfig, "rnx").split())


def test_kubectl_get_has_the_columns(kubeconfig: Path, team: Namespace) -> None:
    team.create()
    head = kubectl(kubeconfig, "get", "rnx", "--namespace", team.name).split("\n")[0].split()
    assert head == ["NAME", "MODEL", "DEVICES", "PHASE", "EPOCH", "TOP1", "IMG/S", "ETA", "RESTARTS", "AGE"]
    assert "digits" in kubectl(kubeconfig, "get", "all", "--namespace", team.name)
