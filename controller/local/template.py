"""PURE: a pod of a PyTorchJob -> the process that stands for it here, as the kubelet and CoreDNS would resolve it."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.accelerators import VISIBLE_DEVICES
from app.modules import python_environment
from app.resilience.exit_codes import ExitCode
from controller.local import LocalError

CONTAINER = "pytorch"
"""Name of the container that training-operator looks at."""

PASSED_ON = (
    *("PATH", "LANG", "LC_ALL", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),
    *("NVIDIA_VISIBLE_DEVICES", *VISIBLE_DEVICES.values()),
)
"""What a pod's process inherits from the caller besides its template: what an image and a device plugin would give."""

LOOPBACK = "127.0.0.1"
"""Where every pod is reached."""

ENV_PARENT = "RESNET_PARENT_PID"
"""The launcher ends with the process of this number (see `app.resilience.parent`)."""

GANG_PORTS = ("MASTER_PORT", "RESNET_GANG_PORT")
"""Environment variables of the ports that node 0 opens: one number for the whole job."""

POD_PORTS = ("RESNET_METRICS_PORT",)
"""Environment variables of the ports that every pod opens: here they share one address, so each gets its own."""


@dataclass(frozen=True)
class PodPlan:
    """One pod as a process.

    Attributes:
        argv: the command, ready for exec.
        env: its whole environment.
        directories: the host directories of its emptyDir volumes; they go when the pod goes.
        termination_log: host path of the container's termination message.
        log_on_error: whether the log's tail stands in for a missing termination message.
        grace_seconds: from SIGTERM to SIGKILL.
        metrics_port: port of /metrics and /progress, None where the template has none.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    directories: tuple[Path, ...]
    termination_log: Path
    log_on_error: bool
    grace_seconds: float
    metrics_port: int | None


@dataclass(frozen=True)
class Places:
    """Where a pod's files lie on this machine.

    Attributes:
        scratch: short path for the pod's emptyDir volumes. Short, because Python's shared-memory sockets are made
            in TMPDIR and a Unix socket's path holds 107 bytes.
        pod: the pod's own directory in the run directory, for the termination message.
        fixed: mount path in the pod -> path here, for what is neither (checkpoints, data set).
    """

    scratch: Path
    pod: Path
    fixed: Mapping[str, Path]


def plan_pod(
    pod: Mapping[str, Any],
    job: str,
    places: Places,
    ports: Mapping[str, int],
    base: Mapping[str, str],
) -> PodPlan:
    """The process that stands for `pod` (Kubernetes shape, with its spec).

    Args:
        pod: metadata and spec.
        job: name of the PyTorchJob, on which the headless services' names are built.
        places: where its volumes lie here.
        ports: environment variable -> free port, for `GANG_PORTS` and `POD_PORTS`.
        base: environment below the template's (see `PASSED_ON`).

    Raises:
        LocalError: the template asks for what only a cluster has.
    """
    container = next(c for c in pod["spec"]["containers"] if c["name"] == CONTAINER)
    termination_path = container.get("terminationMessagePath", "/dev/termination-log")
    termination_log = places.pod / "termination-log"
    mounts, directories = _mounts(pod, container, places)
    mounts[termination_path] = termination_log

    # Names are resolved in what the template says itself: a pod's own name (downward API) must stay a name.
    host = _host_names(job)
    template_env: dict[str, str] = {}
    downward = set()
    for entry in container.get("env", []):
        if "valueFrom" in entry:
            template_env[entry["name"]] = _downward(entry, pod)
            downward.add(entry["name"])
        else:
            template_env[entry["name"]] = expand(host.sub(LOOPBACK, str(entry.get("value", ""))), template_env)
    for name, port in ports.items():
        if name in template_env:
            template_env[name] = str(port)
    resolved = {name: value if name in downward else map_paths(value, mounts) for name, value in template_env.items()}
    words = (*container.get("command", []), *container.get("args", []))
    argv = [map_paths(expand(host.sub(LOOPBACK, word), template_env), mounts) for word in words]
    metrics = template_env.get(POD_PORTS[0])
    return PodPlan(
        argv=tuple(_program(argv)),
        env={**base, "PYTHONUNBUFFERED": "1", **resolved},  # training-operator sets PYTHONUNBUFFERED in every pod
        directories=tuple(directories),
        termination_log=termination_log,
        log_on_error=container.get("terminationMessagePolicy") == "FallbackToLogsOnError",
        grace_seconds=float(pod["spec"].get("terminationGracePeriodSeconds", 30)),
        metrics_port=int(metrics) if metrics else None,
    )


def base_environment(environ: Mapping[str, str], parent: int) -> dict[str, str]:
    """What every pod's process has below its template's environment.

    Args:
        environ: the caller's environment.
        parent: process id of resnetctl.
    """
    passed_on = {name: environ[name] for name in PASSED_ON if name in environ}
    return {**python_environment(passed_on), ENV_PARENT: str(parent)}


def own_devices(environ: Mapping[str, str], device: str, each: int, pods: int) -> list[dict[str, str]]:
    """For each pod the environment that shows it its own share of the devices, as a device plugin would give it.

    Args:
        environ: the caller's environment, whose list of visible devices is shared out; all devices where it has none.
        device: the device type; the ranks of all pods share a CPU.
        each: devices of a pod.
        pods: how many pods.

    Raises:
        LocalError: the caller's list has fewer devices than the pods need.
    """
    name = VISIBLE_DEVICES.get(device)
    if name is None:
        return [{} for _ in range(pods)]
    listed = environ.get(name)
    devices = [str(number) for number in range(pods * each)] if listed is None else listed.split(",")
    if len(devices) < pods * each:
        raise LocalError(
            f"{name} is {listed!r}, but {pods} pod(s) of {each} device(s) need {pods * each}: list more",
            ExitCode.BAD_OPTION,
        )
    return [{name: ",".join(devices[pod * each : (pod + 1) * each])} for pod in range(pods)]


def expand(text: str, env: Mapping[str, str]) -> str:
    """`$(NAME)` as the kubelet expands it: `$$` is one `$`, an unknown name stays as it is.

    Source: k8s.io/kubernetes third_party/forked/golang/expansion.
    """

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return env.get(match["name"], match[0])

    return re.sub(r"\$\$|\$\((?P<name>[^)]*)\)", replace, text)


def map_paths(text: str, mounts: Mapping[str, Path]) -> str:
    """Replaces mount paths at the start of `text`, of a flag's value or of an item of a `:` list; the longest wins."""
    if not mounts:
        return text
    longest_first = sorted(mounts, key=len, reverse=True)
    pattern = rf"(?<![^=:])({'|'.join(re.escape(path.rstrip('/')) for path in longest_first)})(?=[/:]|$)"
    by_path = {path.rstrip("/"): str(place) for path, place in mounts.items()}
    return re.sub(pattern, lambda match: by_path[match[1]], text)


