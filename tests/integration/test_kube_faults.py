"""The rows of the fault table, on a real API server: what the controller writes, deletes and creates."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api import load
from controller.kube.client import JOBS, JOBS_OF, Client, Resource
from controller.render import render_job
from tests.cluster.certificates import Authority
from tests.cluster.kubectl import Kubectl
from tests.integration import trainjobs
from tests.integration.kube import Namespace, OperatorProcess, experiment, install, operator, wait_for
from tests.integration.proxy import server_of

TRAINJOBS = JOBS_OF["TrainJob"]
POD0, POD1 = "digits-1-worker-0", "digits-1-worker-1"


INSTALL = Path(__file__).parents[2] / "manifests" / "install"
ACCOUNT = "system:serviceaccount:resnet-operator:resnet-operator"


@pytest.fixture(scope="module", autouse=True)
def running(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator for all of them, with the rights of the installed one and no others."""
    kubectl = Kubectl(kubeconfig)
    kubectl.run("apply", "--server-side", "--filename", "-", stdin=kubectl.run("kustomize", str(INSTALL)))
    directory = tmp_path_factory.mktemp("operator")
    authority = Authority(kubeconfig.parent / "pki")
    own = authority.kubeconfig(directory / "own", server_of(kubeconfig), authority.issue("operator", ACCOUNT))
    with operator(own, directory, "--lease-namespace", "resnet-operator") as process:
        yield process.leading()
        assert "Traceback" not in process.log


