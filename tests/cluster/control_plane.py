"""etcd, kube-apiserver and what else runs once in a cluster, all as processes of the host."""

from __future__ import annotations

import json
import ssl
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.certificates import Authority, Pair
from tests.cluster.kubectl import Kubectl
from tests.cluster.network import Block, free_ports
from tests.cluster.processes import Processes
from tests.cluster.toolchain import tool
from tests.cluster.waiting import WaitTimeoutError, wait_for

LOOPBACK = "127.0.0.1"
READY_SECONDS = 60.0
# The node controller calls a silent node NotReady after this; Kubernetes' own default is 50 s.
NODE_GRACE_SECONDS = 30
DOMAIN = "cluster.local"
# As OpenShift has it: blockOwnerDeletion needs the right to update the owner's finalizers.
OWNERS = "OwnerReferencesPermissionEnforcement"
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
# What CoreDNS watches for names of services and pods.
DNS_USER = "system:test-dns"
DNS_ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": DNS_USER},
    "rules": [
        {"apiGroups": [""], "resources": ["services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ],
}
DNS_BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": DNS_USER},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": DNS_USER},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": DNS_USER}],
}


@dataclass(frozen=True)
class ApiServer:
    """An API server: its URL, its authority and a kubeconfig with all rights."""

    url: str
    authority: Authority
    kubeconfig: Path


def start_api_server(state: Path, processes: Processes, block: Block | None) -> ApiServer:
    """Start etcd and kube-apiserver and wait until it is ready.

    Without a `block` of addresses it stands alone on loopback: no nodes, no service accounts, no endpoints of its own.

    Raises:
        RuntimeError: it is not ready in READY_SECONDS; the message has the end of its log.
    """
    address = str(block.host) if block else LOOPBACK
    services = str(block.services) if block else "10.96.0.0/20"
    client, peer = free_ports(LOOPBACK, 2)
    (port,) = free_ports(address, 1)
    etcd = f"http://{LOOPBACK}:{client}"
    processes.start(
        "etcd",
        [
            *("etcd", "--data-dir", state / "etcd", "--unsafe-no-fsync", "--logger=zap", "--log-level=warn"),
            *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
            *("--listen-peer-urls", f"http://{LOOPBACK}:{peer}"),
        ],
    )
    hosts = ["localhost", LOOPBACK, "kubernetes.default.svc", f"kubernetes.default.svc.{DOMAIN}"]
    if block:
        hosts += [address, str(block.services[1])]
    authority = Authority(state / "pki")
    server = authority.issue("kube-apiserver", "kube-apiserver", hosts=hosts)
    admin = authority.issue("admin", "admin", group="system:masters")
    tokens = authority.issue("service-accounts", "service-accounts")
    policy = state / "audit-policy.json"
    policy.write_text(json.dumps(AUDIT_POLICY))
    processes.start(
        "kube-apiserver",
        [
            tool("kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--bind-address={address}",
            f"--advertise-address={address}",
            f"--secure-port={port}",
            f"--service-cluster-ip-range={services}",
            f"--tls-cert-file={server.certificate}",
            f"--tls-private-key-file={server.key}",
            f"--client-ca-file={authority.pair.certificate}",
            f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
            f"--service-account-signing-key-file={tokens.key}",
            f"--service-account-key-file={tokens.certificate}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            f"--audit-policy-file={policy}",
            f"--audit-log-path={processes.log('audit')}",
            "--audit-log-maxsize=100",
            "--audit-log-maxbackup=2",
            *(_with_nodes(admin, authority) if block else _alone()),
        ],
    )
    url = f"https://{address}:{port}"
    trust = ssl.create_default_context(cafile=str(authority.pair.certificate))
    _until_ready(processes, "kube-apiserver", f"{url}/readyz", trust)
    return ApiServer(url, authority, authority.kubeconfig(state / "kubeconfig", url, admin))


def _with_nodes(admin: Pair, authority: Authority) -> list[str]:
    return [
        f"--enable-admission-plugins=NodeRestriction,{OWNERS}",
        f"--kubelet-client-certificate={admin.certificate}",
        f"--kubelet-client-key={admin.key}",
        f"--kubelet-certificate-authority={authority.pair.certificate}",
        "--kubelet-preferred-address-types=InternalIP",
        # The host has no kube-proxy: webhooks are called at their pods' addresses.
        "--enable-aggregator-routing=true",
    ]


def _alone() -> list[str]:
    # Nothing would make the service accounts that pods are refused without; loopback is no valid endpoint.
    return [
        f"--enable-admission-plugins={OWNERS}",
        "--disable-admission-plugins=ServiceAccount",
        "--endpoint-reconciler-type=none",
    ]


def start_controllers(state: Path, processes: Processes, api: ApiServer) -> None:
    """Start kube-controller-manager and kube-scheduler."""
    authority = api.authority
    ports = free_ports(LOOPBACK, 2)
    arguments = {
        "kube-controller-manager": [
            f"--service-account-private-key-file={authority.directory / 'service-accounts.key'}",
            f"--root-ca-file={authority.pair.certificate}",
            "--use-service-account-credentials=true",
            f"--node-monitor-grace-period={NODE_GRACE_SECONDS}s",
            "--node-monitor-period=2s",
            # A claim that is made with its volume is bound at the next look, 15 s later by default.
            "--pvclaimbinder-sync-period=1s",
        ],
        "kube-scheduler": [],
    }
    for (name, own), port in zip(arguments.items(), ports, strict=True):
        config = authority.kubeconfig(state / f"{name}.kubeconfig", api.url, authority.issue(name, f"system:{name}"))
        common = [f"--kubeconfig={config}", f"--bind-address={LOOPBACK}", f"--secure-port={port}"]
        processes.start(name, [tool(name), *common, "--leader-elect=false", *own])


def start_dns(state: Path, processes: Processes, api: ApiServer, block: Block) -> None:
    """Start CoreDNS on the host's address and wait until it knows the cluster's services."""
    Kubectl(api.kubeconfig).apply(DNS_ROLE, DNS_BINDING)
    config = api.authority.kubeconfig(state / "coredns.kubeconfig", api.url, api.authority.issue("coredns", DNS_USER))
    (port,) = free_ports(LOOPBACK, 1)
    corefile = state / "Corefile"
    corefile.write_text(
        f".:53 {{\n bind {block.host}\n errors\n ready {LOOPBACK}:{port}\n"
        f" kubernetes {DOMAIN} in-addr.arpa {{\n  kubeconfig {config}\n }}\n cache 5\n}}\n"
    )
    processes.start("coredns", [tool("coredns"), "-conf", corefile])
    _until_ready(processes, "coredns", f"http://{LOOPBACK}:{port}/ready")


def _until_ready(processes: Processes, name: str, url: str, trust: ssl.SSLContext | None = None) -> None:
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), *([urllib.request.HTTPSHandler(context=trust)] if trust else [])
    )

    def ready() -> bool:
        if processes.pid(name) is None:
            return True
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)

    try:
        wait_for(ready, READY_SECONDS, f"{name} is not ready")
    except WaitTimeoutError as error:
        raise RuntimeError(f"{error}; its log ends: {processes.last_lines(name)}") from error
    if processes.pid(name) is None:
        raise RuntimeError(f"{name} ended; its log ends: {processes.last_lines(name)}")
