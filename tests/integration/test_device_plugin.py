"""The device plugin as a process, and a kubelet by hand on the other side of its socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from tests.integration.kubelet import ROOT, ClassicKubelet, plugin, wait_for

ALL = {f"tcaicard{number}": "Healthy" for number in range(8)}
TABLE = """
| Index  Name                   | Bus-Id               | Health      SPE-Util |
{rows}
"""


def table(**sick: str) -> str:
    """The vendor's table of eight devices: three on the first card, five on the second."""
    line = "|   {n}    TECO_AICARD_01         | 00000000:0{card}:00.0     | {word} 0% |"
    lines = [line.format(n=n, card=int(n > 2), word=sick.get(f"d{n}", "OK")) for n in range(8)]
    return TABLE.format(rows="\n".join(lines))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: a socket's path holds 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="dp") as path:
        yield Path(path)


def test_a_kubelet_finds_the_socket_and_learns_what_it_needs(folder: Path) -> None:
    with plugin(folder) as running:
        kubelet = running.caller()
        info = kubelet.info()
        assert (info.type, info.name, info.endpoint) == ("DevicePlugin", "tecorigin.com/tcaicard", "")
        assert list(info.supported_versions) == ["v1beta1"]
        assert kubelet.options().get_preferred_allocation_available
        assert not kubelet.options().pre_start_required
        assert running.get("/readyz") == (503, "no kubelet listens yet\n")
        assert kubelet.watch().next() == ALL
        kubelet.notify()
        assert running.get("/readyz") == (200, "ok\n")
        assert running.get("/healthz") == (200, "ok\n")
        assert running.metric('resnet_device_plugin_listening{resource="tecorigin.com/tcaicard"} 1.0')
        assert running.metric('resnet_device_plugin_registrations_total{resource="tecorigin.com/tcaicard"} 1.0')
        assert running.end() == 0
        assert not running.socket.exists()


def test_a_refused_registration_is_one_line_and_not_ready(folder: Path) -> None:
    with plugin(folder) as running:
        running.caller().notify("no such version")
        running.said("WARNING the kubelet refuses tecorigin.com/tcaicard: no such version")
        assert running.get("/readyz")[0] == 503


def test_devices_go_together_and_come_with_nodes_and_indices(folder: Path) -> None:
    with plugin(folder, "--env=A=1", "--mount=/opt:/opt", "--permissions=r") as running:
        kubelet = running.caller()
        kubelet.watch().next()
        assert kubelet.preferred(sorted(set(ALL) - {"tcaicard1"}), 4) == [f"tcaicard{n}" for n in range(4, 8)]
        given = kubelet.allocate("tcaicard5", "tcaicard4")
        assert [(each.host_path, each.container_path, each.permissions) for each in given.devices] == [
            (f"{running.devices}/tcaicard{n}", f"/dev/tcaicard{n}", "r") for n in (4, 5)
        ]
        assert dict(given.envs) == {"A": "1", "SDAA_VISIBLE_DEVICES": "0,1"}
        assert [(each.host_path, each.container_path, each.read_only) for each in given.mounts] == [
            ("/opt", "/opt", True)
        ]
        kubelet.allocate(*(f"tcaicard{n}" for n in range(4)))
        for aligned in ("true", "false"):
            labels = f'aligned="{aligned}",resource="tecorigin.com/tcaicard"'
            assert running.metric(f"resnet_device_plugin_allocations_total{{{labels}}} 1.0")


def test_whole_cards_as_devices(folder: Path) -> None:
    with plugin(folder, "--count=card") as running:
        kubelet = running.caller()
        watch = kubelet.watch()
        assert watch.next() == {"card0": "Healthy", "card1": "Healthy"}
        assert [each.container_path for each in kubelet.allocate("card1").devices] == [
            f"/dev/tcaicard{n}" for n in range(4, 8)
        ]
        running.unplug(6)
        assert watch.sick() == ["card1"]


def test_a_device_that_vanishes_is_named_and_never_given_until_it_is_back(folder: Path) -> None:
    with plugin(folder) as running:
        kubelet = running.caller()
        watch = kubelet.watch()
        assert watch.next() == ALL
        running.unplug(5)
        assert watch.sick() == ["tcaicard5"]
        gone = f"{running.devices}/tcaicard5 is gone"
        running.said(f"WARNING tcaicard5 .card1.: {gone}")
        assert running.metric(
            'resnet_device_plugin_device_healthy{card="card1",device="tcaicard5",resource="tecorigin.com/tcaicard"} 0.0'
        )
        with pytest.raises(grpc.RpcError) as refused:
            kubelet.allocate("tcaicard4", "tcaicard5")
        assert refused.value.details() == f"tcaicard5 is unusable: {gone}"  # type: ignore[attr-defined]
        running.plug(5)
        assert watch.next() == ALL
        running.said(r"INFO tcaicard5 .card1.: usable again")
        assert len(kubelet.allocate("tcaicard4", "tcaicard5").devices) == 2


def test_a_device_that_appears_is_added(folder: Path) -> None:
    with plugin(folder, devices=0) as running:
        watch = running.caller().watch()
        assert watch.next() == {}
        running.said("WARNING there is no device .*/tcaicardN .a character device. on this node")
        running.plug(0)
        assert watch.next() == {"tcaicard0": "Healthy"}


