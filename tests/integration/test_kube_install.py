"""manifests/install is what an API server takes, and what PodSecurity "restricted" lets run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from app.version import version
from controller.kube.client import PODS, ApiError, Client
from controller.options import parse
from tests.cluster.kubectl import Kubectl

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
