"""The launcher on real processes: fake ranks, real signals, real ports."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.launcher.cpus import Cpus, bind, parsed, ranks_at_full_speed, shown, threads, usable

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("launcher_process.py")
SEED = ["--model_name", "resnet18", "--bs", "8", "--lr", "0.1", "--device", "cpu", "--dataset", "synthetic"]
PARENT = "import os, subprocess, sys; os.environ['RESNET_PARENT_PID'] = str(os.getpid()); subprocess.call(sys.argv[1:])"
"""Starts a launcher as resnetctl does: the command's words follow."""
PATIENCE = 30.0
"""Seconds after which a test gives up waiting for something that takes a fraction of it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE:g} s for {what}")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class Run:
    """One launcher over fake ranks; `parent`: as the child of a process in between, which is `process` then."""

    def __init__(
        self, folder: Path, *flags: str, ranks: dict[int, str], nproc: int = 2, parent: bool = False, **environ: str
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.nproc = nproc
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.metrics_port = free_port()
        environ = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("RESNET_", "PET_", "MASTER_"))
            },
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(self.temporary),
            "FAKE_RANKS": json.dumps(ranks),
            "RESNET_NAMESPACE": "local",
            "RESNET_EXPERIMENT": "digits",
            "RESNET_EXPERIMENT_UID": "u-1",
            "RESNET_ATTEMPT": "2",
            "RESNET_POD": folder.name,
            "RESNET_TERMINATION_MESSAGE_PATH": str(folder / "termination"),
            "RESNET_METRICS_PORT": str(self.metrics_port),
            "MASTER_PORT": str(free_port()),
            **environ,
        }
        with open(folder / "out", "wb") as out, open(folder / "err", "wb") as err:
            above = [sys.executable, "-c", PARENT] if parent else []
            self.process = subprocess.Popen(
                [*above, sys.executable, str(FAKE), *SEED, "--nproc_per_node", str(nproc), *flags],
                env=environ, cwd=folder, stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def ranks(self) -> dict[int, dict[str, Any]]:
        lines = (self.folder / "out").read_text().split("\n")[:-1]
        return {line["rank"]: line for line in map(json.loads, lines)}

    def pid(self, rank: int) -> int:
        return int(until(lambda: self.ranks().get(rank), f"rank {rank}")["pid"])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def progress(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.get("/progress")))
        except (urllib.error.URLError, ConnectionError):
            return {}

    def reach_step(self, step: int) -> None:
        """Waits until the first rank is there, and all of them listen to signals."""
        until(lambda: len(self.ranks()) == self.nproc, "the ranks")
        until(lambda: self.progress().get("step", 0) >= step, f"step {step}")

    def end(self) -> tuple[int, str, dict[str, Any]]:
        """(exit code, last line of stderr, termination message); nothing of the launcher is left."""
        code = self.process.wait(PATIENCE)
        assert not [rank for rank in self.ranks().values() if alive(rank["pid"])]
        assert not list(self.temporary.iterdir())
        lines = self.stderr().splitlines()
        return code, lines[-1] if lines else "", json.loads((self.folder / "termination").read_text())

    def stderr(self) -> str:
        return (self.folder / "err").read_text()


Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def begin(*flags: str, name: str = "pod", **more: Any) -> Run:
        runs.append(Run(tmp_path / name, *flags, **more))
        return runs[-1]

    yield begin
    for run in runs:
        with contextlib.suppress(ProcessLookupError):
            run.process.kill()
        run.process.wait()


def test_all_ranks_done(start: Start) -> None:
    run = start(ranks={0: "finish", 1: "finish"})
    code, line, message = run.end()
    assert (code, line) == (0, "")
    assert message["exit_code"] == 0
    assert message["reason"] == "Done"
    assert message["exported"] == "/somewhere/model.onnx"
    assert (message["namespace"], message["experiment"], message["attempt"]) == ("local", "digits", 2)
    assert (message["phase"], message["loss"], message["last_checkpoint"]) == ("train", 0.25, 7)


def test_ranks_get_their_place_and_the_same_flags(start: Start) -> None:
    run = start("--epoch", "3", ranks={}, nproc=2, PYTHONPATH=f"{ROOT}{os.pathsep}/elsewhere", RESNET_PARENT_PID="")
    assert run.end()[0] == 0
    for rank, seen in run.ranks().items():
        environ = seen["env"]
        assert seen["argv"] == [*SEED, "--nproc_per_node", "2", "--epoch", "3"]
        assert (environ["RANK"], environ["LOCAL_RANK"]) == (str(rank), str(rank))
        assert (environ["WORLD_SIZE"], environ["LOCAL_WORLD_SIZE"]) == ("2", "2")
        assert environ["MASTER_ADDR"] == "127.0.0.1"
        assert environ["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)
        assert environ["RESNET_POD"] == "pod"
        assert int(environ["RESNET_LAUNCHER_PID"]) == run.process.pid
        assert int(environ["OMP_NUM_THREADS"]) >= 1
        assert "RESNET_PARENT_PID" not in environ
    assert sorted(run.ranks()) == [0, 1]


def test_threads_that_the_user_set_stay(start: Start) -> None:
    run = start(ranks={}, nproc=1, OMP_NUM_THREADS="7")
    assert run.end()[0] == 0
    assert run.ranks()[0]["env"]["OMP_NUM_THREADS"] == "7"


def test_each_rank_and_its_children_run_on_its_own_cpus(start: Start) -> None:
    own = usable().all
    run = start(ranks={}, FAKE_CPUS=shown(own))
    assert run.end()[0] == 0
    exclusive = Cpus(tuple(frozenset({cpu}) for cpu in sorted(own)), (own,), exclusive=True)
    sets = bind(exclusive, 2) or [own, own]  # the latter on a machine of one CPU
    seen = run.ranks()
    assert [parsed(seen[rank]["cpus"]) for rank in (0, 1)] == sets
    assert {seen[rank]["env"]["OMP_NUM_THREADS"] for rank in (0, 1)} == {str(threads(exclusive, 2, sets))}


@pytest.mark.parametrize("flags", [("--cpu_binding", "none"), ()])
def test_ranks_are_left_unbound_where_it_is_asked_for_or_pods_share_one_node(
    start: Start, flags: tuple[str, ...]
) -> None:
    run = start(*flags, ranks={}, **({"FAKE_CPUS": shown(usable().all)} if flags else {}))
    assert run.end()[0] == 0
    sets = bind(usable(), 2) if not flags else None
    assert [parsed(run.ranks()[rank]["cpus"]) for rank in (0, 1)] == (sets or [usable().all] * 2)


def test_cpus_that_can_not_be_had_cost_a_line_and_not_the_run(start: Start) -> None:
    absent = "4094-4095"
    run = start(ranks={}, FAKE_CPUS=absent)
    assert run.end()[0] == 0
    lines = run.stderr().splitlines()
    expected = "run_resnet: warning: --cpu_binding: rank {} can't be bound to CPUs {} (Invalid argument), and is not"
    assert lines == [expected.format(0, 4094), expected.format(1, 4095)]
    assert parsed(run.ranks()[1]["cpus"]) == usable().all


def test_auto_on_the_cpu_is_a_rank_for_each_numa_node(start: Start) -> None:
    number = ranks_at_full_speed(usable())
    run = start("--nproc_per_node", "auto", ranks={}, nproc=number)
    assert run.end()[0] == 0
    assert sorted(run.ranks()) == list(range(number))
    for seen in run.ranks().values():
        assert seen["argv"][-2:] == ["--nproc_per_node", str(number)]
        assert (seen["env"]["WORLD_SIZE"], seen["env"]["LOCAL_WORLD_SIZE"]) == (str(number), str(number))


SDAA = ("--device", "sdaa", "--nproc_per_node", "auto")
VENDOR = f"{ROOT}{os.pathsep}{ROOT / 'tests/fakes'}"


def test_auto_counts_the_devices_that_the_framework_sees(start: Start) -> None:
    run = start(*SDAA, ranks={}, nproc=3, PYTHONPATH=VENDOR, FAKE_SDAA_DEVICES="8", SDAA_VISIBLE_DEVICES="0,5,6")
    assert run.end()[0] == 0
    assert sorted(run.ranks()) == [0, 1, 2]
    assert run.ranks()[0]["argv"][-1] == "3"


@pytest.mark.parametrize(
    ("environ", "code", "line"),
    [
        ({}, 69, "FrameworkMissing (exit 69): --device sdaa: torch_sdaa can't be imported "),
        ({"PYTHONPATH": VENDOR, "FAKE_SDAA_DEVICES": "0"}, 141, "DeviceLost (exit 141): --device sdaa: torch "),
        ({"PYTHONPATH": VENDOR, "FAKE_SDAA_DEVICES": "257"}, 64, "--nproc_per_node: must be 1 to 256 (or auto), not "),
    ],
)
def test_devices_that_can_not_be_counted_are_one_line_with_the_reasons_code(
    start: Start, environ: dict[str, str], code: int, line: str
) -> None:
    run = start(*SDAA, ranks={}, **environ)
    end, last, message = run.end()
    assert (end, message["exit_code"]) == (code, code)
    assert last.startswith(f"run_resnet: {line}")
    assert run.stderr().count("\n") == 1
    assert not run.ranks()


@pytest.mark.parametrize(("asked", "code"), [(False, 142), (True, 143)])
def test_a_count_that_never_ends_is_a_hang_and_can_be_stopped(
    start: Start, tmp_path: Path, asked: bool, code: int
) -> None:
    (tmp_path / "torch.py").write_text(
        f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    limit = "1000" if asked else "5"
    run = start(*SDAA, "--watchdog_seconds", limit, ranks={}, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    pid = int(until(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text(), "the count"))
    if asked:
        run.process.send_signal(signal.SIGTERM)
    end, line, _ = run.end()
    assert end == code
    assert ("(--watchdog_seconds)" in line) is not asked
    assert not alive(pid)


@pytest.mark.parametrize(
    ("ranks", "code", "reason", "text"),
    [
        ({0: "fail:140:lost rank 1", 1: "fail:66:no train/ in /data"}, 66, "DataMissing", "no train/ in /data"),
        ({0: "hang", 1: "fail:141:device 1 is gone"}, 141, "DeviceLost", "rank 1: device 1 is gone"),
        ({0: "ignore", 1: "exit:3"}, 3, "Exit3", "rank 1 ended with code 3 and left no message"),
        ({0: "fail:140:lost rank 1", 1: "signal:9"}, 137, "Killed", "rank 1 was killed by SIGKILL"),
        ({0: "hang", 1: "signal:6"}, 134, "Signal6", "rank 1 was killed by SIGABRT"),
        ({0: "fail:145:KeyError", 1: "fail:144:EIO"}, 144, "VolumeIO", "rank 1: EIO"),
        ({0: "fail:144:EIO", 1: "fail:141:gone"}, 141, "DeviceLost", "rank 1: gone"),
        ({0: "signal:11", 1: "fail:145:KeyError"}, 145, "Unclassified", "rank 1: KeyError"),
    ],
)
def test_end_of_the_ranks_is_the_launchers(
    start: Start, ranks: dict[int, str], code: int, reason: str, text: str
) -> None:
    end, line, message = start(ranks=ranks).end()
    assert end == code
    assert line == f"run_resnet: {reason} (exit {code}): {text}"
    assert (message["exit_code"], message["reason"], message["message"]) == (code, reason, text)


def test_first_sigterm_is_passed_on_once(start: Start) -> None:
    run = start(ranks={0: "train", 1: "train"})
    run.reach_step(3)
    run.process.send_signal(signal.SIGTERM)
    code, _, message = run.end()
    assert code == 143
    assert message["reason"] == "Stopped"
    assert message["message"].endswith("after 1 signal")


def test_ctrl_c_stops_in_good_order(start: Start) -> None:
    run = start(ranks={0: "train", 1: "train"})
    run.reach_step(3)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does: to the launcher's whole group
    assert run.end()[0] == 143


def test_second_signal_kills(start: Start) -> None:
    run = start(ranks={0: "ignore", 1: "ignore"})
    run.reach_step(3)
    run.process.send_signal(signal.SIGTERM)
    run.reach_step(run.progress()["step"] + 10)
    assert alive(run.pid(0))
    run.process.send_signal(signal.SIGTERM)
    code, line, _ = run.end()
    assert code == 137
    assert "second signal" in line


def test_rank_that_ignores_sigterm_is_killed_before_the_grace_ends(start: Start) -> None:
    run = start("--grace_seconds", "6", ranks={0: "train", 1: "ignore"})
    run.reach_step(3)
    run.process.send_signal(signal.SIGTERM)
    code, _, message = run.end()
    assert code == 143
    assert message["message"].startswith("rank 0: stopped at step")


def test_stop_before_the_ranks_run(start: Start) -> None:
    run = start("--nnode", "2", "--node_rank", "1", ranks={}, RESNET_GANG_PORT=str(free_port()))
    until(run.progress, "the server")
    run.process.send_signal(signal.SIGTERM)
    code, line, _ = run.end()
    assert code == 143
    assert line == "run_resnet: Stopped (exit 143): stopped by SIGTERM before the ranks were started"
    assert not run.ranks()


def test_stopped_rank_is_a_hang_that_names_it_and_shows_the_others(start: Start) -> None:
    run = start("--watchdog_seconds", "1", ranks={0: "hang", 1: "train", 2: "hang"}, nproc=3)
    run.reach_step(3)
    os.kill(run.pid(1), signal.SIGSTOP)
    code, line, message = run.end()
    assert code == 142
    assert line.startswith("run_resnet: Hung (exit 142): rank 1 has not moved for ")
    assert "phase train" in line
    assert "its process is stopped" in line
    assert message["reason"] == "Hung"
    lines = [line for line in run.stderr().splitlines() if "the threads of" in line or "most recent call" in line]
    assert [line.partition("rank ")[2] for line in lines] == ["0:", "", "1:", "2:", ""]  # a stopped one shows none


def test_rank_without_a_heartbeat_is_found(start: Start) -> None:
    run = start("--watchdog_seconds", "1", ranks={0: "silent"}, nproc=1)
    code, line, _ = run.end()
    assert code == 142
    assert "rank 0" in line
    assert "phase start" in line


def test_a_rank_that_has_ended_is_reaped_while_the_others_run(start: Start) -> None:
    run = start(ranks={0: "finish", 1: "train"})
    run.reach_step(3)
    pid = run.pid(0)
    until(lambda: not Path(f"/proc/{pid}").exists(), "rank 0 to be gone, not a zombie")
    assert alive(run.pid(1))
    run.process.send_signal(signal.SIGTERM)
    assert run.end()[0] == 143


def test_launcher_killed_takes_its_ranks_along(start: Start) -> None:
    run = start(ranks={0: "ignore", 1: "ignore"})
    pids = [run.pid(0), run.pid(1)]
    run.reach_step(3)
    run.process.kill()
    until(lambda: not any(alive(pid) for pid in pids), "the ranks' end")


def test_worker_of_a_killed_rank_is_killed_too(start: Start, tmp_path: Path) -> None:
    code, _, _ = start(ranks={0: f"leave-worker:{tmp_path}/worker"}, nproc=1).end()
    assert code == 137
    worker = int((tmp_path / "worker").read_text())
    until(lambda: not alive(worker), "the worker's end")


def test_launcher_stops_when_the_one_that_started_it_is_gone(tmp_path: Path, start: Start) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run = start(ranks={0: "train"}, nproc=1, RESNET_PARENT_PID=str(gone.pid))
    code, _, message = run.end()
    assert (code, message["reason"]) == (143, "Stopped")


def test_a_launcher_whose_parent_was_killed_takes_no_further_signal_for_impatience(start: Start) -> None:
    run = start("--grace_seconds", "10", ranks={0: "ignore"}, nproc=1, parent=True)
    run.reach_step(3)
    launcher = int(run.ranks()[0]["env"]["RESNET_LAUNCHER_PID"])
    run.process.kill()
    run.process.wait()
    os.kill(launcher, signal.SIGTERM)  # as the next resnetctl does with what it finds
    until(lambda: not alive(launcher), "the launcher's end")
    message = json.loads((run.folder / "termination").read_text())["message"]
    assert message == "killed: the ranks had not stopped 5 s after SIGTERM"


def test_pages_are_served_while_ranks_hang(start: Start) -> None:
    run = start(ranks={0: "hang", 1: "hang"})
    run.reach_step(10)
    until(lambda: 'resnet_training_rank_busy_seconds_total{experiment="digits",namespace="local",rank="1"} 0.2'
          in run.get("/metrics"), "rank 1")  # fmt: skip
    idle = [socket.create_connection(("127.0.0.1", run.metrics_port)) for _ in range(5)]
    assert run.get("/healthz") == "ok\n"
    for visitor in idle:
        visitor.close()
    document = run.progress()
    assert (document["experiment"], document["attempt"], document["pod"]) == ("digits", 2, "pod")
    assert (document["phase"], document["step"], document["top1"], document["exported"]) == ("train", 10, 0.5, None)
    samples = {
        (sample.name, sample.labels.get("rank")): sample
        for family in text_string_to_metric_families(run.get("/metrics"))
        for sample in family.samples
    }
    assert samples["resnet_training_steps_total", None].value == 10
    assert samples["resnet_training_steps_total", None].labels == {"namespace": "local", "experiment": "digits"}
    assert samples["resnet_training_rank_busy_seconds_total", "1"].value == pytest.approx(0.2)
    assert "resnet_validation_loss" not in {name for name, _ in samples}
    with pytest.raises(urllib.error.HTTPError, match="404"):
        run.get("/nothing")


def test_digits_are_there_before_the_ranks_start(start: Start, tmp_path: Path) -> None:
    run = start("--dataset", "digits", "--dataset_path", f"{tmp_path}/digits", ranks={}, nproc=1)
    assert run.process.wait(PATIENCE) == 0
    assert (tmp_path / "digits" / "train" / "9").is_dir()
    assert run.stderr() == ""


def test_digits_that_can_not_be_written_end_the_launcher(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = start("--dataset", "digits", "--dataset_path", f"{tmp_path}/file/digits", ranks={})
    code, line, message = run.end()
    assert code >= 64
    assert message["exit_code"] == code
    assert f"{tmp_path}/file" in message["message"]
    assert run.stderr() == line + "\n"
    assert not run.ranks()


@pytest.mark.parametrize("flag", ["--metrics_port", "--master_port", "--gang_port"])
def test_port_in_use_is_named_with_its_flag(start: Start, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, line, message = start(flag, str(port), "--nnode", "2", ranks={}).end()
    assert code == 141
    assert line == f"run_resnet: PortInUse (exit 141): {flag}: port {port} is in use on this machine, give a free one"
    assert (message["exit_code"], message["reason"]) == (141, "PortInUse")


def test_bad_option_is_one_line_and_in_the_termination_message(start: Start) -> None:
    code, _, message = (run := start("--lr", "-1", ranks={})).end()
    assert code == 64
    assert run.stderr() == "run_resnet: --lr: must be 1e-09 to 1000, not -1\n"
    assert (message["reason"], message["message"]) == ("BadOption", "--lr: must be 1e-09 to 1000, not -1")


def test_file_that_can_not_hold_the_termination_message_changes_nothing(start: Start, tmp_path: Path) -> None:
    run = start(ranks={}, RESNET_TERMINATION_MESSAGE_PATH=str(tmp_path / "absent" / "file"))
    assert run.process.wait(PATIENCE) == 0
    assert "can't be written: No such file or directory" in run.stderr()
    assert run.stderr().count("\n") == 1
