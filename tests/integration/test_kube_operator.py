"""The operator's process on a real API server: replicas, kills, outages, its own health and metrics."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.kube.client import EXPERIMENTS, JOBS, LEASES, ApiError, Client
from controller.kube.election import Election, Terms
from tests.integration.gateway import Gateway
from tests.integration.kube import CRDS, Namespace, OperatorProcess, install, operator, wait_for
from tests.integration.proxy import Proxy, behind, server_of

TERMS = ("--lease-seconds", "3", "--renew-deadline", "2", "--renew-seconds", "0.5")
PATIENT = ("--lease-seconds", "60", "--renew-deadline", "50", "--renew-seconds", "0.5")


class Witness:
    """Watches how many jobs of an experiment live at a time, all the while."""

    def __init__(self, team: Namespace) -> None:
        self.most = 0
        self.seen: set[str] = set()
        self._team = team
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _watch(self) -> None:
        while not self._stop.is_set():
            alive = [job for job in self._team.jobs() if not job["metadata"].get("deletionTimestamp")]
            self.most = max(self.most, len(alive))
            self.seen |= {job["metadata"]["uid"] for job in alive}
            time.sleep(0.01)


def test_a_killed_leader_is_followed_and_there_are_never_two_jobs(
    kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    flags = ("--namespace", team.name, *TERMS)
    lease = f"lease-{team.name}"
    witness = Witness(team)
    replicas: list[OperatorProcess] = []
    contexts = [operator(kubeconfig, tmp_path, *flags, lease=lease) for _ in range(2)]
    try:
        replicas.append(contexts[0].__enter__().leading())
        replicas.append(contexts[1].__enter__())
        replicas[1].said("metrics on port")
        for number in range(4):
            team.create(f"e{number}", nodes=1)
            if number % 2:
                time.sleep(0.02 * number)
        replicas[0].kill()
        killed = time.monotonic()
        replicas[1].leading()
        assert time.monotonic() - killed < 3 + 5
        wait_for(lambda: replicas[1].get("health", "/readyz")[0] == 200)
        for number in range(4):
            team.start(1, name=f"e{number}")
            team.end(f"e{number}-1-worker-0", 141)
        for number in range(4):
            team.collect(1, f"e{number}")
            team.job(2, f"e{number}")
    finally:
        for context in contexts[: len(replicas)]:
            context.__exit__(None, None, None)
        witness.stop()
    # One attempt of each experiment at a time, and two in all.
    assert witness.most <= 4
    assert len(witness.seen) == 8


def test_a_leader_that_slept_finds_that_another_leads_and_writes_nothing(
    kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    flags = ("--namespace", team.name, *TERMS)
    lease = f"lease-{team.name}"
    witness = Witness(team)
    with (
        operator(kubeconfig, tmp_path, *flags, lease=lease) as first,
        operator(kubeconfig, tmp_path, *flags, lease=lease) as second,
    ):
        wait_for(lambda: "leading as" in first.log or "leading as" in second.log)
        leader, other = (first, second) if "leading as" in first.log else (second, first)
        for number in range(8):
            team.create(f"e{number}", nodes=1)
        leader.process.send_signal(signal.SIGSTOP)  # in the middle of it
        other.leading()
        for number in range(8):
            team.job(1, f"e{number}")
        leader.process.send_signal(signal.SIGCONT)
        assert leader.process.wait(30) == 1
        for number in range(8):
            team.start(1, name=f"e{number}")
            team.phase("Running", f"e{number}")
    witness.stop()
    assert witness.most <= 8
    assert len(witness.seen) == 8


def test_a_replica_that_starts_while_the_api_server_is_away_waits_for_it(
    kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    proxy = Proxy(server_of(kubeconfig))
    proxy.cut()
    try:
        with operator(behind(proxy, kubeconfig, tmp_path), tmp_path, "--namespace", team.name, *TERMS) as process:
            process.said("does not answer")
            assert process.get("health", "/healthz")[0] == 200
            team.create(nodes=1)
            proxy.mend()
            process.leading()
            team.job()
    finally:
        proxy.close()


def test_sigterm_finishes_and_releases_the_lease_at_once(kubeconfig: Path, team: Namespace, tmp_path: Path) -> None:
    lease = f"lease-{team.name}"
    flags = ("--namespace", team.name, *PATIENT)
    with (
        operator(kubeconfig, tmp_path, *flags, lease=lease) as first,
        operator(kubeconfig, tmp_path, *flags, lease=lease) as second,
    ):
        wait_for(lambda: "leading as" in first.log or "leading as" in second.log)
        leader, other = (first, second) if "leading as" in first.log else (second, first)
        assert leader.stop() == 0
        other.leading()
        assert other.stop() == 0
    spec = team.client.get(LEASES, "default", lease)["spec"]
    assert spec["holderIdentity"] == ""
    assert spec["leaseTransitions"] >= 1


def test_a_leader_that_can_not_renew_exits_before_another_may_lead(
    kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    proxy = Proxy(server_of(kubeconfig))
    config = behind(proxy, kubeconfig, tmp_path)
    try:
        with operator(config, tmp_path, "--namespace", team.name, *TERMS) as process:
            process.leading()
            proxy.cut()
            began = time.monotonic()
            assert process.process.wait(30) == 1
            assert time.monotonic() - began < 2 + 2
            process.said("is lost")
    finally:
        proxy.close()


@pytest.mark.parametrize(("away", "seconds"), [(Proxy.cut, 6), (Proxy.freeze, 15)], ids=["refuses", "is silent"])
def test_an_api_server_that_is_away_is_no_fault_and_what_was_missed_is_caught_up(
    away: Callable[[Proxy], None], seconds: float, kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    proxy = Proxy(server_of(kubeconfig))
    config = behind(proxy, kubeconfig, tmp_path)
    try:
        with operator(config, tmp_path, "--namespace", team.name, *PATIENT) as process:
            process.leading()
            team.create("runs", nodes=1)
            team.start(1, name="runs")
            team.phase("Running", "runs")
            team.create("fails", nodes=1)
            team.start(1, name="fails")
            team.phase("Running", "fails")
            away(proxy)
            team.end("fails-1-worker-0", 141)
            team.create("new", nodes=1)
            time.sleep(seconds)
            assert process.process.poll() is None
            assert process.get("health", "/healthz")[0] == 200
            assert team.status("fails")["attempt"] == 1
            proxy.mend()
            team.collect(1, "fails")
            team.job(2, "fails")
            team.job(1, "new")
            status = team.status("runs")
            assert (status["phase"], status["attempt"], status["history"]) == ("Running", 1, [])
            assert "Traceback" not in process.log
    finally:
        proxy.close()


# Minutes made seconds. A kind that the cluster lacks is asked for every 12 s at the least.
IMPATIENT = (
    "-c",
    "import sys\nfrom controller import operator\nfrom controller.kube import client\n"
    "operator.STUCK_SECONDS, client.WATCH_SECONDS = 15.0, 2\nsys.exit(operator.main())",
)


def unhealthy(process: OperatorProcess) -> str:
    """What /healthz says once it fails."""

    def failing() -> str:
        code, text = process.get("health", "/healthz")
        return text if code == 503 else ""

    return wait_for(failing, lambda: process.log)


def test_a_watch_that_says_nothing_while_the_api_server_answers_fails_liveness(
    kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    with Gateway(kubeconfig) as gateway:
        gateway.silent = lambda _, path: "/pods?" in path and "watch=" in path
        with operator(
            gateway.kubeconfig(tmp_path), tmp_path, "--namespace", team.name, "--lease-namespace", team.name, *PATIENT,
            program=IMPATIENT,
        ) as process:  # fmt: skip
            process.leading()
            team.create(nodes=1)
            team.job()  # all else works
            assert re.fullmatch(r"the watch of pods has been silent for \d+ s\n", unhealthy(process))
            # Where nobody answers, a restart would mend nothing.
            gateway.silent = lambda *_: True
            wait_for(lambda: process.get("health", "/healthz") == (200, "ok\n"))


def test_a_worker_that_never_comes_to_an_end_fails_liveness(kubeconfig: Path, team: Namespace, tmp_path: Path) -> None:
    with Gateway(kubeconfig) as gateway:
        # Each byte is a sign of life, so that no read times out.
        gateway.slow = lambda method, path: method == "POST" and path.endswith("/pytorchjobs")
        with operator(
            gateway.kubeconfig(tmp_path), tmp_path, "--namespace", team.name, "--lease-namespace", team.name, *PATIENT,
            program=IMPATIENT,
        ) as process:  # fmt: skip
            process.leading()
            assert process.get("health", "/healthz") == (200, "ok\n")
            team.create(nodes=1)
            assert re.fullmatch(r"worker-\d has looked at one experiment for \d+ s\n", unhealthy(process))


def test_without_pytorchjobs_it_runs_and_says_what_is_missing(
    kubeconfig: Path, client: Client, team: Namespace, tmp_path: Path
) -> None:
    name = "pytorchjobs.kubeflow.org"
    crd = client.call("GET", CRDS.path(None, name))
    client.call("DELETE", CRDS.path(None, name))
    try:
        wait_for(lambda: missing(client))
        with operator(kubeconfig, tmp_path, "--namespace", team.name) as process:
            process.leading()
            team.create(nodes=1)
            message = team.condition("PodsScheduled", "False", "TrainingOperatorMissing")["message"]
            assert "install Kubeflow's training-operator v1" in message
            assert process.get("health", "/readyz") == (200, "ok\n")
            assert "TrainingOperatorMissing" in {each["reason"] for each in team.events()}
            metadata = {"name": name, "annotations": crd["metadata"].get("annotations", {})}
            install(client, {**crd, "metadata": metadata, "status": {}})
            team.start()
            assert team.phase("Running")["attempt"] == 1
    finally:
        if missing(client):
            install(client, {**crd, "metadata": {"name": name}, "status": {}})


def missing(client: Client) -> bool:
    try:
        client.items(JOBS, None)
    except ApiError as error:
        return error.code == 404
    return False


def test_clocks_that_are_wrong_decide_nothing(client: Client, team: Namespace) -> None:
    terms = Terms(duration=1.0, deadline=0.8, retry=0.2)
    spec = {"holderIdentity": "other", "leaseDurationSeconds": 1, "renewTime": "2001-01-01T00:00:00.000000Z"}
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": spec}
    lease = client.create(LEASES, team.name, lease)
    election = Election(client, team.name, "l", "me", terms)
    stop = threading.Event()
    leading = threading.Thread(target=election.wait, args=(stop,))
    leading.start()
    for year in range(1990, 1998):  # the other renews, by a clock that is decades behind
        time.sleep(0.3)
        lease["spec"]["renewTime"] = f"{year}-01-01T00:00:00.000000Z"
        lease = client.replace(LEASES, team.name, "l", lease)
        assert not election.leading()
    leading.join(30)
    spec = client.get(LEASES, team.name, "l")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("me", 1)


def test_an_experiment_deleted_and_made_anew_starts_from_nothing(
    kubeconfig: Path, team: Namespace, tmp_path: Path
) -> None:
    with operator(kubeconfig, tmp_path, "--namespace", team.name) as process:
        process.leading()
        first = team.create(nodes=1)
        job = team.start()
        team.phase("Running")
        team.client.delete(EXPERIMENTS, team.name, "digits", first["metadata"]["uid"])
        second = team.create(nodes=1)
        # The old one's pod is there still: nothing of the new one may begin.
        team.wait(lambda status: "of earlier attempts to go" in status.get("message", ""))
        team.client.delete(JOBS, team.name, "digits-1", job["metadata"]["uid"])
        team.remove_pod("digits-1-worker-0")
        found = wait_for(lambda: [each for each in team.jobs() if owner(each) == second["metadata"]["uid"]])
        assert len(found) == 1


def owner(job: dict[str, Any]) -> str:
    return str(job["metadata"]["ownerReferences"][0]["uid"])


def test_only_its_own_namespace_is_looked_at(kubeconfig: Path, client: Client, tmp_path: Path) -> None:
    own, other = Namespace.made(client), Namespace.made(client)
    with operator(kubeconfig, tmp_path, "--namespace", own.name) as process:
        process.leading()
        other.create()
        own.create()
        own.job()
        assert other.jobs() == []
        assert other.status() == {}


def test_its_own_metrics_and_health(kubeconfig: Path, team: Namespace, tmp_path: Path) -> None:
    with operator(kubeconfig, tmp_path, "--namespace", team.name) as process:
        process.leading()
        team.create(nodes=1, activeDeadlineSeconds=1000)
        team.start()
        team.phase("Running")
        team.end("digits-1-worker-0", 141)
        team.collect(1)
        team.job(2)
        code, text = process.get("metrics", "/metrics")
        assert code == 200
        labels = f'experiment="digits",namespace="{team.name}"'
        assert f'resnet_experiment_restarts_total{{{labels},reason="DeviceLost"}} 1.0' in text
        assert f"resnet_experiment_devices{{{labels}}} 2.0" in text
        assert re.search(rf"resnet_experiment_deadline_timestamp_seconds{{{labels}}} \d", text)
        assert len(re.findall(rf"resnet_experiment_status_phase{{{labels},phase=\"\w+\"}} 1.0", text)) == 1
        assert len(re.findall(rf"resnet_experiment_status_phase{{{labels},phase=\"\w+\"}} 0.0", text)) == 7
        for series in (
            "resnet_operator_is_leader 1.0", "resnet_operator_reconcile_errors_total 0.0",
            "resnet_operator_queue_depth", 'resnet_operator_build_info{version="',
            "resnet_operator_reconcile_seconds_bucket",
            'resnet_operator_experiments{phase="',
        ):  # fmt: skip
            assert series in text
        assert process.get("health", "/healthz") == (200, "ok\n")
        assert process.get("health", "/readyz") == (200, "ok\n")
        assert process.get("health", "/else")[0] == 404
        team.client.delete(EXPERIMENTS, team.name, "digits", team.get()["metadata"]["uid"])
        wait_for(lambda: labels not in process.get("metrics", "/metrics")[1])
        process.process.send_signal(signal.SIGINT)
        assert process.process.wait(30) == 0


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workers", "0"], "--workers: must be 1 to 256, not '0'"),
        (["--lease-seconds", "5"], "--renew-seconds must be below --renew-deadline, and that below --lease-seconds"),
        (["--timing", "settled=1"], "--timing: must be NAME=SECONDS with one of backoff_base"),
        (["--kubeconfig", "/nowhere"], "--kubeconfig /nowhere: "),
        (["--namespace", "No"], "--namespace: must be 1 to 63 lower-case letters"),
    ],
)
def test_a_bad_option_is_one_line(flags: list[str], said: str, capfd: pytest.CaptureFixture[str]) -> None:
    from controller.operator import main

    try:
        code = main(flags)
    except SystemExit as end:
        code = int(end.code or 0)
    error = capfd.readouterr().err
    assert (code, error.count("\n")) == (64, 1)
    assert said in error
