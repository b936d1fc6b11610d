"""Experiment -> PyTorchJob: what design.md says of an attempt, and texts that try to be more than texts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from app.command_line import parse
from controller.api import Experiment, load, train_config
from controller.local.template import expand
from controller.render import _ENVIRONMENT, default_image, job_name, quoted, render_job, render_text

BASE = """\
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: exp, namespace: team}
spec:
  model: resnet50
  accelerator: {type: sdaa, cardsPerNode: 4}
  nodes: 2
  dataset: {name: imagenet, path: /data, volume: {persistentVolumeClaim: {claimName: images, readOnly: true}}}
  training: {epochs: 50, batchSizePerDevice: 64, autocast: true, gradScale: true}
"""


def experiment(extra: str = "", **metadata: str) -> Experiment:
    loaded = load(BASE + extra, "x")
    return loaded.model_copy(update={"metadata": loaded.metadata.model_copy(update=metadata)})


def rendered(extra: str = "", attempt: int = 3, **how: Any) -> dict[str, Any]:
    return render_job(experiment(extra), attempt, training_image="training:1", **how)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    return spec


def container_of(job: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod_of(job)["containers"]
    result: dict[str, Any] = container
    return result


def env_of(job: dict[str, Any]) -> dict[str, Any]:
    entries = container_of(job)["env"]
    assert len({e["name"] for e in entries}) == len(entries)
    return {e["name"]: e.get("valueFrom") or e.get("value", "") for e in entries}


def test_the_job_is_worker_only_never_restarted_and_kept_whole() -> None:
    job = rendered()
    assert list(job["spec"]["pytorchReplicaSpecs"]) == ["Worker"]
    worker = job["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert (worker["replicas"], worker["restartPolicy"]) == (2, "Never")
    assert job["spec"]["runPolicy"] == {"cleanPodPolicy": "None"}


def test_job_and_pods_carry_name_and_labels_of_the_attempt() -> None:
    job = rendered(attempt=12)
    labels = {"resnet-operator.io/experiment": "exp", "resnet-operator.io/attempt": "12"}
    assert job["metadata"] == {"name": "exp-12", "namespace": "team", "labels": labels}
    assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["metadata"]["labels"] == labels
    assert job_name(experiment(), 12) == "exp-12"


def test_an_experiment_with_a_uid_owns_its_job() -> None:
    job = render_job(experiment(uid="u-1"), 1, training_image="t")
    assert job["metadata"]["ownerReferences"] == [
        {
            "apiVersion": "resnet-operator.io/v1alpha1", "kind": "ResNetExperiment", "name": "exp", "uid": "u-1",
            "controller": True, "blockOwnerDeletion": True,
        }
    ]  # fmt: skip
    assert env_of(job)["RESNET_EXPERIMENT_UID"] == "u-1"


def test_the_launcher_reads_the_experiment_s_configuration_from_args_and_environment() -> None:
    job = rendered()
    container = container_of(job)
    assert container["command"] == ["tini", "--", "python", "-m", "app.run_resnet"]
    environ = {k: v for k, v in env_of(job).items() if isinstance(v, str)} | {"PET_NODE_RANK": "1"}
    config = parse(container["args"], environ)
    assert (config.nnodes, config.nproc_per_node, config.node_rank) == (2, 16, 1)
    assert (config.master_addr, config.master_port) == ("exp-3-worker-0", 23456)
    assert (config.metrics_port, config.gang_port) == (9401, 9402)
    assert (config.grace_seconds, config.rendezvous_timeout) == (120, 2100)
    assert (config.checkpoint_dir, config.dataset_path) == ("/checkpoints/team/exp", "/data")
    assert parse(container["args"], {}) == train_config(experiment())


def test_identity_and_places_are_in_the_environment() -> None:
    assert env_of(rendered()) == {
        "RESNET_NAMESPACE": "team",
        "RESNET_EXPERIMENT": "exp",
        "RESNET_EXPERIMENT_UID": "",
        "RESNET_ATTEMPT": "3",
        "RESNET_POD": {"fieldRef": {"fieldPath": "metadata.name"}},
        "PET_NODE_RANK": {"fieldRef": {"fieldPath": "metadata.labels['training.kubeflow.org/replica-index']"}},
        "MASTER_ADDR": "exp-3-worker-0",
        "MASTER_PORT": "23456",
        "RESNET_METRICS_PORT": "9401",
        "RESNET_GANG_PORT": "9402",
        "RESNET_TERMINATION_MESSAGE_PATH": "/dev/termination-log",
        "HOME": "/home/resnet",
        "TMPDIR": "/tmp",
    }


def test_ports_can_be_moved_and_are_named() -> None:
    job = rendered("  podTemplate: {ports: {master: 20000, metrics: 20001, gang: 20002}}\n")
    assert {p["name"]: p["containerPort"] for p in container_of(job)["ports"]} == {
        "pytorchjob-port": 20000, "metrics": 20001, "gang": 20002,
    }  # fmt: skip
    env = env_of(job)
    assert (env["MASTER_PORT"], env["RESNET_METRICS_PORT"], env["RESNET_GANG_PORT"]) == ("20000", "20001", "20002")


@pytest.mark.parametrize(("unit", "count"), [("device", 16), ("card", 4)])
def test_devices_are_requested_per_pod_in_the_unit_of_the_resource(unit: str, count: int) -> None:
    text = BASE.replace("cardsPerNode: 4", f"cardsPerNode: 4, resourceUnit: {unit}")
    text += "  podTemplate: {resources: {requests: {cpu: '8'}, limits: {memory: 64Gi}}}\n"
    resources = container_of(render_job(load(text, "x"), 1, training_image="t"))["resources"]
    assert resources == {
        "requests": {"cpu": "8", "tecorigin.com/tcaicard": count},
        "limits": {"memory": "64Gi", "tecorigin.com/tcaicard": count},
    }


def test_the_cpu_asks_for_no_device() -> None:
    job = render_job(load(BASE.replace("sdaa", "cpu"), "x"), 1, training_image="t")
    assert container_of(job)["resources"] == {}


def test_pods_meet_podsecurity_restricted() -> None:
    job = rendered("  podTemplate: {securityContext: {runAsUser: 5, fsGroup: 7, supplementalGroups: [44]}}\n")
    pod, container = pod_of(job), container_of(job)
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 5, "runAsGroup": 1000, "fsGroup": 7,
        "fsGroupChangePolicy": "OnRootMismatch", "supplementalGroups": [44],
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert not {"hostNetwork", "hostIPC", "dnsPolicy"} & set(pod)
    assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container)


def test_every_place_that_is_written_is_a_volume() -> None:
    job = rendered("  podTemplate: {sharedMemory: 128Gi}\n")
    volumes = {v.pop("name"): v for v in pod_of(job)["volumes"]}
    mounts = {m["mountPath"]: (volumes[m["name"]], m.get("readOnly", False)) for m in container_of(job)["volumeMounts"]}
    assert mounts == {
        "/tmp": ({"emptyDir": {}}, False),
        "/home/resnet": ({"emptyDir": {}}, False),
        "/dev/shm": ({"emptyDir": {"medium": "Memory", "sizeLimit": "128Gi"}}, False),
        "/data": ({"persistentVolumeClaim": {"claimName": "images", "readOnly": True}}, True),
        "/checkpoints": ({"emptyDir": {}}, False),
    }


def test_digits_are_written_into_a_volume_of_the_pod() -> None:
    text = BASE.replace(BASE[BASE.index("{name: imagenet") : BASE.index("\n  training")], "{name: digits}")
    job = render_job(load(text, "x"), 1, training_image="t")
    assert "--dataset_path=/datasets/digits" in container_of(job)["args"]
    (mount,) = [m for m in container_of(job)["volumeMounts"] if m["mountPath"] == "/datasets/digits"]
    assert "readOnly" not in mount
    assert {"name": mount["name"], "emptyDir": {}} in pod_of(job)["volumes"]


def test_pods_of_one_attempt_are_spread_only_where_there_are_several() -> None:
    (term,) = pod_of(rendered())["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term == {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {"matchLabels": {"resnet-operator.io/experiment": "exp", "resnet-operator.io/attempt": "3"}},
    }
    single = load(BASE.replace("nodes: 2", "nodes: 1"), "x")
    assert "affinity" not in pod_of(render_job(single, 1, training_image="t"))


def test_a_node_with_a_lost_device_is_avoided_but_not_forbidden() -> None:
    affinity = pod_of(rendered(avoid_node="node-7"))["affinity"]
    (term,) = affinity["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["node-7"]}]
    assert "podAntiAffinity" in affinity


def test_a_lost_node_is_tolerated_for_the_grace_period_and_users_add_their_own() -> None:
    job = rendered(
        "  faultTolerance: {nodeGracePeriodSeconds: 7}\n"
        "  podTemplate: {tolerations: [{key: example.com/x, operator: Exists}]}\n"
    )
    lost = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 7}
    assert pod_of(job)["tolerations"] == [
        {"key": "node.kubernetes.io/not-ready", **lost},
        {"key": "node.kubernetes.io/unreachable", **lost},
        {"key": "example.com/x", "operator": "Exists"},
    ]


def test_the_spec_s_image_goes_before_the_controller_s() -> None:
    assert container_of(rendered())["image"] == "training:1"
    assert container_of(rendered("  image: mine:2\n"))["image"] == "mine:2"
    assert default_image().startswith("localhost/resnet-operator-training:")


def test_a_queue_a_priority_and_the_host_s_namespaces_are_passed_on() -> None:
    job = rendered("  queueName: q\n  priorityClassName: high\n  podTemplate: {hostNetwork: true, hostIPC: true}\n")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    pod = pod_of(job)
    assert (pod["priorityClassName"], pod["hostNetwork"], pod["hostIPC"]) == ("high", True, True)
    assert pod["dnsPolicy"] == "ClusterFirstWithHostNet"


def test_a_standalone_job_restarts_by_exit_code_and_always_has_a_deadline() -> None:
    job = render_job(experiment(uid="u-1"), 1, training_image="t", standalone=True)
    assert job["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] == "ExitCode"
    assert job["spec"]["runPolicy"] == {"cleanPodPolicy": "None", "activeDeadlineSeconds": 604_800, "suspend": False}
    assert "ownerReferences" not in job["metadata"]
    assert env_of(job)["RESNET_EXPERIMENT_UID"] == ""
    own = rendered("  activeDeadlineSeconds: 60\n  ttlSecondsAfterFinished: 0\n  suspend: true\n", standalone=True)
    assert own["spec"]["runPolicy"] == {
        "cleanPodPolicy": "None", "activeDeadlineSeconds": 60, "ttlSecondsAfterFinished": 0, "suspend": True,
    }  # fmt: skip


def with_env(value: str) -> str:
    # PyYAML's own dumper writes the value: what our filter writes must not be read by what wrote it.
    dumped = yaml.safe_dump(value, default_style='"', width=2**31).strip()
    return f"  podTemplate:\n    env:\n      - name: VALUE\n        value: {dumped}\n"


HOSTILE = [
    "}}", "{{ 7*7 }}", "{% raw %}",
    "{# c #}", '"}}"', "{{ spec.__class__ }}", "a\nb: c", "\n", "\r\n", "---\nkind: Pod",
    "!!python/object/apply:os.system [id]", "no", "off", "1e3", "0x10", "017", "1:30", ".nan", "~", "null", "", " ",
    "'", '"', "\\", "\\n", "# no comment", "a # b", ": ", "- x", "*alias", "&anchor", "@", "`", "%TAG", "|", ">", "?",
    "\u2028", "\u2029", "\x85", "\xa0", "\ufeff", "\x7f", "\x1b[31m", "\t", "\x01", "\U0001f600", "日本語",
    "$(HOME)", "$$", "$$(HOME)", "$", "$(NOPE)",
]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_hostile_value_arrives_as_the_text_it_is(value: str) -> None:
    job = rendered(with_env(value))
    assert expand(env_of(job)["VALUE"], {"HOME": "/expanded"}) == value
    del container_of(job)["env"][-1]
    assert job == rendered()


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_value_arrives_as_the_text_it_is(value: str) -> None:
    assert expand(env_of(rendered(with_env(value)))["VALUE"], {"HOME": "/expanded"}) == value


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quoted_text_is_one_ascii_line_that_means_the_text(value: str) -> None:
    text = quoted(value)
    assert text.isascii()
    assert text.isprintable()
    assert yaml.safe_load(text) == value


@pytest.mark.parametrize("path", ["/data/{{ 7*7 }}", '/da"}}ta', "/no # x", "/a: b", "/a\u2028b", "/{% raw %}"])
def test_a_hostile_path_arrives_as_it_is_or_is_refused(path: str) -> None:
    text = BASE.replace("path: /data", f"path: {yaml.safe_dump(path, default_style=chr(34)).strip()}")
    if ":" in path:
        with pytest.raises(Exception, match=r"spec\.dataset\.path: must be an absolute path"):
            load(text, "x")
        return
    job = render_job(load(text, "x"), 1, training_image="t")
    assert f"--dataset_path={path}" in container_of(job)["args"]
    assert path in [m["mountPath"] for m in container_of(job)["volumeMounts"]]


def test_texts_that_look_like_numbers_are_quoted_for_every_reader_of_yaml() -> None:
    """A reader of YAML 1.2 takes 1e3 for a number where PyYAML does not: only quotes are safe."""
    assert 'value: "1e3"' in render_text(experiment(with_env("1e3")), 1, training_image="t")


def test_a_template_that_names_an_unknown_value_fails() -> None:
    with pytest.raises(UndefinedError, match="'nothing' is undefined"):
        _ENVIRONMENT.from_string("{{ nothing }}").render()
    with pytest.raises(TypeError, match="puts out None"):
        _ENVIRONMENT.from_string("{{ x }}").render(x=None)


def test_rendering_the_same_twice_gives_the_same() -> None:
    assert render_text(experiment(), 1, training_image="t") == render_text(experiment(), 1, training_image="t")
