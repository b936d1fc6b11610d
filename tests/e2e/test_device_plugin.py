"""The device plugin against real kubelets: who gets which devices, and what happens when one goes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cluster.cluster import NODES, Cluster
from tests.cluster.fixtures import new_namespace
from tests.cluster.kubectl import Kubectl, Object
from tests.cluster.node import Node
from tests.cluster.waiting import wait_for
from tests.e2e.device_plugin import (
    DEVICES,
    FOLDER,
    MINORS,
    MISC,
    NAME,
    PRIVILEGED,
    RESOURCE,
    SELECTOR,
    SOON,
    DevicePlugin,
    holder,
    make_devices,
    tell_health,
)
from tests.e2e.experiments import Experiment, Laboratory
from tests.e2e.pods import pod, ready, start
from tests.integration.kubelet import plugin as process

pytestmark = [pytest.mark.timeout(1800), pytest.mark.usefixtures("images")]
# Opens every device that it finds; what it may not open is an error.
LOOK = """
import glob, json, os
names = sorted(glob.glob("/dev/tcaicard*"))
for name in names:
    os.close(os.open(name, os.O_RDWR))
print(json.dumps({"user": os.getuid(), "devices": [int(name[13:]) for name in names],
                  "visible": os.environ["SDAA_VISIBLE_DEVICES"]}))
"""
# Makes a node of its own for a device and opens it; the number of the error.
FORGE = """
import os, sys
os.mknod("/tmp/forged-{minor}", 0o20600, os.makedev({major}, {minor}))
try:
    os.close(os.open("/tmp/forged-{minor}", os.O_RDWR))
    print("opened")
except OSError as error:
    print(os.strerror(error.errno))
"""


@pytest.fixture(scope="module")
def plugin(cluster: Cluster, images: None) -> Iterator[DevicePlugin]:
    """Installed on both nodes, each with two cards of four devices."""
    release = DevicePlugin.of(cluster)
    release.install()
    yield release
    release.remove()


def look(kubectl: Kubectl, name: str) -> Object:
    """What a pod finds of devices."""
    found: Object = json.loads(kubectl.execute(name, "python3", "-c", LOOK))
    return found


def hold(kubectl: Kubectl, name: str, count: int, node: str | None = None) -> list[int]:
    """Start a pod with so many devices; which it got."""
    start(kubectl, pod(name, holder(node, count)))
    devices: list[int] = look(kubectl, name)["devices"]
    return devices


def cards(count: int, **more: object) -> Object:
    """Changes of an experiment that asks for whole cards and computes on the CPU for long."""
    return {
        "nodes": 1,
        "accelerator": {
            "type": "cpu", "resourceName": RESOURCE, "devicesPerCard": 4, "cardsPerNode": count,
        },
        "training": {"epochs": 500},
        "podTemplate": {"resources": {"limits": {"memory": "6Gi"}}},
        **more,
    }  # fmt: skip


def running(experiment: Experiment) -> str:
    """The pod of an experiment, once it runs."""

    def pod_name() -> str:
        name = experiment.pod()
        return name if experiment.kubectl.get("pod", name)["status"]["phase"] == "Running" else ""

    return wait_for(pod_name, SOON * 2, f"no pod of {experiment.name} runs")


def restart_kubelet(plugin: DevicePlugin, node: Node) -> None:
    """SIGKILL to a kubelet, and a new one, which knows the devices."""
    before = plugin.log(node.name).count("registered ")
    node.kill_kubelet()
    node.start_kubelet()
    # A pod that it is given before is refused for good.
    wait_for(lambda: plugin.log(node.name).count("registered ") > before, SOON, "the new kubelet has no devices")


def insufficient(experiment: Experiment) -> str:
    """What the scheduler says, as the experiment's condition has it."""
    status, _, message = experiment.condition("PodsScheduled")
    return message if status == "False" and "Insufficient" in message else ""


