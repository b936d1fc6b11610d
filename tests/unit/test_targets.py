"""An attempt is the same whatever kind of job it is: the same pods, the same words in them, the same questions."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from controller.api import Experiment, SpecError, load
from controller.observed import Observed, index_of, view
from controller.reconcile import Timing, reconcile
from controller.render import TRAINING_RUNTIME, pod_names, render_job
from controller.targets import TARGETS
from controller.targets.trainjob import GRACE_SECONDS
from tests.unit.documents import START, experiment, job, pod, running

RUNTIME = Path(__file__).parents[2] / "manifests" / "trainer" / "runtime.yaml"
WHOLE = """
apiVersion: resnet-operator.io/v1alpha1
kind: ResNetExperiment
metadata: {name: all, namespace: team, uid: 0d5b1d0e-0000-4000-8000-000000000000}
spec:
  model: resnet34
  accelerator: {type: cuda, cardsPerNode: 8}
  nodes: 3
  dataset: {name: flowers, path: /data, volume: {emptyDir: {sizeLimit: 20Gi}}}
  training: {epochs: 2, batchSizePerDevice: 8}
  checkpoint: {volume: {persistentVolumeClaim: {claimName: c}}, path: /keep}
  queueName: queue
  target: %s
  podTemplate:
    resources: {requests: {cpu: 500m}, limits: {memory: 64Gi}}
    nodeSelector: {example.com/pool: a}
    tolerations: [{operator: Exists}]
    env: [{name: A, value: b$c}]
    imagePullSecrets: [{name: pull}]
    securityContext: {runAsUser: 5, supplementalGroups: [44]}
