"""A cluster from its first process to its last: up, down, and what happens to it between."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

from tests.cluster import cgroups, debian, network, preflight, scratch_image, toolchain, training_operator
from tests.cluster.cache import built
from tests.cluster.certificates import Authority
from tests.cluster.control_plane import ApiServer, start_api_server, start_controllers, start_dns
from tests.cluster.images.build import build_images
from tests.cluster.kubectl import Kubectl
from tests.cluster.network import Block
from tests.cluster.node import DISKS, PAUSE_IMAGE, Node
from tests.cluster.processes import Processes
from tests.cluster.state import ClusterError, State
from tests.cluster.waiting import wait_for

Profile = Literal["api", "full"]
Say = Callable[[str], None]
NODES = ("node-a", "node-b")
# toolchain/probe/main.go says what it does.
PROBE_IMAGE = "localhost/probe:dev"
CONTROL_PLANE = ("etcd", "kube-apiserver")
CONTROLLERS = ("kube-controller-manager", "kube-scheduler", "coredns")
JOIN_SECONDS = 60.0


def default_state(profile: Profile) -> Path:
    """Where a cluster's state lies if nobody says otherwise: $RESNET_OPERATOR_CLUSTER, or a fixed place."""
    if chosen := os.environ.get("RESNET_OPERATOR_CLUSTER"):
        return Path(chosen)
    return Path("/var/lib/resnet-operator-cluster" if profile == "full" else f"/tmp/rnx-api-{os.getuid()}")