def disruption(reason: str) -> dict[str, str]:
    return {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": f"{reason} it was"}


def next_attempt(team: Namespace, attempt: int, counted: bool, reason: str) -> dict[str, Any]:
    """The attempt ended like that; its job and pods go, and the next one's job comes."""
    team.collect(attempt)
    team.job(attempt + 1)
    status = team.wait(lambda status: status["attempt"] == attempt + 1)
    last = status["history"][-1]
    assert (last["attempt"], last["reason"], last["counted"]) == (attempt, reason, counted)
    return status


# --- how an attempt ends -------------------------------------------------------------------------------------------


def test_all_pods_done_is_success_with_the_figures_of_the_last_words(team: Namespace) -> None:
    team.create()
    team.start()
    team.phase("Running")
    words = team.words(phase="done", epoch=8, step=80, top1=0.7609, best_top1=0.77, last_checkpoint=80, exported="/m")
    team.end(POD1, 0)
    team.end(POD0, 0, words)
    status = team.phase("Succeeded")
    assert (status["top1"], status["top1Percent"], status["progress"]) == (0.7609, "76.09", "8/8")
    assert status["completionTime"]
    assert team.condition("Exported", "True", "Exported")["message"] == "/m"
    assert [job["metadata"]["name"] for job in team.jobs()] == ["digits-1"]
    told = {"AttemptStarting", "Running", "Exported", "Succeeded"}
    wait_for(lambda: {each["reason"] for each in team.events()} == told, team.events)


def test_a_permanent_error_fails_with_the_pods_own_message(team: Namespace) -> None:
    team.create()
    team.start()
    words = team.words(exit_code=65, reason="DataBad", message="3 classes in train/ are missing in val/: a, b, c")
    team.end(POD0, 65, words)
    status = team.phase("Failed")
    assert "3 classes in train/ are missing in val/: a, b, c" in status["message"]
    assert status["lastVerdict"]["exitCode"] == 65
    assert status["lastVerdict"]["pod"] == POD0
    assert len(team.jobs()) == 1


def test_out_of_memory_fails_and_names_pod_and_limit(team: Namespace) -> None:
    team.create()
    team.start()
    team.end(POD1, 137, runtime="OOMKilled")
    assert f"OOMKilled in pod {POD1} (limit 64Gi)" in team.phase("Failed")["message"]


@pytest.mark.parametrize(
    ("kubernetes", "ours"),
    [
        ("EvictionByEvictionAPI", "Evicted"),
        ("DeletionByTaintManager", "NodeLost"),
        ("PreemptionByScheduler", "Preempted"),
    ],
)
def test_a_disrupted_pod_is_a_new_attempt_that_counts_for_nothing(team: Namespace, kubernetes: str, ours: str) -> None:
    team.create()
    team.start()
    team.end(POD0, 143, conditions=[disruption(kubernetes)])
    team.end(POD1, 140)
    assert next_attempt(team, 1, False, ours)["restarts"] == 0


def test_a_lost_device_counts_and_its_node_is_avoided(team: Namespace) -> None:
    team.create()
    team.start()
    team.end(POD0, 141)
    team.end(POD1, 140)
    assert next_attempt(team, 1, True, "DeviceLost")["restarts"] == 1
    template = team.job(2)["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    preferred = template["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]
    assert preferred["preference"]["matchFields"][0]["values"] == ["node-0"]


def test_a_pod_that_a_kubelet_would_not_take_counts_for_nothing(team: Namespace) -> None:
    team.create(nodes=1)
    team.start()
    team.set_pod(POD0, "Failed", reason="UnexpectedAdmissionError", message="devices unavailable", containerStatuses=[])
    next_attempt(team, 1, False, "NotStarted")


def test_too_many_faults_without_progress_are_the_end(team: Namespace) -> None:
    team.create(faultTolerance={"maxRestarts": 1})
    for attempt in (1, 2):
        team.start(attempt)
        for index in range(2):
            team.end(f"digits-{attempt}-worker-{index}", 142)
        if attempt == 1:
            next_attempt(team, 1, True, "Hung")
    status = team.phase("Failed")
    assert team.condition("Failed", "True", "MaxRestartsExceeded")
    assert "maxRestarts is 1" in status["message"]


def test_a_job_deleted_by_hand_is_a_new_attempt(team: Namespace) -> None:
    team.create()
    job = team.start()
    team.phase("Running")
    team.client.delete(JOBS, team.name, "digits-1", job["metadata"]["uid"])
    next_attempt(team, 1, False, "JobDeleted")


def test_a_pod_that_was_replaced_is_a_new_attempt(team: Namespace) -> None:
    team.create()
    job = team.start()
    team.phase("Running")
    team.remove_pod(POD1)
    team.make_pod(job, 1)
    next_attempt(team, 1, False, "PodGone")


# --- what pods do not decide ---------------------------------------------------------------------------------------


class Answers:
    """A launcher's /progress on a port of its own."""

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = json.dumps(outer.document).encode()
                self.send_response(200 if outer.document is not None else 503)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def says(self, team: Namespace, **values: Any) -> None:
        self.document = json.loads(team.words(**values))


@pytest.fixture
def launcher() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.server.shutdown()
    answers.server.server_close()


def test_progress_shows_in_status_and_a_stall_is_a_counted_restart(
    team: Namespace, launcher: Answers, running: OperatorProcess
) -> None:
    launcher.says(team, step=10, loss=2.5, images_per_second=123.456, eta_seconds=11_520, last_checkpoint=5)
    team.create(
        podTemplate={"ports": {"metrics": launcher.port}}, faultTolerance={"stallTimeoutSeconds": 2, "maxRestarts": 3}
    )
    team.start()
    status = team.wait(lambda status: status.get("step") == 10)
    assert (status["loss"], status["imagesPerSecond"], status["eta"]) == (2.5, 123.5, "3h12m")
    assert status["lastCheckpoint"] == 5
    team.condition("ProgressReachable", "True", "Answers")
    labels = f'experiment="digits",namespace="{team.name}"'
    assert f"resnet_experiment_first_step_seconds{{{labels}}}" in running.get("metrics", "/metrics")[1]
    launcher.says(team, step=20)
    team.wait(lambda status: status.get("step") == 20)
    next_attempt(team, 1, True, "Stalled")


def test_silence_is_a_condition_and_never_a_restart(team: Namespace, launcher: Answers) -> None:
    team.create(podTemplate={"ports": {"metrics": launcher.port}}, faultTolerance={"stallTimeoutSeconds": 1})
    team.start()
    team.condition("ProgressReachable", "False", "Unreachable")
    launcher.says(team, attempt=7)  # an answer of another attempt is none
    wait_for(lambda: "attempt 7" in team.condition("ProgressReachable", "False", "Unreachable")["message"])
    launcher.says(team)
    team.condition("ProgressReachable", "True", "Answers")
    assert team.status()["attempt"] == 1


def test_half_a_gang_gives_up_and_tries_again(team: Namespace) -> None:
    team.create(faultTolerance={"startTimeoutSeconds": 1})
    team.start(pods=1)
    next_attempt(team, 1, False, "GangIncomplete")


def test_what_keeps_pods_from_starting_is_said(team: Namespace) -> None:
    team.create(nodes=1)
    job = team.job()
    team.condition("PodsScheduled", "False", "JobNotPickedUp")
    team.pick_up(job)
    team.make_pod(job, 0)
    lacking = "0/2 nodes are available: insufficient tecorigin.com/tcaicard"
    team.set_pod(POD0, "Pending")
    status = {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": lacking}
    ]}  # fmt: skip
    team._status(Resource("", "v1", "pods"), POD0, status)
    assert lacking in team.condition("PodsScheduled", "False", "Unschedulable")["message"]
    team.set_pod(POD0, "Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})
    assert "no such image" in team.condition("Running", "False", "ImagePullBackOff")["message"]
    assert team.status()["attempt"] == 1


def workload(team: Namespace, job: dict[str, Any], reason: str, message: str) -> dict[str, Any]:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta1",
        "kind": "Workload",
        "metadata": {"name": "w", "labels": {"kueue.x-k8s.io/job-uid": job["metadata"]["uid"]}},
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "reason": reason, "message": message}]},
    }


