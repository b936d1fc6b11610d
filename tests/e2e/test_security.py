"""What a training pod and the operator may do, and what nobody can get round."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.e2e.experiments import SPEC, Laboratory, merged
from tests.e2e.operator import NAME, Operator

pytestmark = [pytest.mark.timeout(1800), pytest.mark.faults]
# What a pod's process gets of the API without credentials.
ASK = """
import json, os, ssl, urllib.error, urllib.request
codes = {}
for path in ("/api", "/apis", "/api/v1/namespaces/default/pods", "/api/v1/secrets", "/apis/kubeflow.org/v1"):
    try:
        urllib.request.urlopen("https://kubernetes.default.svc" + path, context=ssl._create_unverified_context())
        codes[path] = 200
    except urllib.error.HTTPError as error:
        codes[path] = error.code
print(json.dumps({"codes": codes, "token": os.path.exists("/var/run/secrets/kubernetes.io")}))
"""
# Of /proc/<pid>/status: see proc(5).
CONFINED = {
    "Uid": "1000 1000 1000 1000", "Gid": "1000 1000 1000 1000", "CapEff": "0" * 16, "CapPrm": "0" * 16,
    "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2",
}  # fmt: skip
UNWRITABLE = ("/", "/opt/resnet", "/usr/bin", "/etc", "/datasets/digits")


def test_a_training_pod_is_confined_and_the_api_server_refuses_it_everything(laboratory: Laboratory) -> None:
    held = laboratory.experiment("held", nodes=1, training={"epochs": 1000})
    held.trains(1)
    pod = held.pod()

    said = json.loads(laboratory.kubectl.execute(pod, "python", "-c", ASK))
    assert set(said["codes"].values()) <= {401, 403}, said
    assert said["token"] is False

    lines = laboratory.kubectl.execute(pod, "cat", "/proc/1/status").splitlines()
    status = {key: " ".join(value.split()) for key, _, value in (line.partition(":") for line in lines)}
    assert {key: status[key] for key in CONFINED} == CONFINED
    for path in UNWRITABLE:
        with pytest.raises(KubectlError, match=r"Read-only file system|Permission denied"):
            laboratory.kubectl.execute(pod, "touch", f"{path}/written")


def test_the_operators_token_does_what_its_role_says_and_nothing_else(
    cluster: Cluster, operator: Operator, laboratory: Laboratory, tmp_path: Path
) -> None:
    as_operator = with_token(cluster, operator.kubectl.run("create", "token", NAME).strip(), tmp_path)
    its = as_operator.within(laboratory.kubectl.namespace)
    held = laboratory.experiment("held", nodes=1, training={"epochs": 1000})
    held.trains(1)

    assert its.get("resnetexperiment", "held")["status"]["attempt"] == 1
    assert its.get("pod", held.pod())["metadata"]["name"] == held.pod()
    for forbidden in (
        ("get", "secrets"), ("get", "configmaps"), ("get", "nodes"), ("get", "leases"),
        ("get", "secrets", "--namespace", "kube-system"),
        ("delete", "pod", held.pod()), ("exec", held.pod(), "--", "true"), ("logs", held.pod()),
        ("delete", "resnetexperiment", "held"), ("annotate", "resnetexperiment", "held", "a=b"),
        ("label", "pytorchjob", "held-1", "a=b"), ("run", "mine", "--image=x"),
        ("create", "clusterrolebinding", "mine", "--clusterrole=cluster-admin", "--user=me"),
        ("create", "token", "default"),
    ):  # fmt: skip
        with pytest.raises(KubectlError, match=r"[Ff]orbidden"):
            its.run(*forbidden)


def with_token(cluster: Cluster, token: str, directory: Path) -> Kubectl:
    """kubectl as the owner of a token."""
    config = json.loads(cluster.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = directory / "kubeconfig"
    path.write_text(json.dumps(config))
    return replace(cluster.kubectl, kubeconfig=path)


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ({"securityContext": {"runAsUser": 0}}, "runAsUser"),
        ({"securityContext": {"privileged": True}}, "privileged"),
        ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volumes"),
        ({"containers": [{"name": "pytorch", "command": ["sh"]}]}, "containers"),
        ({"serviceAccountName": "default"}, "serviceAccountName"),
        ({"hostPID": True}, "hostPID"),
        ({"env": [{"name": "RESNET_ATTEMPT", "value": "9"}]}, r"env\[0\].*sets this variable itself"),
    ],
)
def test_what_a_pod_template_may_not_say_is_refused(
    laboratory: Laboratory, template: dict[str, object], why: str
) -> None:
    with pytest.raises(KubectlError, match=why):
        apply_strictly(laboratory, template)


def apply_strictly(laboratory: Laboratory, template: dict[str, object]) -> None:
    """As `kubectl create` does it."""
    document = {
        "apiVersion": "resnet-operator.io/v1alpha1", "kind": "ResNetExperiment", "metadata": {"name": "sly"},
        "spec": merged(SPEC, {"podTemplate": template}),
    }  # fmt: skip
    laboratory.kubectl.run("create", "--filename", "-", stdin=yaml.safe_dump(document))


def test_what_the_operator_was_not_told_to_allow_begins_nothing(laboratory: Laboratory) -> None:
    sly = laboratory.experiment("sly", podTemplate={"hostIPC": True})
    sly.until(lambda _: sly.condition("Accepted")[:2] == ("False", "NotAllowed"), "it is not refused")
    assert "hostIPC" in sly.condition("Accepted")[2]
    assert laboratory.kubectl.find("pytorchjobs") == []


def test_what_it_allows_and_the_namespace_forbids_is_told(laboratory: Laboratory) -> None:
    sly = laboratory.experiment("sly", podTemplate={"hostNetwork": True})
    sly.until(lambda _: sly.condition("PodsScheduled")[1] == "PodsRefused", "it does not say why it has no pods")
    assert 'violates PodSecurity "restricted' in sly.condition("PodsScheduled")[2]
