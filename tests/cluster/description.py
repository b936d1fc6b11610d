"""A namespace in words, for a person who reads why a test failed: events, pods, the last lines of their logs."""

from __future__ import annotations

from tests.cluster.kubectl import Kubectl, KubectlError, Object

LOG_LINES = 20


def describe(kubectl: Kubectl) -> str:
    """Events in the order in which they came, then each pod; what can't be read is said in its place."""
    try:
        events, pods = kubectl.find("events"), kubectl.find("pods")
    except KubectlError as error:
        return str(error)
    lines = [_event(event) for event in sorted(events, key=_time)]
    for pod in pods:
        lines += ["", *_pod(pod), *_logs(kubectl, pod)]
    return "\n".join(lines)


def _time(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"])


def _event(event: Object) -> str:
    about = event["involvedObject"]
    message = event.get("message", "").strip()
    return f"{_time(event)} {event.get('reason')} {about.get('kind')}/{about.get('name')}: {message}"


def _pod(pod: Object) -> list[str]:
    """Its phase and node, its conditions that do not hold, and the state of each container."""
    status = pod["status"]
    lines = [f"pod {pod['metadata']['name']} {status.get('phase')} on {pod['spec'].get('nodeName', 'no node')}"]
    for condition in status.get("conditions", ()):
        if condition["status"] != "True":
            lines.append(f"  not {condition['type']}: {condition.get('reason', '')} {condition.get('message', '')}")
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        ((state, detail),) = container["state"].items() or [("unknown", {})]
        lines.append(f"  {container['name']}: {state}, restarts {container['restartCount']}, {detail}")
    return lines


def _logs(kubectl: Kubectl, pod: Object) -> list[str]:
    name = pod["metadata"]["name"]
    try:
        text = kubectl.logs(name, "--all-containers", "--prefix", f"--tail={LOG_LINES}")
    except KubectlError as error:
        text = str(error)
    return [f"  | {line}" for line in text.splitlines()]
