"""The kubelet's side of a device plugin, by hand: what it asks, in both ways of registration."""

from __future__ import annotations

import contextlib
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from deviceplugin.api import deviceplugin_pb2 as api
from deviceplugin.api import registration_pb2 as registration

ROOT = Path(__file__).parents[2]
WAIT = 30.0
NAME = "tecorigin.com_tcaicard.sock"
T = TypeVar("T")
M = TypeVar("M", bound=Message)


def wait_for(what: Callable[[], T | None], seconds: float = WAIT) -> T:
    """What `what` returns once it is true."""
    late = time.monotonic() + seconds
    while True:
        found = what()
        if found:
            return found
        assert time.monotonic() < late, f"after {seconds} s: {found!r}"
        time.sleep(0.05)


class Caller:
    """A connection to the plugin's socket."""

    def __init__(self, socket: Path) -> None:
        self.channel = grpc.insecure_channel(f"unix:{socket}")

    def call(self, service: str, method: str, request: Message, kind: type[M]) -> M:
        call = self.channel.unary_unary(f"/{service}/{method}", type(request).SerializeToString, kind.FromString)
        answer: M = call(request, timeout=WAIT, wait_for_ready=True)
        return answer

    def info(self) -> registration.PluginInfo:
        return self.call(
            "pluginregistration.Registration", "GetInfo", registration.InfoRequest(), registration.PluginInfo
        )

    def notify(self, error: str = "") -> None:
        status = registration.RegistrationStatus(plugin_registered=not error, error=error)
        self.call(
            "pluginregistration.Registration", "NotifyRegistrationStatus", status,
            registration.RegistrationStatusResponse,
        )  # fmt: skip

    def options(self) -> api.DevicePluginOptions:
        return self.call("v1beta1.DevicePlugin", "GetDevicePluginOptions", api.Empty(), api.DevicePluginOptions)

    def preferred(self, available: list[str], size: int) -> list[str]:
        question = api.ContainerPreferredAllocationRequest(available_deviceIDs=available, allocation_size=size)
        request = api.PreferredAllocationRequest(container_requests=[question])
        answer = self.call("v1beta1.DevicePlugin", "GetPreferredAllocation", request, api.PreferredAllocationResponse)
        (one,) = answer.container_responses
        return list(one.deviceIDs)

    def allocate(self, *ids: str) -> api.ContainerAllocateResponse:
        request = api.AllocateRequest(container_requests=[api.ContainerAllocateRequest(devices_ids=ids)])
        (one,) = self.call("v1beta1.DevicePlugin", "Allocate", request, api.AllocateResponse).container_responses
        return one

    def watch(self) -> Watch:
        call = self.channel.unary_stream(
            "/v1beta1.DevicePlugin/ListAndWatch", api.Empty.SerializeToString, api.ListAndWatchResponse.FromString
        )
        return Watch(call(api.Empty(), wait_for_ready=True))


class Watch:
    """The lists that a plugin sends, as they come."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.lists: queue.Queue[dict[str, str]] = queue.Queue()
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(grpc.RpcError):
            for answer in self.stream:
                self.lists.put({each.ID: each.health for each in answer.devices})
        self.ended.set()

    def next(self) -> dict[str, str]:
        return self.lists.get(timeout=WAIT)

    def sick(self) -> list[str]:
        """Those of the next list that are not healthy."""
        return [name for name, health in self.next().items() if health != "Healthy"]


class ClassicKubelet:
    """kubelet.sock of the classic directory; like the real one it empties the directory when it starts, unless told."""

    def __init__(self, directory: Path, *, empties: bool = True) -> None:
        for left in directory.iterdir():
            if empties or left.name == "kubelet.sock":
                left.unlink()
        self.directory = directory
        self.registered: queue.Queue[api.RegisterRequest] = queue.Queue()
        handler = grpc.unary_unary_rpc_method_handler(
            self._register, api.RegisterRequest.FromString, api.Empty.SerializeToString
        )
        service = grpc.method_handlers_generic_handler("v1beta1.Registration", {"Register": handler})
        self.server = grpc.server(ThreadPoolExecutor(4), handlers=[service])
        self.server.add_insecure_port(f"unix:{directory / 'kubelet.sock'}")
        self.server.start()

    def _register(self, request: api.RegisterRequest, context: grpc.ServicerContext) -> api.Empty:
        # As the real one: the plugin must answer while it registers.
        Caller(self.directory / request.endpoint).options()
        self.registered.put(request)
        return api.Empty()

    def stop(self) -> None:
        self.server.stop(0).wait()


class Plugin:
    """`python -m deviceplugin` over a folder of devices that are links to /dev/null."""

    def __init__(self, folder: Path, *flags: str, sockets: Path | None = None, devices: int = 8) -> None:
        self.devices = folder / "dev"
        self.sockets = sockets or folder / "s"
        for each in (self.devices, self.sockets):
            each.mkdir(exist_ok=True)
        for number in range(devices):
            self.plug(number)
        self.log_file = folder / f"plugin-{time.monotonic_ns()}.log"
        command = [
            *(sys.executable, "-m", "deviceplugin", f"--device-path={self.devices}/tcaicard", "--metrics-port=0"),
            *(f"--socket-directory={self.sockets}", "--poll-seconds=0.1", "--retry-seconds=0.2", *flags),
        ]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    @property
    def socket(self) -> Path:
        return self.sockets / NAME

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def plug(self, number: int) -> None:
        (self.devices / f"tcaicard{number}").unlink(missing_ok=True)
        (self.devices / f"tcaicard{number}").symlink_to("/dev/null")

    def unplug(self, number: int) -> None:
        (self.devices / f"tcaicard{number}").unlink()

    def said(self, pattern: str) -> re.Match[str]:
        return wait_for(lambda: re.search(pattern, self.log))

    def caller(self) -> Caller:
        wait_for(self.socket.exists)
        return Caller(self.socket)

    def get(self, path: str) -> tuple[int, str]:
        port = int(self.said(r"metrics on port (\d+)")[1])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=WAIT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metric(self, line: str) -> bool:
        return line in self.get("/metrics")[1].splitlines()

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(WAIT)


@contextlib.contextmanager
def plugin(folder: Path, *flags: str, sockets: Path | None = None, devices: int = 8) -> Iterator[Plugin]:
    """A plugin that is ended at the end, whatever happens."""
    process = Plugin(folder, *flags, sockets=sockets, devices=devices)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)
