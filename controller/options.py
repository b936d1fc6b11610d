"""The flags of `python -m controller`, read and checked."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.arguments import Parser, seconds, whole
from app.version import version
from controller.api import base
from controller.backoff import Timing
from controller.kube.election import Terms
from controller.policy import Policy
from controller.render import TRAINING_RUNTIME, default_image

PROGRAM = "python -m controller"


@dataclass(frozen=True)
class Options:
    """What the operator runs with. Times are seconds; ports of 0 are chosen by the system."""

    kubeconfig: str | None
    context: str | None
    namespace: str | None
    training_image: str
    training_runtime: str
    policy: Policy
    timing: Timing
    workers: int
    readers: int
    resync: float
    metrics_port: int
    health_port: int
    lease_namespace: str | None
    lease_name: str
    terms: Terms
    verbose: bool


def parse(argv: Sequence[str]) -> Options:
    """The options of a command line; one that is wrong ends the process with 64 and one line."""
    parser = _parser()
    args = parser.parse_args(argv)
    terms = Terms(args.lease_seconds, args.renew_deadline, args.renew_seconds)
    if not terms.retry < terms.deadline < terms.duration:
        parser.error("--renew-seconds must be below --renew-deadline, and that below --lease-seconds")
    return Options(
        kubeconfig=args.kubeconfig,
        context=args.context,
        namespace=args.namespace,
        training_image=args.training_image or default_image(),
        training_runtime=args.training_runtime,
        policy=Policy(args.allow_host_network, args.allow_host_ipc),
        timing=dataclasses.replace(Timing(), progress_interval=args.progress_seconds, **dict(args.timing)),
        workers=args.workers,
        readers=args.progress_readers,
        resync=args.resync_seconds,
        metrics_port=args.metrics_port,
        health_port=args.health_port,
        lease_namespace=args.lease_namespace,
        lease_name=args.lease_name,
        terms=terms,
        verbose=args.verbose,
    )


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM,
        description="Keeps the jobs of all ResNetExperiments alive and shows their progress.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"resnet-operator {version()}")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")
    group = parser.add_argument_group("cluster")
    group.add_argument("--kubeconfig", metavar="FILE", help="absent: the pod's service account, else as kubectl")
    group.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
    group.add_argument("--namespace", type=_like(base.DNS_LABEL), metavar="NS", help="only this one; absent: all")
    group = parser.add_argument_group("experiments")
    group.add_argument(
        "--training-image", type=_like(base.IMAGE), metavar="IMAGE", help="where a spec names none; absent: that of "
        "this version",
    )  # fmt: skip
    group.add_argument(
        "--training-runtime", type=_like(base.DNS_SUBDOMAIN), default=TRAINING_RUNTIME, metavar="NAME",
        help="the ClusterTrainingRuntime of TrainJobs [default %(default)s]",
    )  # fmt: skip
    group.add_argument("--allow-host-network", action="store_true", help="allow podTemplate.hostNetwork")
    group.add_argument("--allow-host-ipc", action="store_true", help="allow podTemplate.hostIPC")
    group.add_argument(
        "--progress-seconds", type=seconds, default=10.0, metavar="S", help="ask each so often [default %(default)s]"
    )
    group.add_argument(
        "--timing", action="append", default=[], type=_timing, metavar="NAME=S",
        help=f"another of the controller's times: {', '.join(_times())}",
    )  # fmt: skip
    group = parser.add_argument_group("work")
    group.add_argument(
        "--workers", type=whole(1, 256), default=8, metavar="N", help="looks at a time [default %(default)s]"
    )
    group.add_argument(
        "--progress-readers",
        type=whole(1, 256),
        default=16,
        metavar="N",
        help="questions at a time [default %(default)s]",
    )
    group.add_argument(
        "--resync-seconds", type=seconds, default=600.0, metavar="S", help="look at all so often [default %(default)s]"
    )
    group = parser.add_argument_group("servers")
    group.add_argument(
        "--metrics-port", type=whole(0, 65_535), default=8080, metavar="PORT", help="/metrics [default %(default)s]"
    )
    group.add_argument(
        "--health-port",
        type=whole(0, 65_535),
        default=8081,
        metavar="PORT",
        help="/healthz, /readyz [default %(default)s]",
    )
    group = parser.add_argument_group("leader election")
    group.add_argument("--lease-namespace", type=_like(base.DNS_LABEL), metavar="NS", help="absent: this pod's own")
    group.add_argument(
        "--lease-name",
        type=_like(base.DNS_SUBDOMAIN),
        default="resnet-operator",
        metavar="NAME",
        help="name of the Lease [default %(default)s]",
    )
    group.add_argument(
        "--lease-seconds", type=seconds, default=15.0, metavar="S", help="others wait so long [default %(default)s]"
    )
    group.add_argument(
        "--renew-deadline", type=seconds, default=10.0, metavar="S", help="give up after so long [default %(default)s]"
    )
    group.add_argument(
        "--renew-seconds", type=seconds, default=2.0, metavar="S", help="renew so often [default %(default)s]"
    )
    return parser


def _times() -> list[str]:
    return [each.name for each in dataclasses.fields(Timing) if each.name != "progress_interval"]


def _timing(text: str) -> tuple[str, float]:
    name, separator, value = text.partition("=")
    if not separator or name not in _times():
        raise argparse.ArgumentTypeError(f"must be NAME=SECONDS with one of {', '.join(_times())}, not {text!r}")
    return name, seconds(value)


def _like(pattern: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise argparse.ArgumentTypeError(f"{base.WORDS[pattern]}, not {text!r}")
        return text

    return check