@dataclass(frozen=True)
class Cluster:
    """The cluster whose state lies in the directory `state`, running or not."""

    state: Path
    profile: Profile = "full"
    say: Say = print

    @property
    def processes(self) -> Processes:
        """What runs of it."""
        return Processes(self.state / "processes", self.state / "logs")

    @property
    def kubeconfig(self) -> Path:
        """With all rights."""
        return self.state / "kubeconfig"

    @property
    def kubectl(self) -> Kubectl:
        """With all rights."""
        return Kubectl(self.kubeconfig)

    @property
    def block(self) -> Block:
        """Its addresses."""
        return Block(IPv4Network((self.state / "network").read_text()))

    @property
    def nodes(self) -> list[Node]:
        """Its nodes, on or off."""
        if self.profile == "api" or not (self.state / "network").exists():
            return []
        return [Node(name, index, self.state, self.block, self.processes) for index, name in enumerate(NODES)]

    def node(self, name: str) -> Node:
        """One of them.

        Raises:
            ClusterError: there is none of that name.
        """
        for node in self.nodes:
            if node.name == name:
                return node
        raise ClusterError(f"no node {name}: there are {', '.join(node.name for node in self.nodes) or 'none'}")

    def up(self) -> bool:
        """Start it if it does not run whole; whether that was to be done.

        Raises:
            ClusterError: the machine lacks something; nothing was started.
            RuntimeError: a part did not start.
        """
        began = time.monotonic()
        if not self._held.held():
            self._check_machine()
        with self._held.alone():
            if self._held.held():
                gone = self._gone(self._expected()) if self._ready_file.exists() else ["its last step"]
                if not gone:
                    self.say(f"the cluster is up already: {self.kubeconfig}")
                    for node in self.nodes:
                        if node.off_file.exists():
                            with self._step(f"switching on {node.name}"):
                                self.start_node(node.name)
                    return False
                self.say(f"the cluster is not whole, and is taken down first; missing: {', '.join(gone)}")
                self._down()
                self._check_machine()
            self._held.take()
            self._build()
            if self.profile == "full":
                self._full()
            else:
                self._api()
            self._ready_file.touch()
            self.say(f"up after {time.monotonic() - began:.1f} s: {self.kubeconfig}")
            return True

    def build(self, *, faults: bool = False) -> None:
        """Install and build what `up` and the tests need, and start nothing; seconds where it is all there.

        Args:
            faults: what only the tests marked `faults` need, too: Kueue, JobSet and the Trainer.

        Raises:
            ClusterError: the machine lacks something.
            RuntimeError: a part can't be built.
        """
        if not self._held.held():
            self._check_machine()
        self._build(toolchain.PROMETHEUS, toolchain.HELM, toolchain.HELM3, *(toolchain.QUEUES if faults else ()))
        if self.profile == "full":
            with self._step("images"):
                build_images()

    def down(self) -> None:
        """End every process of it and remove every trace; nothing happens if there is none.

        Raises:
            ClusterError: the directory holds something else.
        """
        with self._held.alone():
            if self._held.held():
                self._down()

    def status(self) -> list[tuple[str, int | None, int]]:
        """(name, process id or None if it does not run, resident bytes) of each process that should run.

        Those of a node that was stopped should not.

        Raises:
            ClusterError: there is no cluster.
        """
        self.require()
        processes = self.processes
        return [(name, processes.pid(name), processes.resident_bytes(name)) for name in self._expected()]

    def require(self) -> None:
        """Check that it was started and not taken down.

        Raises:
            ClusterError: it was not.
        """
        if not self._held.held():
            raise ClusterError(f"there is no cluster in {self.state}: start one with `up`")

    def stop_node(self, name: str) -> None:
        """As if its power went; nothing happens if it is off."""
        node = self.node(name)
        node.off_file.touch()
        node.power_off(self._powered_but(node))

    def start_node(self, name: str) -> None:
        """Switch it on again with its disk, and wait until it is Ready; nothing happens if it is on."""
        node = self.node(name)
        if not self._gone(node.names()):
            return
        self.stop_node(name)
        began = datetime.now(UTC)
        node.power_on(self._powered())
        node.join(self._api_server())
        self._wait_for_nodes([node], began)
        node.off_file.unlink()

    def advertise(self, node: str, resource: str, count: int) -> None:
        """Give a node `count` of an extended resource (tecorigin.com/tcaicard), as a device plugin would.

        It lasts when the kubelet starts again.
        """
        self.kubectl.patch("node", node, {"status": {"capacity": {resource: str(count)}}}, subresource="status")

        def allocatable() -> bool:
            return bool(self.kubectl.get("node", node)["status"]["allocatable"].get(resource) == str(count))

        wait_for(allocatable, JOIN_SECONDS, f"{node} has no {count} {resource} to give")

    @property
    def _held(self) -> State:
        return State(self.state, self.profile)

    @property
    def _ready_file(self) -> Path:
        return self.state / "ready"

    def _check_machine(self) -> None:
        if found := preflight.problems(preflight.look(self.profile, self.state), self.profile, self.state):
            raise ClusterError("\n".join(found))

    def _expected(self) -> list[str]:
        if self.profile == "api":
            return list(CONTROL_PLANE)
        nodes = [name for node in self.nodes if not node.off_file.exists() for name in node.names()]
        return [*CONTROL_PLANE, *CONTROLLERS, *nodes]

    def _gone(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if self.processes.pid(name) is None]

    def _powered(self) -> dict[int, int]:
        return {node.index: pid for node in self.nodes if (pid := node.init_pid()) is not None}

    def _powered_but(self, node: Node) -> list[int]:
        return [pid for index, pid in self._powered().items() if index != node.index]

    def _api_server(self) -> ApiServer:
        server = json.loads(self.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
        return ApiServer(server, Authority(self.state / "pki"), self.kubeconfig)

    def _api(self) -> None:
        with self._step("etcd and kube-apiserver"):
            start_api_server(self.state, self.processes, None)
        with self._step("the PyTorchJob type"):
            training_operator.install_crd(self.kubectl)

    def _full(self) -> None:
        block = network.free_block(network.routes())
        (self.state / "network").write_text(str(block.network))
        with self._step("etcd and kube-apiserver"):
            network.attach_host(block)
            api = start_api_server(self.state, self.processes, block)
            start_controllers(self.state, self.processes, api)
        began = datetime.now(UTC)
        with self._step("nodes with containerd"):
            self._make_mount_points()
            for node in self.nodes:
                node.power_on(self._powered())
        with self._step("images of the cluster"):
            archives = list(self._archives())
            for node in self.nodes:
                for archive in archives:
                    node.containerd.ctr("images", "import", "-", stdin=archive)
        with self._step("CoreDNS"):
            start_dns(self.state, self.processes, api, block)
        with self._step("kubelets and kube-proxies"):
            for node in self.nodes:
                node.join(api)
            self._wait_for_nodes(self.nodes, began)
        with self._step("training-operator"):
            training_operator.install(self.kubectl)
            training_operator.wait_until_ready(self.kubectl)

    def _archives(self) -> Iterator[bytes]:
        yield scratch_image.archive(PAUSE_IMAGE, toolchain.tool("pause"), "/pause")
        yield scratch_image.archive(PROBE_IMAGE, toolchain.tool("probe"), "/probe")
        yield training_operator.archive()

    def _wait_for_nodes(self, nodes: list[Node], since: datetime) -> None:
        """Until each of `nodes` was Ready after `since`."""
        # A heartbeat has whole seconds.
        next_second = since.replace(microsecond=0) + timedelta(seconds=1)

        def ready() -> bool:
            for node in nodes:
                conditions = self.kubectl.get("node", node.name)["status"]["conditions"]
                (found,) = (each for each in conditions if each["type"] == "Ready")
                if found["status"] != "True" or datetime.fromisoformat(found["lastHeartbeatTime"]) < next_second:
                    return False
            return True

        wait_for(ready, JOIN_SECONDS, f"not Ready: {', '.join(node.name for node in nodes)}")

    def _make_mount_points(self) -> None:
        missing = [path for path in DISKS if not Path(path).exists()]
        self._made_file.write_text("\n".join(missing))
        for path in missing:
            Path(path).mkdir(parents=True)

    @property
    def _made_file(self) -> Path:
        return self.state / "mount-points"

    def _down(self) -> None:
        for node in self.nodes:
            node.power_off(self._powered_but(node))
        for name in self.processes.names():
            self.processes.end(name)
        if self.profile == "full":
            cgroups.remove(NODES)
            if (self.state / "network").exists():
                network.detach_host()
        for made in self._made_file.read_text().splitlines() if self._made_file.exists() else ():
            if Path(made).exists() and not any(Path(made).iterdir()):
                Path(made).rmdir()
        self._held.clear()

    def _build(self, *more: toolchain.Part) -> None:
        with self._step("Debian packages"):
            debian.install(preflight.PACKAGES[self.profile])
        for part in (*preflight.PARTS[self.profile], *more):
            with self._step(f"building {part.name}", silent=part.entry().exists()):
                built(part.entry(), part.build)

    @contextmanager
    def _step(self, what: str, *, silent: bool = False) -> Iterator[None]:
        began = time.monotonic()
        yield
        if not silent:
            self.say(f"  {what}: {time.monotonic() - began:.1f} s")
