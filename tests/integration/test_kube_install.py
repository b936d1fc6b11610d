"""manifests/install is what an API server takes, and what PodSecurity "restricted" lets run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.version import version
from controller.kube.client import PODS, ApiError, Client, Resource
from controller.options import parse
from tests.cluster.kubectl import Kubectl
from tests.integration.kube import Namespace

INSTALL = Path(__file__).parents[2] / "manifests" / "install"


@pytest.fixture(scope="module")
def installed(kubeconfig: Path) -> dict[str, Any]:
    """What was installed, by kind and name."""
    kubectl = Kubectl(kubeconfig)
    text = kubectl.run("kustomize", str(INSTALL))
    kubectl.run("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=text)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(text)}


def test_everything_is_there_and_in_its_namespace(installed: dict[str, Any]) -> None:
    assert {name.partition("/")[0] for name in installed} == {
        "Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role",
        "RoleBinding", "Deployment", "Service",
    }  # fmt: skip
    for name, each in installed.items():
        if name.split("/")[0] in ("ServiceAccount", "Role", "RoleBinding", "Deployment", "Service"):
            assert each["metadata"]["namespace"] == "resnet-operator", name
    for name in ("ClusterRoleBinding/resnet-operator", "RoleBinding/resnet-operator-leader"):
        assert installed[name]["subjects"][0]["namespace"] == "resnet-operator"


def test_its_pod_passes_the_restricted_profile_that_the_namespace_enforces(
    installed: dict[str, Any], client: Client
) -> None:
    template = installed["Deployment/resnet-operator"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {**template["metadata"], "generateName": "operator-"}
    made = client.create(PODS, "resnet-operator", pod)
    container = made["spec"]["containers"][0]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    container["securityContext"].pop("capabilities")
    bad = {**pod, "spec": {**template["spec"], "containers": [container]}}
    with pytest.raises(ApiError, match="violates PodSecurity"):
        client.create(PODS, "resnet-operator", bad)


@pytest.mark.parametrize("role", ["view", "edit"])
def test_a_role_for_users_reaches_experiments_and_nothing_else(
    role: str, installed: dict[str, Any], client: Client, team: Namespace
) -> None:
    assert f"ClusterRole/resnet-operator-{role}" in installed
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"resnet-operator-{role}"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"{role}-{team.name}"}],
    }
    client.create(Resource("rbac.authorization.k8s.io", "v1", "rolebindings"), team.name, binding)
    resources = [
        *(("resnet-operator.io", f"resnetexperiments{sub}") for sub in ("", "/status", "/finalizers")),
        *(("kubeflow.org", "pytorchjobs"), ("", "pods"), ("", "secrets"), ("coordination.k8s.io", "leases")),
    ]
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete")
    allowed = {
        (resource, verb)
        for group, resource in resources
        for verb in verbs
        if may(client, f"{role}-{team.name}", team.name, group, resource, verb)
    }
    expected = ("get", "list", "watch") if role == "view" else ("create", "update", "patch", "delete")
    assert allowed == {("resnetexperiments", verb) for verb in expected}


def may(client: Client, user: str, namespace: str, group: str, resource: str, verb: str) -> bool:
    """What the API server would say to a request of that user."""
    name, _, sub = resource.partition("/")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": sub}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked},
    }
    answer = client.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
    return bool(answer["status"]["allowed"])


def test_flags_images_ports_and_the_service_fit_together(installed: dict[str, Any]) -> None:
    deployment = installed["Deployment/resnet-operator"]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    options = parse(container["args"])
    assert options.training_image == f"localhost/resnet-operator-training:{version()}"
    assert container["image"] == f"localhost/resnet-operator-operator:{version()}"
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": options.metrics_port, "health": options.health_port}
    service = installed["Service/resnet-operator"]["spec"]
    assert service["selector"].items() <= deployment["template"]["metadata"]["labels"].items()
    assert service["ports"][0]["targetPort"] == "metrics"
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {
        "/healthz", "/readyz",
    }  # fmt: skip
