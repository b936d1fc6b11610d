"""`resnetctl list | watch | check | logs | stop | resume | why`: experiments of a cluster, as the kubeconfig's user."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from controller.kube.client import Client
    from controller.targets import Target

FAILED = 1
"""Exit code where the cluster refused, or what was asked of it failed."""
_INTERRUPTED = 130
_NOT_FOUND = 404
_WATCH_LINE_SECONDS = 10.0
_CHECK_SECONDS = 1.0


def add_commands(commands: Any) -> None:
    """Adds them to the sub-commands of a parser."""

    def command(name: str, run: Callable[[argparse.Namespace, Client, str], int], text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name != "list":
            sub.add_argument("name", metavar="NAME", help="the experiment")
        sub.add_argument("-n", "--namespace", metavar="NS", help="absent: the context's own")
        sub.add_argument("--kubeconfig", metavar="FILE", help="absent: KUBECONFIG, or ~/.kube/config")
        sub.add_argument("--context", metavar="NAME", help="context of the kubeconfig")
        sub.set_defaults(command=partial(_run, run))
        return sub

    listing = command("list", _list, "list the experiments of a cluster")
    listing.add_argument("-A", "--all-namespaces", action="store_true", help="of every namespace")
    listing.add_argument("-w", "--wide", action="store_true", help="with loss, best top-1, job and message")
    command("watch", _watch, "follow an experiment until it ends")
    check = command("check", _check, "tell by an exit code whether an experiment trains")
    check.add_argument("--wait", type=_whole, default=0, metavar="S", help="seconds to wait for that [default 0]")
    logs = command("logs", _logs, "print what a node of the newest attempt has written")
    logs.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    logs.add_argument("--node", type=_whole, default=0, metavar="N", help="node rank [default 0]")
    logs.add_argument("--attempt", type=_whole, metavar="N", help="absent: the newest")
    logs.add_argument("--tail", type=_whole, metavar="N", help="the last so many lines; absent: all")
    command("stop", partial(_suspend, True), "write a checkpoint and stop")
    command("resume", partial(_suspend, False), "go on with what was stopped")
    command("why", _why, "tell what has happened to an experiment, and why")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}")
    return int(text)


def _run(run: Callable[[argparse.Namespace, Client, str], int], args: argparse.Namespace) -> int:
    from controller.kube import KubeError  # noqa: PLC0415
    from controller.kube.client import ApiError  # noqa: PLC0415
    from controller.kube.config import connect, own_namespace  # noqa: PLC0415

    try:
        client = connect(args.kubeconfig, args.context)
        return run(args, client, args.namespace or own_namespace(args.kubeconfig, args.context))
    except KubeError as error:
        message = str(error)
    except ApiError as error:
        message = error.message
        if error.code == _NOT_FOUND and error.kind == "resnetexperiments":
            message += ": `resnetctl list -A` shows what there is"
        elif error.code == _NOT_FOUND and not error.kind:
            message = "this cluster does not know ResNetExperiments: kubectl apply --server-side -k manifests/install"
    except KeyboardInterrupt:
        return _INTERRUPTED
    print(f"resnetctl: {message}", file=sys.stderr)
    return FAILED


def _list(args: argparse.Namespace, client: Client, namespace: str) -> int:
    from controller.kube.client import EXPERIMENTS  # noqa: PLC0415
    from controller.story import table  # noqa: PLC0415

    pages = client.pages(EXPERIMENTS, None if args.all_namespaces else namespace)
    found = [item for page in pages for item in page["items"]]
    if not found:
        where = "any namespace" if args.all_namespaces else f"namespace {namespace}"
        print(f"no experiments in {where}", file=sys.stderr)
        return 0
    print("\n".join(table(found, time.time(), namespaces=args.all_namespaces, wide=args.wide)))
    return 0


def _watch(args: argparse.Namespace, client: Client, namespace: str) -> int:
    from controller.kube.client import EXPERIMENTS, ApiError  # noqa: PLC0415

    query = {"fieldSelector": f"metadata.name={args.name}"}
    lines = _Lines()
    document = client.get(EXPERIMENTS, namespace, args.name)
    while not lines.say(document):
        try:
            version = document["metadata"]["resourceVersion"]
            for kind, changed in client.watch(EXPERIMENTS, namespace, version, query):
                if kind == "DELETED":
                    print(f"{args.name} was deleted")
                    return FAILED
                if kind == "BOOKMARK":
                    document["metadata"]["resourceVersion"] = changed["metadata"]["resourceVersion"]
                    continue
                document = changed
                if lines.say(document):
                    break
        except ApiError as error:
            if error.code == _NOT_FOUND:
                raise
            time.sleep(1.0)  # the server was away, or that version is too old
            document = client.get(EXPERIMENTS, namespace, args.name)
    return 0 if document["status"]["phase"] == "Succeeded" else FAILED


def _check(args: argparse.Namespace, client: Client, namespace: str) -> int:
    from controller.kube.client import EXPERIMENTS  # noqa: PLC0415
    from controller.story import NOT_SEEN, moment, well  # noqa: PLC0415

    late = time.monotonic() + args.wait
    while True:
        status = client.get(EXPERIMENTS, namespace, args.name).get("status") or {}
        if well(status):
            print(f"{args.name}: {moment(status)}")
            return 0
        if status.get("phase") == "Failed" or time.monotonic() >= late:
            print(f"resnetctl: {args.name}: {moment(status) if status else NOT_SEEN}", file=sys.stderr)
            return FAILED
        time.sleep(_CHECK_SECONDS)


class _Lines:
    """Prints where an experiment is: at each change that matters, else at most every so often."""

    def __init__(self) -> None:
        self._said: tuple[object, ...] = ()
        self._next = 0.0

    def say(self, document: dict[str, Any]) -> bool:
        """Returns whether it has ended."""
        from controller.status import FINISHED  # noqa: PLC0415
        from controller.story import moment  # noqa: PLC0415

        status = document.get("status") or {}
        phase = status.get("phase", "Pending")
        words = status.get("message") if phase != "Running" else ""  # a running one's repeats its figures
        what = (phase, status.get("attempt"), status.get("trainingPhase"), status.get("progress"), words)
        if what != self._said or (phase == "Running" and time.monotonic() >= self._next):
            self._said, self._next = what, time.monotonic() + _WATCH_LINE_SECONDS
            print(f"{time.strftime('%H:%M:%S')} {moment(status)}", flush=True)
        return phase in FINISHED


def _logs(args: argparse.Namespace, client: Client, namespace: str) -> int:
    from controller.kube.client import EXPERIMENTS  # noqa: PLC0415

    document = client.get(EXPERIMENTS, namespace, args.name)
    status = document.get("status") or {}
    attempt = args.attempt or status.get("attempt", 0)
    if not attempt:
        print(f"resnetctl: {args.name} has no attempt yet: {status.get('message', 'it is new')}", file=sys.stderr)
        return FAILED
    pod = _pod(client, namespace, document, attempt, args.node)
    if pod is None:
        print(f"resnetctl: attempt {attempt} of {args.name} has no pod of node {args.node}", file=sys.stderr)
        return FAILED
    for piece in client.log(namespace, pod, follow=args.follow, tail=args.tail):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
    return 0


def _pod(client: Client, namespace: str, document: dict[str, Any], attempt: int, node: int) -> str | None:
    """The name of the pod of a node; None: there is none, where only a look can tell."""
    from controller.api import LABEL_ATTEMPT, LABEL_EXPERIMENT  # noqa: PLC0415
    from controller.kube.client import PODS  # noqa: PLC0415

    name, target = document["metadata"]["name"], _target(document)
    known = target.pod_names(f"{name}-{attempt}", node + 1)
    if known is not None:
        return known[node]
    labels = f"{LABEL_EXPERIMENT}={name},{LABEL_ATTEMPT}={attempt},{target.index_label}={node}"
    found = client.items(PODS, namespace, labels)
    # After a readmission by Kueue the newest is the one that trains.
    found.sort(key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    return str(found[-1]["metadata"]["name"]) if found else None


def _target(document: dict[str, Any]) -> Target:
    from controller.targets import DEFAULT, TARGETS  # noqa: PLC0415

    return TARGETS[document["spec"].get("target", DEFAULT)]


def _suspend(suspend: bool, args: argparse.Namespace, client: Client, namespace: str) -> int:
    from controller.kube.client import EXPERIMENTS  # noqa: PLC0415
    from controller.status import FINISHED  # noqa: PLC0415

    document = client.get(EXPERIMENTS, namespace, args.name)
    phase = (document.get("status") or {}).get("phase", "Pending")
    if phase in FINISHED:
        print(f"resnetctl: {args.name} has {phase.lower()} and can't be {_done(suspend)}", file=sys.stderr)
        return FAILED
    if bool(document["spec"].get("suspend")) == suspend:
        print(f"{args.name} is {_done(suspend)} already ({phase})")
        return 0
    client.patch(EXPERIMENTS, namespace, args.name, {"spec": {"suspend": suspend}})
    print(f"{args.name}: stops after a checkpoint" if suspend else f"{args.name}: goes on from its newest checkpoint")
    return 0


def _done(suspend: bool) -> str:
    return "stopped" if suspend else "resumed"


def _why(args: argparse.Namespace, client: Client, namespace: str) -> int:
    from controller.kube.client import EVENTS, EXPERIMENTS  # noqa: PLC0415
    from controller.story import story  # noqa: PLC0415

    document = client.get(EXPERIMENTS, namespace, args.name)
    # What keeps its operator from making pods is told by the job's events alone.
    about = [f"involvedObject.kind=ResNetExperiment,involvedObject.uid={document['metadata']['uid']}"]
    if job := (document.get("status") or {}).get("jobName"):
        makers = _target(document).makers(job)
        about += [f"involvedObject.kind={kind},involvedObject.name={name}" for kind, name in makers]
    pages = (page for of in about for page in client.pages(EVENTS, namespace, {"fieldSelector": of}))
    events = [each for page in pages for each in page["items"]]
    print("\n".join(story(document, events, time.time())))
    return 0
