"""Which cluster, as whom, in which namespace: the official client's reading of kubeconfigs and service accounts."""

from __future__ import annotations

import os

from kubernetes.client import Configuration
from kubernetes.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from controller.kube import KubeError
from controller.kube.client import Client

_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


def connect(kubeconfig: str | None = None, context: str | None = None, timeout: float = 10.0) -> Client:
    """A client: with the kubeconfig given, else in a pod by its service account, else as kubectl would.

    Raises:
        KubeError: there is no usable configuration.
    """
    configuration = Configuration()
    where = f"--kubeconfig {kubeconfig}" if kubeconfig else "no usable kubeconfig (KUBECONFIG, ~/.kube/config)"
    if kubeconfig and not os.path.exists(kubeconfig):
        raise KubeError(f"{where}: there is no such file")
    try:
        if _in_a_pod(kubeconfig, context):
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            load_kube_config(  # type: ignore[no-untyped-call]
                config_file=kubeconfig, context=context, client_configuration=configuration
            )
    except (ConfigException, OSError, ValueError) as error:
        known = _contexts(kubeconfig)
        if context is not None and known and context not in known:
            raise KubeError(f"--context: there is no {context!r} in the kubeconfig, but {', '.join(known)}") from None
        raise KubeError(f"{where}: {' '.join(str(error).split())}") from None
    return Client(configuration, timeout)


def _contexts(kubeconfig: str | None) -> list[str]:
    try:
        contexts, _ = list_kube_config_contexts(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError):
        return []
    return [str(each["name"]) for each in contexts]


def own_namespace(kubeconfig: str | None = None, context: str | None = None) -> str:
    """The namespace of the pod that this is, else of the kubeconfig's context, else "default"."""
    if _in_a_pod(kubeconfig, context):
        with open(_SERVICE_ACCOUNT) as file:
            return file.read().strip()
    try:
        contexts, active = list_kube_config_contexts(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError):
        return "default"
    chosen = active if context is None else next((each for each in contexts if each["name"] == context), None)
    return str(((chosen or {}).get("context") or {}).get("namespace") or "default")


def _in_a_pod(kubeconfig: str | None, context: str | None) -> bool:
    return kubeconfig is None and context is None and os.path.exists(_SERVICE_ACCOUNT)