def test_the_health_command_makes_devices_sick_and_well_and_the_cards(folder: Path) -> None:
    said = folder / "table"
    said.write_text(table())
    with plugin(folder, f"--health-command=cat {said}", "--health-interval=0.1") as running:
        kubelet = running.caller()
        watch = kubelet.watch()
        assert watch.next() == ALL
        assert kubelet.preferred(sorted(ALL), 3) == ["tcaicard0", "tcaicard1", "tcaicard2"]
        said.write_text(table(d4="HEARTBEAT_ERROR"))
        assert watch.sick() == ["tcaicard4"]
        running.said(r"tcaicard4 .card-00000000:01:00.0.: the health command says HEARTBEAT_ERROR")
        # What it said last counts until it says something else.
        said.write_text("Segmentation fault")
        running.said(r"the health command failed, what it said last still counts: cat: exit code 0, and no table")
        said.write_text(table())
        assert watch.next() == ALL


def test_a_health_command_that_hangs_prints_without_end_or_is_missing_holds_nothing_up(folder: Path) -> None:
    slept = f"sleep 1000.{os.getpid()}"
    for command, why in (
        (slept, "sleep: does not end within 0.3 s"),
        (f"sh -c '{slept} & wait'", "sh: does not end within 0.3 s"),
        ("yes", "yes: prints more than 262144 bytes"),
        ("/no/such/tool", "/no/such/tool: No such file or directory"),
    ):
        flags = (f"--health-command={command}", "--health-interval=0.1", "--health-timeout=0.3")
        with plugin(folder, *flags) as running:
            assert running.caller().watch().next() == ALL
            running.said(why)
            failed = 'resnet_device_plugin_health_command_failures_total{resource="tecorigin.com/tcaicard"}'
            assert running.metric(f"{failed} 0.0") is False
            # Said once, however often it happens.
            assert running.log.count(why) == 1
            assert running.end() == 0
    said = [path.read_bytes().replace(b"\0", b" ").decode() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert f"{slept} " not in said


def test_it_registers_in_the_classic_directory_and_again_with_each_kubelet(folder: Path) -> None:
    sockets = folder / "s"
    sockets.mkdir()
    with plugin(folder, "--registration=classic") as running:
        running.said(r"WARNING .*/kubelet.sock: there is no such socket; does a kubelet run on this node\?")
        # The last one finds the plugin's socket there and leaves it.
        for empties in (True, True, False):
            kubelet = ClassicKubelet(sockets, empties=empties)
            request = kubelet.registered.get(timeout=30)
            assert (request.version, request.resource_name) == ("v1beta1", "tecorigin.com/tcaicard")
            assert request.options.get_preferred_allocation_available
            watch = running.caller().watch()
            assert watch.next() == ALL
            kubelet.stop()
            watch.stream.cancel()
        assert running.end() == 0


def test_a_socket_that_is_removed_is_made_again(folder: Path) -> None:
    with plugin(folder) as running:
        assert running.caller().watch().next() == ALL
        running.socket.unlink()
        running.said("was removed: serving anew")
        assert running.caller().watch().next() == ALL


def test_a_kubelet_that_never_comes_is_one_line_and_the_socket_is_made_anew_for_it(folder: Path) -> None:
    with plugin(folder, "--silence-seconds=0.5") as running:
        running.said("no kubelet has listened for 0.5 s; does it run, does it look into this directory, does another")
        assert running.caller().watch().next() == ALL


def test_after_kill_9_the_next_one_takes_the_socket_that_was_left(folder: Path) -> None:
    with plugin(folder) as first:
        first.caller().watch().next()
        first.end(signal.SIGKILL)
        assert first.socket.exists()
        with plugin(folder) as second:
            second.said("advertises")
            wait_for(lambda: "another process" not in second.log and second.caller().info())
            assert second.caller().watch().next() == ALL


def test_the_second_plugin_on_a_node_says_so_once_and_waits_for_the_first_to_end(folder: Path) -> None:
    with plugin(folder) as first:
        watch = first.caller().watch()
        assert watch.next() == ALL
        with plugin(folder) as second:
            line = f"{second.socket}: another process serves this socket; is there a second plugin on this node?"
            second.said(line.replace("?", r"\?"))
            assert second.get("/readyz") == (503, f"{line}\n")
            first.unplug(1)
            assert watch.sick() == ["tcaicard1"]
            first.plug(1)
            first.end()
            assert second.caller().watch().next() == ALL
            assert second.log.count(line) == 1


def test_a_missing_socket_directory_is_one_line_until_it_is_there(folder: Path) -> None:
    sockets = folder / "later"
    with plugin(folder, f"--socket-directory={sockets}") as running:
        running.said(f"WARNING {sockets}: no socket can be made there: No such file or directory")
        sockets.mkdir()
        running.sockets = sockets
        assert running.caller().watch().next() == ALL
        assert running.log.count("No such file") == 1


def test_a_port_that_is_taken_is_one_line_that_names_the_flag(folder: Path) -> None:
    with plugin(folder) as first:
        port = first.said(r"metrics on port (\d+)")[1]
        command = [sys.executable, "-m", "deviceplugin", f"--metrics-port={port}", f"--socket-directory={folder}"]
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert second.returncode == 64
        assert second.stderr == f"python -m deviceplugin: --metrics-port {port}: Address already in use\n"


def test_the_messages_are_those_of_the_proto_files(tmp_path: Path) -> None:
    from deviceplugin.api.generate import HERE, OUTPUT, generate

    generate(tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.rglob("*_pb2*")}
    assert made == {path.name: path.read_text() for path in HERE.iterdir() if path.name.endswith(OUTPUT)}
    assert len(made) == 4