KUEUE = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "workloads.kueue.x-k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
    },
    "spec": {
        "group": "kueue.x-k8s.io",
        "names": {"kind": "Workload", "plural": "workloads", "listKind": "WorkloadList", "singular": "workload"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}


def test_what_kueue_holds_is_queued_for_its_reason_and_its_stops_are_no_faults(team: Namespace, client: Client) -> None:
    team.create(queueName="gold", nodes=1)
    missing = team.condition("PodsScheduled", "False", "KueueMissing")
    assert "this cluster has no Kueue (kueue.x-k8s.io): install it" in missing["message"]
    assert (team.jobs(), team.status()["phase"]) == ([], "Pending")
    install(client, KUEUE)
    job = team.job()
    # Its webhook is not here.
    wait_for(lambda: [each for each in team.events() if each["reason"] == "NotQueued"])
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gold"
    text = "insufficient unused quota for tecorigin.com/tcaicard, 4 more needed"
    kueue = Resource("kueue.x-k8s.io", "v1beta1", "workloads")
    client.create(kueue, team.name, workload(team, job, "Pending", text))
    hold(team, 1, True)
    team.wait(lambda status: status["phase"] == "Queued" and text in status["message"])
    hold(team, 1, False)
    team.start()
    team.phase("Running")
    hold(team, 1, True)
    team.end(POD0, 143)
    team.phase("Queued")
    team.remove_pod(POD0)
    hold(team, 1, False)
    team.start()
    team.phase("Running")
    assert (team.status()["attempt"], team.status()["history"]) == (1, [])


def test_an_attempt_as_a_trainjob_is_judged_by_its_pods_and_deleted_whole(team: Namespace, client: Client) -> None:
    team.create(target="TrainJob")
    missing = team.condition("PodsScheduled", "False", "TrainerMissing")
    assert "this cluster has no TrainJobs (trainer.kubeflow.org/v1alpha1): install Kubeflow" in missing["message"]
    install(client, trainjobs.crd())
    whole = load(trainjobs.EVERYTHING.format(namespace=team.name), "x")
    rendered = render_job(whole, 7, training_image="i", avoid_node="bad")
    strict = {"fieldValidation": "Strict", "dryRun": "All"}
    assert client.call("POST", TRAINJOBS.path(team.name), query=strict, body=rendered)
    first = trainjobs.job(team, 1)
    pods = [trainjobs.start(team, first, index) for index in (1, 0)]
    assert team.phase("Running")["jobName"] == "digits-1"
    team.end(pods[1], 137, name="node")
    team.end(pods[0], 140, name="node")
    wait_for(lambda: [each["metadata"]["name"] for each in client.items(TRAINJOBS, team.name)] == [])
    for name in pods:
        team.remove_pod(name)
    trainjobs.job(team, 2)
    assert [(end["reason"], end["counted"]) for end in team.status()["history"]] == [("Killed", True)]
    assert team.jobs() == []
    why = 'Error creating: pods "x" is forbidden: exceeded quota: cards'
    trainjobs.refuse(team, "digits-2-node-0", why)
    assert team.condition("PodsScheduled", "False", "PodsRefused")["message"] == why
    team.patch({"suspend": True})
    team.phase("Suspended")
    assert client.items(TRAINJOBS, team.name) == []


def hold(team: Namespace, attempt: int, suspend: bool) -> None:
    team.client.patch(JOBS, team.name, f"digits-{attempt}", {"spec": {"runPolicy": {"suspend": suspend}}})


def test_suspend_ends_the_attempt_and_resume_begins_another(team: Namespace) -> None:
    team.create(activeDeadlineSeconds=1000)
    team.start()
    team.phase("Running")
    team.patch({"suspend": True})
    team.collect(1)
    status = team.phase("Suspended")
    assert "startTime" not in status
    assert status["history"][-1]["reason"] == "Suspended"
    team.patch({"suspend": False})
    team.start(2)
    assert team.phase("Running")["restarts"] == 0


def test_the_deadline_ends_it_on_time(team: Namespace) -> None:
    team.create(activeDeadlineSeconds=1)
    team.start()
    status = team.phase("Failed")
    team.condition("Failed", "True", "DeadlineExceeded")
    assert "1 s have passed" in status["message"]
    team.collect(1)


def test_after_its_time_to_live_the_job_goes_and_the_experiment_stays(team: Namespace) -> None:
    team.create(ttlSecondsAfterFinished=0, nodes=1)
    team.start()
    team.end(POD0, 0)
    team.phase("Succeeded")
    team.collect(1)
    assert team.get()["status"]["phase"] == "Succeeded"


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_foreign_job_of_that_name_is_a_condition_and_not_a_fight(team: Namespace) -> None:
    container = {"name": "pytorch", "image": "i"}
    theirs = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "digits-1"},
        "spec": {"pytorchReplicaSpecs": {"Worker": {"template": {"spec": {"containers": [container]}}}}},
    }
    foreign = team.client.create(JOBS, team.name, theirs)
    team.create()
    assert "digits-1 is not this experiment's" in team.condition("PodsScheduled", "False", "JobNameTaken")["message"]
    assert team.job()["metadata"]["uid"] == foreign["metadata"]["uid"]
    team.client.delete(JOBS, team.name, "digits-1", foreign["metadata"]["uid"])
    wait_for(lambda: team.job()["metadata"]["uid"] != foreign["metadata"]["uid"])