"""


def rendered(target: str) -> dict[str, Any]:
    return render_job(load(WHOLE % target, "x"), 7, training_image="i", avoid_node="bad")


def pod_patch(made: dict[str, Any]) -> dict[str, Any]:
    """What a TrainJob says of its pods besides the runtime and `trainer`."""
    (patch,) = made["spec"]["runtimePatches"]
    (patched,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    found: dict[str, Any] = patched["template"]["spec"]["template"]["spec"]
    return found


def pod_of_trainjob(made: dict[str, Any]) -> dict[str, Any]:
    """The pod that the Trainer makes of the runtime, the patch and `trainer`."""
    runtime = yaml.safe_load(RUNTIME.read_text())["spec"]["template"]["spec"]["replicatedJobs"][0]
    pod_spec: dict[str, Any] = copy.deepcopy(runtime["template"]["spec"]["template"]["spec"])
    ours = pod_patch(made)
    (container,), (more,) = pod_spec.pop("containers"), ours.pop("containers")
    trainer = made["spec"]["trainer"]
    container |= more | {name: trainer[name] for name in ("image", "command", "args", "env")}
    container["resources"] = trainer["resourcesPerNode"]
    return pod_spec | ours | {"containers": [container]}


def test_the_pods_of_a_trainjob_are_those_of_a_pytorchjob() -> None:
    old, new = rendered("PyTorchJob"), rendered("TrainJob")
    before = old["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    after = pod_of_trainjob(new)
    after.pop("restartPolicy")  # that of a replica in the other
    assert after["terminationGracePeriodSeconds"] == GRACE_SECONDS
    patch = pod_patch(
        render_job(load((WHOLE % "TrainJob").replace("  queueName: queue\n", ""), "x"), 7, training_image="i")
    )
    assert patch["terminationGracePeriodSeconds"] == before["terminationGracePeriodSeconds"] == 120
    assert "terminationGracePeriodSeconds" not in pod_patch(new)
    environment = {each["name"]: each for each in after["containers"][0]["env"]}
    assert environment["MASTER_ADDR"]["value"] == "all-7-node-0-0.all-7"
    label = environment["PET_NODE_RANK"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert label == "metadata.labels['batch.kubernetes.io/job-completion-index']"
    for pod_spec in (before, after):
        (container,) = pod_spec["containers"]
        container["env"] = [e for e in container["env"] if e["name"] not in ("MASTER_ADDR", "PET_NODE_RANK")]
        container["name"] = container["ports"][0]["name"] = "prescribed by its operator"
    assert after == before
    assert new["metadata"] == old["metadata"]
    assert "suspend" not in str(new)
    assert (new["spec"]["trainer"]["numNodes"], new["spec"]["runtimeRef"]["name"]) == (3, TRAINING_RUNTIME)


def test_nothing_is_written_that_go_would_leave_out() -> None:
    """Else Kueue, which writes the whole job again, would change what is immutable."""

    def zeroes(value: Any, path: str) -> list[str]:
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        found = [path] if value in (False, "", None) or (value == {} and not path.endswith("emptyDir")) else []
        return [*found, *(each for key, item in inside for each in zeroes(item, f"{path}.{key}"))]

    text = (WHOLE % "TrainJob").replace("env: [", "env: [{name: EMPTY}, ")
    made = render_job(load(text, "x"), 7, training_image="i", avoid_node="bad")
    # What is a pointer in Go is kept.
    assert [path for path in zeroes(made["spec"], "spec") if not path.endswith("allowPrivilegeEscalation")] == []


def test_a_failed_pod_of_the_runtime_is_not_replaced_and_does_not_end_the_others() -> None:
    spec = yaml.safe_load(RUNTIME.read_text())["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    wanted = {"completionMode": "Indexed", "backoffLimitPerIndex": 0, "podReplacementPolicy": "Failed"}
    assert wanted.items() <= spec.items()
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("extra", "path"),
    [
        ("  priorityClassName: high\n", "spec.priorityClassName"),
        ("  imagePullPolicy: Always\n", "spec.imagePullPolicy"),
        ("  podTemplate: {hostNetwork: true}\n", "spec.podTemplate.hostNetwork"),
        ("  podTemplate: {hostIPC: true}\n", "spec.podTemplate.hostIPC"),
        ("  podTemplate: {ports: {metrics: 9999}}\n", "spec.podTemplate.ports"),
    ],
    ids=lambda value: value if value.startswith("spec") else "",
)
def test_what_a_trainjob_has_no_field_for_is_refused_by_its_name(extra: str, path: str) -> None:
    text = WHOLE[: WHOLE.index("  podTemplate:")]
    assert load(text % "PyTorchJob" + extra, "x")
    with pytest.raises(SpecError) as caught:
        load(text % "TrainJob" + extra, "x")
    assert caught.value.problems == (f"{path}: a TrainJob has no field for it: leave it out, or use target PyTorchJob",)


def test_a_grace_period_that_kueue_would_lose_is_refused_with_a_queue() -> None:
    text = WHOLE[: WHOLE.index("  podTemplate:")] % "TrainJob" + "  podTemplate: {terminationGracePeriodSeconds: 121}\n"
    assert load(text.replace("  queueName: queue\n", ""), "x")
    with pytest.raises(
        SpecError, match=r"terminationGracePeriodSeconds: must be at most 120 for a TrainJob with queueName"
    ):
        load(text, "x")
    runtime = yaml.safe_load(RUNTIME.read_text())["spec"]["template"]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert runtime["template"]["spec"]["terminationGracePeriodSeconds"] == GRACE_SECONDS


def test_a_standalone_trainjob_is_refused() -> None:
    with pytest.raises(SpecError, match=r"spec.target: --standalone needs PyTorchJob"):
        render_job(load(WHOLE % "TrainJob", "x"), 1, training_image="i", standalone=True)


states = st.fixed_dictionaries(
    {},
    optional={
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "suspend": st.booleans(),
                "runPolicy": st.fixed_dictionaries({}, optional={"suspend": st.booleans()}),
                "trainer": st.just({"numNodes": 2}),
            },
        ),
        "status": st.fixed_dictionaries(
            {},
            optional={
                "conditions": st.lists(st.just({"type": "Created", "status": "True", "message": "m"}), max_size=3),
                "jobsStatus": st.lists(st.just({"name": "node", "ready": 1}), max_size=2),
            },
        ),
    },
)


@given(states)
@pytest.mark.parametrize("kind", TARGETS)
def test_what_is_kept_of_a_job_answers_as_the_whole_of_it(kind: str, document: dict[str, Any]) -> None:
    target = TARGETS[kind]
    kept = target.trimmed(document)
    assert (target.suspended(kept), target.picked_up(kept)) == (target.suspended(document), target.picked_up(document))
    assert target.trimmed(kept) == kept


def trainjob(**more: Any) -> dict[str, Any]:
    made = job(1)
    return {**made, "spec": {"suspend": more.get("suspend", False)}, "status": more.get("status", {})}


def pod_of_a_trainjob(index: int, **more: Any) -> dict[str, Any]:
    made = running(index, **more)
    labels = made["metadata"]["labels"]
    labels["batch.kubernetes.io/job-completion-index"] = labels.pop("training.kubeflow.org/replica-index")
    made["metadata"]["name"] = f"digits-1-node-0-{index}-abcde"
    made["status"]["containerStatuses"][0]["name"] = "node"
    return made


class Watched:
    """A TrainJob of two pods, looked at again and again."""

    def __init__(self, **spec: Any) -> None:
        self.experiment: Experiment = experiment(target="TrainJob", **spec)
        self.now = START

    def look(self, jobs: list[dict[str, Any]], pods: list[dict[str, Any]], **more: Any) -> Any:
        observed = Observed(jobs=tuple(jobs), pods=tuple(pods), **more)
        decision = reconcile(self.experiment, observed, self.now, Timing())
        self.experiment = self.experiment.model_copy(update={"status": decision.status})
        return decision.status


def test_a_trainjob_is_queued_by_its_own_suspend_and_then_runs() -> None:
    watched = Watched(queueName="gold")
    watched.look([], [])
    held = watched.look([trainjob(suspend=True)], [], queue_message="4 more needed")
    assert (held.phase, held.message) == ("Queued", "4 more needed")
    status = watched.look([trainjob()], [pod_of_a_trainjob(1), pod_of_a_trainjob(0)])
    assert (status.phase, len(status.pod_uids)) == ("Running", 2)
    seen = view(watched.experiment, Observed(pods=(pod_of_a_trainjob(1), pod_of_a_trainjob(0))), 1)
    assert [index_of(each) for each in seen.pods] == [0, 1]
    assert pod_names(watched.experiment, 1) is None


def test_the_reason_of_a_queue_is_asked_for_soon_after_the_job_was_made() -> None:
    watched = Watched(queueName="gold")
    watched.look([], [])
    for message, soon in (("", 2.0), ("4 more needed", Timing().resync)):
        observed = Observed(jobs=(trainjob(suspend=True, status={"conditions": [{}]}),), queue_message=message)
        assert reconcile(watched.experiment, observed, watched.now).look_again_at == watched.now + soon


def test_a_trainjob_that_nobody_picks_up_names_the_trainer() -> None:
    watched = Watched()
    watched.look([], [])
    watched.look([trainjob()], [])
    watched.now += 61
    message = watched.look([trainjob()], []).message
    assert message == "Kubeflow Trainer has not picked the TrainJob up: is it running?"
    seen = watched.look([trainjob(status={"jobsStatus": [{"name": "node"}]})], [])
    assert seen.message == "attempt 1: 0 of 2 pods have a node"


def test_pods_that_the_api_server_refuses_are_waited_for_and_say_why() -> None:
    watched = Watched()
    watched.look([], [])
    why = "pods is forbidden: exceeded quota: cards"
    status = watched.look([trainjob()], [pod(0)], pods_refused=why)
    assert (status.phase, status.message) == ("Pending", why)
    status = watched.look([trainjob()], [pod_of_a_trainjob(0), pod_of_a_trainjob(1)], pods_refused=why)
    assert status.phase == "Running"