def _mounts(pod: Mapping[str, Any], container: Mapping[str, Any], places: Places) -> tuple[dict[str, Path], list[Path]]:
    """Mount path -> path here, and the directories that are the pod's own."""
    volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
    mounts: dict[str, Path] = {}
    own: list[Path] = []
    for mount in container.get("volumeMounts", []):
        path = mount["mountPath"]
        if path.rstrip("/") in places.fixed or path == "/dev/shm":  # noqa: S108 - the machine's own /dev/shm serves
            continue
        if "emptyDir" not in volumes.get(mount["name"], {}):
            raise LocalError(
                f"volume {mount['name']!r} (mounted at {path}) only exists in a cluster: "
                "run this experiment there, or leave it out",
                ExitCode.BAD_OPTION,
            )
        directory = places.scratch / mount["name"]
        if directory not in own:
            own.append(directory)
        mounts[path] = directory / mount["subPath"] if mount.get("subPath") else directory
    mounts.update(places.fixed)
    return mounts, own


def _downward(entry: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    """The value of an item of `env` that the downward API fills."""
    field = entry["valueFrom"].get("fieldRef", {}).get("fieldPath", "")
    metadata = pod["metadata"]
    if field in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(metadata.get(field.partition(".")[2], ""))
    if field == "spec.nodeName":
        return str(pod["spec"].get("nodeName", ""))
    if field in ("status.podIP", "status.hostIP"):
        return LOOPBACK
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", field)
    if keyed:
        return str(metadata.get(keyed[1], {}).get(keyed[2], ""))
    raise LocalError(
        f"environment variable {entry['name']}: its valueFrom only exists in a cluster; give it a value",
        ExitCode.BAD_OPTION,
    )


def _host_names(job: str) -> re.Pattern[str]:
    """Matches the names that CoreDNS would resolve for the job's headless services."""
    return re.compile(
        rf"(?<![\w.-]){re.escape(job)}-(worker|master)-\d+(\.[\w-]+(\.svc(\.cluster\.local)?)?)?(?![\w-])"
    )


def _program(argv: list[str]) -> list[str]:
    """The command for this machine: with the Python that runs resnetctl, and without tini.

    tini stands in for init in a container. Here resnetctl waits for the process itself, and the launcher, which ends
    with its parent, must be resnetctl's own child.
    """
    if argv[:1] == ["tini"]:
        argv = argv[argv.index("--") + 1 if "--" in argv else 1 :]
    return [sys.executable, *argv[1:]] if argv[:1] in (["python"], ["python3"]) else argv
