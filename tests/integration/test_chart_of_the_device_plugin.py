"""charts/resnet-device-plugin, by both versions of Helm: what it renders and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from app.version import version
from deviceplugin.allocation import Extras, Mount
from deviceplugin.devices import Rules
from deviceplugin.options import parse
from tests.cluster.helm import HelmError, Program, lint, template
from tests.cluster.kubectl import Object
from tests.integration.charts import PROGRAMS, one

# On a new machine Helm is built first.
pytestmark = pytest.mark.timeout(1500)
CHART = "resnet-device-plugin"
EVERYTHING: Object = {
    "image": {"repository": "registry.example.com/plugin", "tag": "7", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "pull"}],
    "resourceName": "example.com/card",
    "devices": {"path": "/dev/other", "count": "card", "perCard": 3},
    "container": {
        "permissions": "rwm", "visibleVariable": "VISIBLE", "visibleNumbers": "host", "env": {"A": "x y"},
        "mounts": ["/opt/teco:/opt/teco", "/a:/b:rw"],
    },
    "health": {"command": "/opt/teco/bin/teco-smi -q", "intervalSeconds": 5, "timeoutSeconds": 2.5, "words": [*"AB"]},
    "kubelet": {"rootDirectory": "/data/kubelet"},
    "metrics": {"port": 9500},
    "extraArgs": ["--poll-seconds=5", "--verbose"],
    "podLabels": {"a": "b"}, "podAnnotations": {"c": "d"}, "nodeSelector": {"card": "true"}, "priorityClassName": "",
}  # fmt: skip


def pod(objects: list[Object]) -> Object:
    found: Object = one(objects, "DaemonSet")["spec"]["template"]
    return found


def container(objects: list[Object]) -> Object:
    (found,) = pod(objects)["spec"]["containers"]
    return found


def test_no_value_changes_what_the_plugin_does_without_flags() -> None:
    made = template(CHART, {}, release=CHART)
    assert container(made)["image"] == f"localhost/resnet-operator-device-plugin:{version()}"
    options = parse(container(made)["args"])
    ours = parse(["--host-root=/host", "--node-name=$(NODE_NAME)"])
    assert options == ours


def test_the_values_become_flags_that_the_plugin_knows() -> None:
    made = template(CHART, EVERYTHING)
    found = container(made)
    assert (found["image"], found["imagePullPolicy"]) == ("registry.example.com/plugin:7", "Always")
    options = parse(found["args"])
    assert options.resource == "example.com/card"
    assert options.rules == Rules("/dev/other", "card", 3, frozenset("AB"), asks_tool=True)
    assert options.extras == Extras(
        "rwm", "VISIBLE", "host", {"A": "x y"}, (Mount("/opt/teco", "/opt/teco"), Mount("/a", "/b", read_only=False))
    )
    assert options.health_command == ("/opt/teco/bin/teco-smi", "-q")
    assert (options.health_interval, options.health_timeout, options.poll) == (5, 2.5, 5)
    assert str(options.socket) == "/data/kubelet/plugins_registry/example.com_card.sock"
    assert options.metrics_port == found["ports"][0]["containerPort"] == 9500
    classic = template(CHART, {"kubelet": {"rootDirectory": "/data/kubelet", "registration": "classic"}})
    assert parse(container(classic)["args"]).classic
    # That directory does not move with the root.
    assert str(parse(container(classic)["args"]).socket_directory) == "/var/lib/kubelet/device-plugins"


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"kubelet": {"registration": "classic"}}])
def test_what_the_flags_name_is_mounted(values: Object) -> None:
    made = template(CHART, values)
    options = parse(container(made)["args"])
    mounts = {each["name"]: each for each in container(made)["volumeMounts"]}
    paths = {each["name"]: each["hostPath"]["path"] for each in pod(made)["spec"]["volumes"]}
    assert mounts["sockets"]["mountPath"] == paths["sockets"] == str(options.socket_directory)
    assert mounts["devices"]["mountPath"] == f"{options.host_root}{paths['devices']}" == "/host/dev"
    assert mounts["devices"]["readOnly"]


def test_root_without_roots_rights_unless_the_health_command_needs_them() -> None:
    security = container(template(CHART, {}))["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    privileged = container(template(CHART, {"health": {"command": "teco-smi", "privileged": True}}))["securityContext"]
    assert privileged == {"privileged": True, "readOnlyRootFilesystem": True}


def test_it_may_write_events_of_nodes_and_nothing_else() -> None:
    made = template(CHART, {}, "--namespace", "cards")
    (rule,) = one(made, "Role")["rules"]
    assert rule == {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}
    assert one(made, "Role")["metadata"]["namespace"] == "default"
    assert one(made, "RoleBinding")["subjects"][0]["namespace"] == "cards"
    assert not [each for each in made if each["kind"].startswith("Cluster")]
    quiet = template(CHART, {"events": {"enabled": False}})
    assert not [each for each in quiet if each["kind"].startswith("Role")]
    assert pod(quiet)["spec"]["automountServiceAccountToken"] is False
    assert parse(container(quiet)["args"]).node == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_pod_monitor_comes_with_its_kind_and_both_helms_agree(program: Program) -> None:
    kind = ("--api-versions", "monitoring.coreos.com/v1/PodMonitor")

    def monitored(value: bool | None, *more: str) -> bool:
        made = template(CHART, {"monitoring": {"podMonitor": value}}, *more, program=program)
        return any(each["kind"] == "PodMonitor" for each in made)

    assert [monitored(None), monitored(None, *kind), monitored(True), monitored(False, *kind)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert template(CHART, EVERYTHING, program=program) == template(CHART, EVERYTHING)
    assert "0 chart(s) failed" in lint(CHART, EVERYTHING, program)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"devices": {"file": "/dev/x"}}, "devices"),
        ({"devices": {"path": "/tcaicard"}}, "path"),
        ({"devices": {"count": "cards"}}, "count"),
        ({"resourceName": "tcaicard"}, "resourceName"),
        ({"container": {"mounts": ["opt"]}}, "mounts"),
        ({"health": {"words": []}}, "words"),
        ({"kubelet": {"registration": "watcher"}}, "registration"),
        ({"metrics": {"port": 0}}, "port"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(values: Any, said: str) -> None:
    with pytest.raises(HelmError, match=said):
        template(CHART, values)
