"""A test plays the Trainer, JobSet and the Job controller: pods of a TrainJob, and Events about those it can't make."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import yaml

from controller.kube.client import EVENTS, JOBS_OF, PODS, ApiError
from controller.times import to_text
from tests.cluster.gomodule import module_directory
from tests.cluster.toolchain import TRAINER
from tests.integration.kube import Document, Namespace, wait_for

CRD = "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml"
INDEX = "batch.kubernetes.io/job-completion-index"
EVERYTHING = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {{name: all, namespace: {namespace}, uid: 0d5b1d0e-0000-4000-8000-000000000000}}
spec:
  model: resnet34
  accelerator: {{type: cuda, cardsPerNode: 8}}
  nodes: 3
  dataset: {{name: flowers, path: /data, volume: {{emptyDir: {{sizeLimit: 20Gi}}}}}}
  training: {{epochs: 2, batchSizePerDevice: 8}}
  target: TrainJob
  queueName: queue
  podTemplate:
    resources: {{requests: {{cpu: 500m}}, limits: {{memory: 64Gi}}}}
    nodeSelector: {{example.com/pool: a}}
    tolerations: [{{key: example.com/a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}}]
    env: [{{name: A, value: b}}]
    imagePullSecrets: [{{name: pull}}]
    securityContext: {{runAsUser: 5, supplementalGroups: [44]}}
"""
"""All that a spec may say of a TrainJob."""


def crd() -> Document:
    """The TrainJob type, as the Trainer's module has it."""
    found: Document = yaml.safe_load((module_directory(TRAINER.name, TRAINER.module) / CRD).read_text())
    return found


def job(team: Namespace, attempt: int) -> Document:
    """Waits for the TrainJob of an attempt."""

    def find() -> Document | None:
        with contextlib.suppress(ApiError):
            return team.client.get(JOBS_OF["TrainJob"], team.name, f"digits-{attempt}")
        return None

    return wait_for(find, lambda: yaml.safe_dump(team.status()))


def start(team: Namespace, made: Document, index: int) -> str:
    """The pod of a node, which runs; its name."""
    (patch,) = made["spec"]["runtimePatches"]
    template = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    metadata: dict[str, Any] = {
        "name": f"{made['metadata']['name']}-node-0-{index}-{'abcde'[index]}wxyz",
        "labels": template["metadata"]["labels"] | {INDEX: str(index)},
    }
    containers = [{"name": "node", "image": "i"}]
    spec = {"nodeName": f"node-{index}", "containers": containers}
    team.client.create(PODS, team.name, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    team.set_pod(metadata["name"], "Running", {"running": {"startedAt": to_text(int(time.time()))}}, name="node")
    return str(metadata["name"])


def refuse(team: Namespace, name: str, message: str) -> None:
    """The Job controller says that the API server takes no pod of its Job."""
    about = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "namespace": team.name}
    event = {"reason": "FailedCreate", "type": "Warning", "message": message, "involvedObject": about}
    metadata = {"name": f"{name}.1", "namespace": team.name}
    times = {"firstTimestamp": to_text(int(time.time())), "lastTimestamp": to_text(int(time.time())), "count": 1}
    team.client.create(EVENTS, team.name, {"apiVersion": "v1", "kind": "Event", "metadata": metadata, **event, **times})