def test_a_non_root_pod_opens_its_devices_and_no_other(plugin: DevicePlugin, namespace: Kubectl) -> None:
    assert [plugin.free(node) for node in NODES] == [(DEVICES, DEVICES)] * 2
    start(namespace, pod("two", holder(NODES[0], 2)))
    # The files are root's alone: the runtime gave the pod nodes of its own.
    assert look(namespace, "two") == {"user": 65532, "devices": [0, 1], "visible": "0,1"}
    powerful = plugin.kubectl.within(new_namespace(plugin.kubectl, PRIVILEGED))
    spec = holder(NODES[0], 4)
    spec["securityContext"] = {"runAsUser": 0}
    spec["containers"][0]["securityContext"] = {}
    try:
        start(powerful, pod("root", spec))
        assert look(powerful, "root")["devices"] == [4, 5, 6, 7]
        other, own = MINORS
        # Even root, with a node of its own making, gets at no device of another card.
        for minor, said in ((own, "opened"), (other, "Operation not permitted")):
            forge = FORGE.format(major=MISC, minor=minor)
            assert powerful.execute("root", "python3", "-c", forge) == f"{said}\n"
    finally:
        powerful.delete("namespace", powerful.namespace, wait=False)


def test_devices_of_a_card_stay_together_as_pods_come_and_go(plugin: DevicePlugin, namespace: Kubectl) -> None:
    node = NODES[1]
    wait_for(lambda: plugin.free(node) == (DEVICES, DEVICES), SOON, "devices are missing")
    assert hold(namespace, "two", 2, node) == [0, 1]
    assert hold(namespace, "one", 1, node) == [2]
    assert hold(namespace, "card", 4, node) == [4, 5, 6, 7]
    namespace.delete("pod", "two")
    assert hold(namespace, "three", 3, node) == [0, 1, 3]
    log = plugin.log(node)
    assert "allocated tcaicard4 tcaicard5 tcaicard6 tcaicard7\n" in log
    assert "allocated tcaicard2 (no whole cards)\n" in log


def test_experiments_get_whole_cards_and_what_does_not_fit_waits_for_one(
    plugin: DevicePlugin, laboratory: Laboratory
) -> None:
    one = laboratory.experiment("one-card", **cards(1))
    first = look(laboratory.kubectl, running(one))
    assert first == {"user": first["user"], "devices": [0, 1, 2, 3], "visible": "0,1,2,3"}
    assert first["user"] != 0
    # The other node is the one that has two cards to give.
    two = laboratory.experiment("two-cards", **cards(2))
    assert look(laboratory.kubectl, running(two))["devices"] == list(range(DEVICES))
    assert two.node() != one.node()

    late = laboratory.experiment("late", **cards(2))
    waits = late.until(lambda _: insufficient(late), "the condition does not say what is missing")
    assert f"Insufficient {RESOURCE}" in waits
    two.change(suspend=True)
    assert look(laboratory.kubectl, running(late))["devices"] == list(range(DEVICES))
    for each in (one, late):
        laboratory.kubectl.delete("resnetexperiment", each.name, wait=False)
    laboratory.kubectl.delete("resnetexperiment", two.name, wait=False)


def test_a_sick_device_is_named_and_given_to_nobody_until_it_is_well(
    plugin: DevicePlugin, laboratory: Laboratory
) -> None:
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    sick, other = (plugin.cluster.node(name) for name in NODES)
    hold(laboratory.kubectl, "takes-one", 1, other.name)
    # The vendor's tool says so.
    tell_health(sick, d2="DEVICE_LOST")
    plugin.wait(sick.name, DEVICES - 1)
    assert plugin.free(sick.name)[1] == DEVICES
    labels = f'card="card-00000000:00:00.0",device="tcaicard2",resource="{RESOURCE}"'
    assert f"resnet_device_plugin_device_healthy{{{labels}}} 0.0" in plugin.metrics(sick.name)
    told = "tcaicard2 (card-00000000:00:00.0): the health command says DEVICE_LOST"
    wait_for(lambda: told in plugin.events("DeviceUnhealthy", began), SOON, "no Event names the device")
    assert told in plugin.cluster.kubectl.run("describe", "node", sick.name)

    waiting = laboratory.experiment("waits", **cards(2))
    assert f"Insufficient {RESOURCE}" in waiting.until(
        lambda _: insufficient(waiting), "the condition does not say what is missing"
    )
    # And a file that is gone.
    sick.run(["rm", f"{FOLDER}/tcaicard6"])
    plugin.wait(sick.name, DEVICES - 2)
    gone = f"tcaicard6 (card-00000000:01:00.0): {FOLDER}/tcaicard6 is gone"
    wait_for(lambda: gone in plugin.events("DeviceUnhealthy", began), SOON, "no Event names the device")

    tell_health(sick)
    make_devices(sick, 6)
    plugin.wait(sick.name, DEVICES)
    assert look(laboratory.kubectl, running(waiting))["devices"] == list(range(DEVICES))
    back = "tcaicard6 (card-00000000:01:00.0): usable again"
    wait_for(lambda: back in plugin.events("DeviceHealthy", began), SOON, "no Event says that it is back")
    laboratory.kubectl.delete("resnetexperiment", waiting.name, wait=False)


