"""A pod of the real template becomes the process that the kubelet would have started."""

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.command_line import parse
from controller.api import load, train_config
from controller.local import LocalError
from controller.local.documents import pod_document
from controller.local.template import (
    Places,
    PodPlan,
    base_environment,
    expand,
    map_paths,
    own_devices,
    plan_pod,
)
from controller.render import render_job

EXPERIMENT = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: digits, namespace: local, uid: 0d7f6f7e}
spec:
  model: resnet18
  accelerator: {type: cpu, cardsPerNode: 2}
  nodes: 2
  dataset: {name: digits}
  training: {epochs: 8, batchSizePerDevice: 32}
  podTemplate: {terminationGracePeriodSeconds: 7, env: [{name: PRICE, value: "$(HOME) costs $5"}]}
"""
PORTS = {"MASTER_PORT": 41001, "RESNET_GANG_PORT": 41002, "RESNET_METRICS_PORT": 41003}
PLACES = Places(Path("/scratch"), Path("/run/pods/p"), {"/checkpoints": Path("/run/checkpoints")})


def experiment() -> Any:
    return load(EXPERIMENT, "digits.yaml")


def pod(index: int = 1) -> dict[str, Any]:
    job = render_job(experiment(), 3, training_image="image")
    job["metadata"]["uid"] = "job-uid"
    return pod_document(job, job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"], index, 0.0)


def plan(document: dict[str, Any] | None = None, places: Places = PLACES) -> PodPlan:
    return plan_pod(document or pod(), "digits-3", places, PORTS, {"PATH": "/bin"})


def test_the_command_is_the_launcher_with_this_python_and_the_flags_of_the_template():
    argv = plan().argv
    assert argv[:3] == (sys.executable, "-m", "app.run_resnet")
    config = parse(argv[3:], {})
    assert config.checkpoint_dir == "/run/checkpoints/local/digits"
    assert config.dataset_path == "/scratch/dataset"
    wanted = train_config(experiment())
    assert (config.model, config.nnodes, config.nproc_per_node, config.epochs) == ("resnet18", 2, 2, 8)
    assert config.learning_rate == wanted.learning_rate


def test_the_environment_is_what_kubelet_and_dns_would_give_and_nothing_of_the_caller():
    env = plan().env
    assert env["PET_NODE_RANK"] == "1"
    assert env["RESNET_POD"] == "digits-3-worker-1"
    assert (env["RESNET_EXPERIMENT"], env["RESNET_ATTEMPT"], env["RESNET_NAMESPACE"]) == ("digits", "3", "local")
    assert env["RESNET_EXPERIMENT_UID"] == "0d7f6f7e"
    assert env["MASTER_ADDR"] == "127.0.0.1"
    assert (env["MASTER_PORT"], env["RESNET_GANG_PORT"], env["RESNET_METRICS_PORT"]) == ("41001", "41002", "41003")
    assert env["RESNET_TERMINATION_MESSAGE_PATH"] == "/run/pods/p/termination-log"
    assert env["HOME"].startswith("/scratch/")
    assert env["TMPDIR"].startswith("/scratch/")
    assert env["PRICE"] == "$(HOME) costs $5"
    assert env["PATH"] == "/bin"


def test_empty_dirs_are_the_pods_own_and_the_checkpoint_volume_is_not():
    result = plan()
    assert Path("/scratch/dataset") in result.directories
    assert all(path.is_relative_to("/scratch") for path in result.directories)
    assert result.grace_seconds == 7
    assert result.metrics_port == 41003
    assert result.termination_log == Path("/run/pods/p/termination-log")


def test_a_data_set_path_is_the_path_on_this_machine_even_below_the_pods_tmp():
    document = pod()
    container = document["spec"]["containers"][0]
    container["args"].append("--profiler_dir=/tmp/data/imagenet")
    places = Places(PLACES.scratch, PLACES.pod, {**PLACES.fixed, "/tmp/data": Path("/tmp/data")})
    assert plan(document, places).argv[-1] == "--profiler_dir=/tmp/data/imagenet"


def test_a_volume_that_only_a_cluster_has_is_refused_by_name():
    document = pod()
    document["spec"]["volumes"].append({"name": "extra", "persistentVolumeClaim": {"claimName": "x"}})
    document["spec"]["containers"][0]["volumeMounts"].append({"name": "extra", "mountPath": "/extra"})
    with pytest.raises(LocalError, match="'extra'"):
        plan(document)


def test_a_secret_in_the_environment_is_refused_by_name():
    document = pod()
    document["spec"]["containers"][0]["env"].append({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s"}}})
    with pytest.raises(LocalError, match="TOKEN"):
        plan(document)


def test_a_service_name_is_resolved_also_with_its_domain_and_only_as_a_whole():
    document = pod()
    env = document["spec"]["containers"][0]["env"]
    for name, value in (
        ("A", "tcp://digits-3-worker-0.local.svc.cluster.local:1"),
        ("B", "digits-3-worker-0x"),
        ("C", "other-digits-3-worker-0"),
        ("D", "digits-3-worker-11"),
    ):
        env.append({"name": name, "value": value})
    result = plan(document).env
    assert result["A"] == "tcp://127.0.0.1:1"
    assert result["B"] == "digits-3-worker-0x"
    assert result["C"] == "other-digits-3-worker-0"
    assert result["D"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("$(A)$(B)", "12"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$A $ $", "$A $ $"),
        ("$(A", "$(A"),
        ("$$", "$"),
    ],
)
def test_variables_are_expanded_as_the_kubelet_does(text: str, result: str):
    assert expand(text, {"A": "1", "B": "2"}) == result


@given(st.text())
def test_text_with_doubled_dollars_arrives_as_it_was(text: str):
    assert expand(text.replace("$", "$$"), {"A": "1"}) == text


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/a", "/x"),
        ("/a/b", "/y"),
        ("/a/b/c", "/y/c"),
        ("/a/bc", "/x/bc"),
        ("--f=/a/b", "--f=/y"),
        ("/a:/a/b:/q", "/x:/y:/q"),
        ("/q/a", "/q/a"),
        ("say /a", "say /a"),
        ("/ab", "/ab"),
    ],
)
def test_mount_paths_are_mapped_where_a_path_begins_and_the_longest_wins(text: str, result: str):
    assert map_paths(text, {"/a": Path("/x"), "/a/b": Path("/y")}) == result


def test_the_callers_environment_stays_outside_but_for_what_an_image_and_a_device_plugin_give():
    base = base_environment({"PATH": "/bin", "SECRET": "s", "CUDA_VISIBLE_DEVICES": "1"}, 42)
    ours = {"PYTHONPATH": str(Path(__file__).parents[2]), "RESNET_PARENT_PID": "42"}
    assert base == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", **ours}


@pytest.mark.parametrize(
    ("environ", "device", "expected"),
    [
        ({}, "sdaa", [{"SDAA_VISIBLE_DEVICES": "0,1"}, {"SDAA_VISIBLE_DEVICES": "2,3"}]),
        ({"SDAA_VISIBLE_DEVICES": "9,8,7,6,5"}, "sdaa",
         [{"SDAA_VISIBLE_DEVICES": "9,8"}, {"SDAA_VISIBLE_DEVICES": "7,6"}]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,GPU-c,GPU-d"}, "cuda",
         [{"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}, {"CUDA_VISIBLE_DEVICES": "GPU-c,GPU-d"}]),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "cpu", [{}, {}]),
    ],
)  # fmt: skip
def test_each_pod_sees_devices_of_its_own(environ, device, expected):
    assert own_devices(environ, device, 2, 2) == expected


def test_fewer_devices_than_the_pods_need_are_refused_by_the_variables_name():
    with pytest.raises(LocalError, match=r"CUDA_VISIBLE_DEVICES is '0,1,2', but 2 pod\(s\) of 2 device\(s\) need 4"):
        own_devices({"CUDA_VISIBLE_DEVICES": "0,1,2"}, "cuda", 2, 2)
