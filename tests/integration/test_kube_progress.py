"""/progress of pods that lie, hang, flood or send the reader elsewhere: it is a condition, and harms nobody else."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.kube import Namespace, OperatorProcess, operator, wait_for

Answer = Callable[[socket.socket, bytes], None]


@pytest.fixture(scope="module", autouse=True)
def running(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """One operator for all of them; four pods are asked at a time."""
    with operator(kubeconfig, tmp_path_factory.mktemp("operator"), "--progress-readers", "4") as process:
        yield process.leading()
        assert "Traceback" not in process.log
        assert process.process.poll() is None


class Endpoint:
    """A port where each connection is answered by `answer` (connection, a good document)."""

    def __init__(self, answer: Answer) -> None:
        self.asked = 0
        self.document = b"{}"
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.asked += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            connection.recv(65_536)
            self._answer(connection, self.document)


@pytest.fixture
def endpoint() -> Iterator[Callable[[Answer], Endpoint]]:
    made: list[Endpoint] = []

    def make(answer: Answer) -> Endpoint:
        made.append(Endpoint(answer))
        return made[-1]

    yield make
    for each in made:
        each.close()


def good(connection: socket.socket, document: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + document)


def hangs(connection: socket.socket, document: bytes) -> None:
    time.sleep(30)


def drips(connection: socket.socket, document: bytes) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n\r\n" + document:
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def floods(connection: socket.socket, document: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + document[:-1] + b', "x": "')
    while True:
        connection.sendall(b"a" * 65_536)


def floods_headers(connection: socket.socket, document: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-A: b\r\n" * 1000)


def closes(connection: socket.socket, document: bytes) -> None:
    connection.close()


def fails(connection: socket.socket, document: bytes) -> None:
    connection.sendall(b"HTTP/1.1 500 Oops\r\n\r\n" + document)


def raw(body: bytes) -> Answer:
    return lambda connection, _: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body)


def says(**lies: object) -> Answer:
    def answer(connection: socket.socket, document: bytes) -> None:
        good(connection, json.dumps(json.loads(document) | lies).encode())

    return answer


def begin(team: Namespace, name: str, endpoint: Endpoint) -> None:
    """An experiment whose pod runs, and that would stall if its answers were taken for ones."""
    endpoint.document = team.words(name=name, step=10, loss=2.5).encode()
    ports = {"metrics": endpoint.port}
    team.create(name, nodes=1, podTemplate={"ports": ports}, faultTolerance={"stallTimeoutSeconds": 1})
    team.start(1, name=name)


BAD: dict[str, tuple[Answer, str]] = {
    "hangs": (hangs, "/progress did not answer in 2 s"),
    "drips": (drips, "/progress did not answer in 2 s"),
    "floods": (floods, "/progress is longer than 65536 bytes"),
    "floods headers": (floods_headers, "/progress is longer than 65536 bytes"),
    "closes": (closes, "/progress"),
    "fails": (fails, "/progress answered with HTTP status 500"),
    "is no HTTP": (lambda connection, _: connection.sendall(os.urandom(1000)), "/progress"),
    "is no JSON": (raw(b"<html>"), "/progress is no JSON"),
    "is deep": (raw(b"[" * 60_000), "/progress is no JSON"),
    "is a list": (raw(b"[]"), "/progress must be a JSON object"),
    "is not finite": (raw(b'{"loss": NaN}'), "/progress holds NaN, which is not JSON"),
    "lies about its name": (says(experiment="other"), "not of"),
    "lies about its namespace": (says(namespace="kube-system"), "not of"),
    "lies about its attempt": (says(attempt=7), "attempt 7, not of"),
    "has a phase of its own": (says(phase="mining"), "/progress phase must be one of"),
    "has text for a number": (says(step="10"), "/progress step must be a whole number"),
    "counts below nothing": (says(step=-1), "/progress step must be a whole number"),
    "is too good": (says(top1=1.5), "/progress top1 must be a number from 0 to 1"),
    "counts beyond all bounds": (says(last_checkpoint=10**400), "/progress"),
    "has a thing for text": (says(exported={"a": 1}), "/progress exported must be text"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_a_condition_that_says_what_was_wrong_and_never_a_restart(
    team: Namespace, endpoint: Callable[[Answer], Endpoint], kind: str
) -> None:
    answer, said = BAD[kind]
    found = endpoint(answer)
    begin(team, "digits", found)
    message = team.condition("ProgressReachable", "False", "Unreachable")["message"]
    assert said in message
    asked = found.asked
    wait_for(lambda: found.asked > asked)
    status = team.status()
    assert (status["phase"], status["attempt"], status["history"]) == ("Running", 1, [])
    assert {"step", "loss", "top1", "lastCheckpoint"} & set(status) == set()


def test_a_redirect_is_not_followed(team: Namespace, endpoint: Callable[[Answer], Endpoint]) -> None:
    other = endpoint(good)

    def redirects(connection: socket.socket, document: bytes) -> None:
        other.document = document
        where = f"http://127.0.0.1:{other.port}/progress"
        connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {where}\r\n\r\n".encode())

    found = endpoint(redirects)
    begin(team, "digits", found)
    message = team.condition("ProgressReachable", "False", "Unreachable")["message"]
    assert message == "/progress answered with HTTP status 302"
    wait_for(lambda: found.asked > 3)
    assert other.asked == 0


def test_many_that_hang_do_not_keep_the_others_from_being_heard(
    team: Namespace, endpoint: Callable[[Answer], Endpoint]
) -> None:
    hanging, honest = endpoint(hangs), endpoint(good)
    for number in range(8):
        begin(team, f"hangs-{number}", hanging)
    honest.document = team.words(name="digits", step=10).encode()
    team.create("digits", nodes=1, podTemplate={"ports": {"metrics": honest.port}})
    team.start(1)
    for step in (20, 30):
        honest.document = team.words(name="digits", step=step).encode()
        team.wait(lambda status, step=step: status.get("step") == step)


def test_text_from_a_pod_can_not_command_a_terminal(team: Namespace, endpoint: Callable[[Answer], Endpoint]) -> None:
    text = "\x1b]0;owned\x07\x1b[31m\u202e\n\rline " + "x" * 10_000
    begin(team, "digits", endpoint(says(phase="export", export_error=text)))
    message = team.condition("Exported", "False", "ExportFailed")["message"]
    assert message.isprintable()
    assert len(message) <= 4096