def test_kubelet_and_plugin_may_be_killed_while_pods_hold_devices(plugin: DevicePlugin, namespace: Kubectl) -> None:
    node = plugin.cluster.node(NODES[0])
    assert hold(namespace, "first", 4, node.name) == [0, 1, 2, 3]

    plugin.kill(node.name)
    wait_for(lambda: plugin.pod(node.name)["status"]["containerStatuses"][0]["restartCount"] == 1, SOON, "no restart")
    plugin.wait(node.name, DEVICES)
    assert hold(namespace, "second", 2, node.name) == [4, 5]

    restart_kubelet(plugin, node)
    assert hold(namespace, "third", 2, node.name) == [6, 7]
    plugin.wait(node.name, DEVICES)
    for name, devices in (("first", [0, 1, 2, 3]), ("second", [4, 5])):
        assert ready(namespace, name)
        assert look(namespace, name)["devices"] == devices
    assert all(not each["restartCount"] for name in ("first", "second") for each in containers(namespace, name))


def containers(kubectl: Kubectl, name: str) -> list[Object]:
    """The states of a pod's containers."""
    found: list[Object] = kubectl.get("pod", name)["status"]["containerStatuses"]
    return found


def test_a_full_socket_directory_is_one_line_until_there_is_room() -> None:
    with tempfile.TemporaryDirectory(prefix="dp") as name:
        full = Path(name, "full")
        full.mkdir()
        # Its own root is the one file that fits.
        subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", full], check=True)
        try:
            with process(Path(name), sockets=full) as running:
                running.said("no socket can be made there: No space left on device")
                subprocess.run(["mount", "-o", "remount,nr_inodes=9", full], check=True)
                assert len(running.caller().watch().next()) == DEVICES
                assert running.log.count("No space left") == 1
        finally:
            subprocess.run(["umount", full], check=True)


@pytest.mark.faults
def test_a_second_plugin_by_mistake_says_so_and_changes_nothing(plugin: DevicePlugin, namespace: Kubectl) -> None:
    mistake = plugin.helm.within(new_namespace(plugin.cluster.kubectl, PRIVILEGED))
    kubectl = plugin.kubectl.within(mistake.namespace)
    try:
        mistake.install("again", NAME, {"resourceName": RESOURCE, "devices": {"path": f"{FOLDER}/tcaicard"}})
        said = "another process serves this socket; is there a second plugin on this node?"

        def logs() -> list[str]:
            return [kubectl.logs(each["metadata"]["name"]) for each in kubectl.find("pods", SELECTOR)]

        wait_for(lambda: [said in each for each in logs()] == [True, True], SOON, "they do not say so")
        assert hold(namespace, "all", DEVICES, NODES[0]) == list(range(DEVICES))
    finally:
        mistake.uninstall("again")
        plugin.cluster.kubectl.delete("namespace", mistake.namespace, wait=False)


@pytest.mark.faults
def test_the_classic_directory_serves_as_well_and_survives_the_kubelets_end(
    plugin: DevicePlugin, namespace: Kubectl
) -> None:
    plugin.install(kubelet={"registration": "classic"})
    try:
        node = plugin.cluster.node(NODES[1])
        assert hold(namespace, "first", 4, node.name) == [0, 1, 2, 3]
        restart_kubelet(plugin, node)
        assert hold(namespace, "second", 4, node.name) == [4, 5, 6, 7]
        assert look(namespace, "first")["devices"] == [0, 1, 2, 3]
    finally:
        plugin.install()
