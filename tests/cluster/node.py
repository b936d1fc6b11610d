"""A node: namespaces of its own (PIDs, mounts, network, host name), and in them containerd, kubelet and kube-proxy.

The first process of its PID namespace is `pause`. Ending that one ends all that ever ran on the node, and the kernel
then takes away its mounts, links and packet filters. What a disk would hold lies in the state directory.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import cgroups, network
from tests.cluster.control_plane import DOMAIN, ApiServer
from tests.cluster.debian import PATH
from tests.cluster.network import Block
from tests.cluster.processes import Processes, children
from tests.cluster.toolchain import tool
from tests.cluster.waiting import wait_for

PAUSE_IMAGE = "localhost/pause:dev"
START_SECONDS = 30.0
# Every path outside /run that the node's programs write to and can't be told to leave: {on the node: in its directory}
DISKS = {"/var/lib/kubelet": "kubelet", "/var/lib/cni": "cni-cache", "/var/log": "log"}
# What the kubelet wants of the kernel. It changes them for the whole machine; so that it does not, it reads these.
TUNABLES = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1000000,
    "kernel/keys/root_maxbytes": 25000000,
}
LEASE_SECONDS = 20


@dataclass(frozen=True)
class Containerd:
    """Where a node's containerd listens, and its namespace with the images that pods use."""

    socket: Path
    namespace: str = "k8s.io"

    def ctr(self, *arguments: str, stdin: bytes = b"") -> str:
        """What `ctr <arguments>` prints.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            ["ctr", "--address", self.socket, "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"ctr {' '.join(arguments)}: {done.stderr.decode(errors='replace').strip()}")
        return done.stdout.decode()


@dataclass(frozen=True)
class Node:
    """Node `index` of the cluster whose state lies in `state`."""

    name: str
    index: int
    state: Path
    block: Block
    processes: Processes

    @property
    def directory(self) -> Path:
        """Its disk."""
        return self.state / self.name

    @property
    def containerd(self) -> Containerd:
        """How to reach its containerd from the host."""
        return Containerd(self.directory / "containerd.sock")

    def init_pid(self) -> int | None:
        """The host's id of its first process; None if the node is off."""
        parent = self.processes.pid(self.name)
        return next(iter(children(parent)), None) if parent is not None else None

    @property
    def off_file(self) -> Path:
        """There while somebody wants it to be off."""
        return self.directory / "off"

    @property
    def _kubeconfig(self) -> Path:
        return self.directory / "kubelet.kubeconfig"

    def names(self) -> list[str]:
        """The names of its processes, in the order in which they start."""
        return [self.name, *(f"{self.name}-{service}" for service in ("containerd", "kubelet", "kube-proxy"))]

    def power_on(self, others: Mapping[int, int]) -> None:
        """Start it with its cables and containerd, but no kubelet yet; `others` is {index: first process}."""
        group = cgroups.make(self.name)
        self.processes.start(
            self.name,
            [
                *("unshare", "--pid", "--mount", "--net", "--uts", "--ipc", "--mount-proc", "--fork", "--kill-child"),
                tool("pause"),
            ],
        )
        pid = wait_for(self.init_pid, START_SECONDS, f"{self.name} has no first process")
        for on_disk in DISKS.values():
            (self.directory / on_disk).mkdir(parents=True, exist_ok=True)
        self._configure(group)
        self.run(["sh", "-e", "-c", self._mounts()])
        network.attach_node(self.block, self.index, pid, dict(others))
        config = self.directory / "containerd.toml"
        self._start("containerd", ["containerd", "--config", config])
        wait_for(lambda: self.containerd.ctr("version"), START_SECONDS, f"containerd of {self.name} does not answer")

    def join(self, api: ApiServer) -> None:
        """Start its kubelet and kube-proxy."""
        user = api.authority.issue(
            self.name, f"system:node:{self.name}", "system:nodes", [self.name, str(self.block.node(self.index))]
        )
        api.authority.kubeconfig(self._kubeconfig, api.url, user)
        proxy = api.authority.issue(f"{self.name}-proxy", "system:kube-proxy")
        api.authority.kubeconfig(self.directory / "kube-proxy.kubeconfig", api.url, proxy)
        self.start_kubelet()
        self._start("kube-proxy", [tool("kube-proxy"), "--config", self.directory / "kube-proxy.json"])

    def start_kubelet(self) -> None:
        """Start its kubelet, which joined before."""
        self._start(
            "kubelet",
            [
                tool("kubelet"),
                *("--config", self.directory / "kubelet.json", "--kubeconfig", self._kubeconfig),
                *("--hostname-override", self.name, "--node-ip", str(self.block.node(self.index))),
            ],
        )

    def kill_kubelet(self) -> None:
        """SIGKILL its kubelet; pods go on."""
        name = f"{self.name}-kubelet"
        parent = self.processes.pid(name)
        for child in children(parent) if parent is not None else ():
            os.kill(child, signal.SIGKILL)
        self.processes.end(name)

    def power_off(self, others: Sequence[int]) -> None:
        """As if the power went: no packet gets out any more, then everything on it is gone at once."""
        if (pid := self.init_pid()) is not None:
            network.unplug(self.index, others)
            os.kill(pid, signal.SIGKILL)
            # Its parent ends after it, and it ends after all others of its PID namespace.
            wait_for(lambda: self.init_pid() is None, START_SECONDS, f"{self.name} does not end")
        for name in self.names():
            self.processes.end(name)
        wait_for(
            lambda: not network.exists(network.cable(self.index)), START_SECONDS, f"{self.name} is still connected"
        )
        cgroups.remove([self.name])

    def _start(self, service: str, command: Sequence[str | Path]) -> None:
        self.processes.start(f"{self.name}-{service}", self._enter(command), {"PATH": PATH})

    def run(self, command: Sequence[str | Path]) -> None:
        """Run a command on it, as root there.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(self._enter(command), capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{self.name}: {shlex.join(map(str, command))}: {done.stderr.strip()}")

    def _enter(self, command: Sequence[str | Path]) -> list[str | Path]:
        pid = self.init_pid()
        if pid is None:
            raise RuntimeError(f"{self.name} is off")
        return ["nsenter", f"--target={pid}", "--pid", "--mount", "--net", "--uts", "--ipc", "--", *command]

    def _mounts(self) -> str:
        commands = [f"hostname {self.name}", "mount -t tmpfs tmpfs /run", "mkdir /run/tunables"]
        for path, on_disk in DISKS.items():
            commands.append(f"mount --bind {shlex.quote(str(self.directory / on_disk))} {path}")
        for name, value in TUNABLES.items():
            file = f"/run/tunables/{name.replace('/', '-')}"
            commands.append(f"echo {value} >{file} && mount --bind {file} /proc/sys/{name}")
        commands.append("echo 1 >/proc/sys/net/ipv4/ip_forward")
        return "\n".join(commands)

    def _configure(self, group: str) -> None:
        cni = self.directory / "cni"
        cni.mkdir(exist_ok=True)
        (cni / "pods.conflist").write_text(network.cni_config(self.block, self.index))
        (self.directory / "resolv.conf").write_text(f"nameserver {self.block.host}\n")
        (self.directory / "containerd.toml").write_text(self._containerd_config(cni))
        for name, config in (("kubelet", self._kubelet_config(group)), ("kube-proxy", self._proxy_config())):
            (self.directory / f"{name}.json").write_text(json.dumps(config, indent=1) + "\n")

    def _containerd_config(self, cni: Path) -> str:
        cri = 'plugins."io.containerd.grpc.v1.cri"'
        values: dict[str, dict[str, str | bool]] = {
            "grpc": {"address": str(self.containerd.socket)},
            'plugins."io.containerd.internal.v1.opt"': {"path": str(self.directory / "opt")},
            cri: {
                "sandbox_image": PAUSE_IMAGE,
                # Without CAP_SYS_RESOURCE (this may be a container) no score can be lowered, and no pod would start.
                "restrict_oom_score_adj": True,
                # A pod's devices belong to its user: docs/device-plugin.md.
                "device_ownership_from_security_context": True,
            },
            f"{cri}.cni": {"bin_dir": network.CNI_PLUGINS, "conf_dir": str(cni)},
        }
        lines = ["version = 2", f"root = {json.dumps(str(self.directory / 'containerd'))}", 'state = "/run/containerd"']
        for section, settings in values.items():
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
        return "\n".join(lines) + "\n"

    def _kubelet_config(self, group: str) -> dict[str, Any]:
        pki = self.state / "pki"
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": str(self.block.node(self.index)),
            "authentication": {"x509": {"clientCAFile": str(pki / "ca.crt")}},
            "tlsCertFile": str(pki / f"{self.name}.crt"),
            "tlsPrivateKeyFile": str(pki / f"{self.name}.key"),
            "containerRuntimeEndpoint": f"unix://{self.containerd.socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": group,
            "clusterDNS": [str(self.block.host)],
            "clusterDomain": DOMAIN,
            "resolvConf": str(self.directory / "resolv.conf"),
            "volumePluginDir": str(self.directory / "volume-plugins"),
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "nodeLeaseDurationSeconds": LEASE_SECONDS,
            "nodeStatusUpdateFrequency": "5s",
            # A Secret that changed reaches the pods that mount it after at most this: training-operator's webhook
            # waits for its certificate in one.
            "syncFrequency": "3s",
            # Nobody can pull the images again, and a developer's disk is often nearly full.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "1%",
                "nodefs.inodesFree": "1%",
                "imagefs.available": "1%",
            },
        }

    def _proxy_config(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self.directory / "kube-proxy.kubeconfig")},
            "hostnameOverride": self.name,
            "clusterCIDR": str(self.block.network),
            # The table of connections is the machine's; its size is not this node's to set.
            "conntrack": {"maxPerCore": 0},
            "oomScoreAdj": 0,
        }
