"""`python -m tests.cluster`: a real Kubernetes on this machine, for tests and for a developer's own hands."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cluster.cluster import Cluster, default_state
from tests.cluster.images import load
from tests.cluster.waiting import WaitTimeoutError

MIB = 1 << 20


def main(arguments: list[str] | None = None) -> int:
    """Carry out one command; 1 with a line on standard error if it can't be."""
    options = _parser().parse_args(arguments)
    cluster = Cluster((options.state or default_state(options.profile)).absolute(), options.profile)
    try:
        return _carry_out(cluster, options)
    except (RuntimeError, WaitTimeoutError) as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _carry_out(cluster: Cluster, options: argparse.Namespace) -> int:
    match options.command:
        case "up":
            cluster.up()
        case "build":
            cluster.build(faults=options.faults)
        case "down":
            cluster.down()
        case "status":
            return _status(cluster)
        case "kubeconfig":
            cluster.require()
            print(cluster.kubeconfig)
        case "load-image":
            cluster.require()
            load(options.images, [node.containerd.socket for node in cluster.nodes])
        case "stop-node":
            cluster.stop_node(options.node)
        case "start-node":
            cluster.start_node(options.node)
    return 0


def _status(cluster: Cluster) -> int:
    """Print what runs; 1 if something is missing."""
    rows = cluster.status()
    for name, pid, resident in rows:
        print(f"{name:26} " + (f"{pid:7d} {resident / MIB:7.0f} MiB" if pid is not None else "not running"))
    return int(any(pid is None for _, pid, _ in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--profile", choices=("api", "full"), default="full", help="api: only etcd and kube-apiserver")
    common.add_argument("--state", type=Path, help="the directory for all that the cluster keeps (a short path)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, text in {
        "up": "start it, building what is missing; nothing to do if it is up",
        "down": "end it and remove every trace",
        "status": "list its processes and their memory",
        "kubeconfig": "print the path of a kubeconfig with all rights",
    }.items():
        commands.add_parser(name, help=text, parents=[common])
    build = commands.add_parser(
        "build", help="install and build what it and the tests need, and start nothing", parents=[common]
    )
    build.add_argument("--faults", action="store_true", help="what the tests marked `faults` need, too")
    images = commands.add_parser("load-image", help="put images of buildah into every node", parents=[common])
    images.add_argument("images", nargs="+", metavar="IMAGE")
    for name, text in {"stop-node": "as if its power went", "start-node": "switch it on again"}.items():
        commands.add_parser(name, help=text, parents=[common]).add_argument("node", metavar="NODE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