def test_what_reaches_beyond_the_pod_is_refused_until_it_is_left_out(team: Namespace) -> None:
    team.create(podTemplate={"hostNetwork": True, "hostIPC": True}, priorityClassName="system-node-critical")
    message = team.condition("Accepted", "False", "NotAllowed")["message"]
    for field in ("spec.podTemplate.hostNetwork", "spec.podTemplate.hostIPC", "spec.priorityClassName"):
        assert field in message
    assert team.jobs() == []
    team.patch({"podTemplate": {"hostNetwork": False, "hostIPC": False}, "priorityClassName": None})
    team.start()
    team.condition("Accepted", "True", "Valid")


def test_what_the_api_server_can_not_check_is_refused_in_status(team: Namespace) -> None:
    document = experiment(training={"pretrained": "/a\u0001b"})
    team.client.create(Resource("resnet-operator.io", "v1alpha1", "resnetexperiments"), team.name, document)
    message = team.condition("Accepted", "False", "Invalid")["message"]
    assert "spec.training.pretrained: holds a control character" in message
    assert team.jobs() == []


def test_a_refused_post_is_told_and_tried_again(team: Namespace) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/pytorchjobs.kubeflow.org": "0"}},
        "status": {},
    }
    quotas = Resource("", "v1", "resourcequotas")
    made = team.client.create(quotas, team.name, quota)
    # The controller that counts is not here.
    made["status"] = {"hard": {"count/pytorchjobs.kubeflow.org": "0"}, "used": {"count/pytorchjobs.kubeflow.org": "0"}}
    team.client.replace(quotas, team.name, "none", made, "status")
    team.create()
    assert "exceeded quota" in team.condition("PodsScheduled", "False", "Forbidden")["message"]
    team.client.call("DELETE", quotas.path(team.name, "none"))
    team.start()
    team.phase("Running")
    assert team.status()["attempt"] == 1


def test_the_rights_of_the_operator_are_those_that_it_has_used(kubeconfig: Path) -> None:
    """The last one: it looks at all that the operator did in this module."""
    roles = [each for each in yaml.safe_load_all((INSTALL / "rbac.yaml").read_text()) if "rules" in each]
    assert [role["kind"] for role in roles] == ["ClusterRole", "Role"]
    granted = {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    # Asked for by the admission of the jobs' owner references, not by a request of its own.
    used = {("resnet-operator.io", "resnetexperiments/finalizers", "update")}
    for line in (kubeconfig.parent / "logs" / "audit.log").read_text().splitlines():
        event = json.loads(line)
        about = event.get("objectRef")
        if event["user"]["username"] == ACCOUNT and about:
            resource = "/".join(filter(None, [about["resource"], about.get("subresource")]))
            used.add((about.get("apiGroup", ""), resource, event["verb"]))
    assert used == granted
