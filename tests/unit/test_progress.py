"""Progress documents: every byte comes from a stranger."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.progress import (
    MAX_BYTES,
    MAX_TEXT,
    Identity,
    Progress,
    ProgressError,
    from_termination,
    parse,
    read,
)
from tests.unit.documents import progress

IDENTITY = Identity("team", "digits", 1)


def raw(**values):
    return json.dumps(progress(**values)).encode()


def test_a_document_is_read_field_by_field():
    document = parse(
        raw(step=7, loss=0.25, top1=0.5, eta_seconds=12, last_checkpoint=5, exported="/c/model.onnx", unknown=[1]),
        IDENTITY,
    )
    assert document.step == 7
    assert (document.straggler_rank, document.straggler_ratio) == (None, None)
    assert (document.loss, document.top1, document.eta_seconds) == (0.25, 0.5, 12.0)
    assert (document.last_checkpoint, document.exported, document.best_top1) == (5, "/c/model.onnx", None)


def test_a_straggler_is_read():
    document = parse(raw(straggler_rank=5, straggler_ratio=1.6), IDENTITY)
    assert (document.straggler_rank, document.straggler_ratio) == (5, 1.6)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 60_000, "no JSON"),
        (b'{"attempt": ' + b"9" * 10_000 + b"}", "no JSON"),
        (b"[]", "object"),
        (b"{}", "namespace is missing"),
        (b" " * (MAX_BYTES + 1), "longer than"),
        (raw(attempt=True), "attempt must be a whole number"),
        (raw(attempt=1.0), "attempt must be a whole number"),
        (raw(step=-1), "step must be"),
        (raw(step=2**60), "step must be"),
        (raw(step="7"), "step must be"),
        (raw(top1=1.01), "top1 must be"),
        (raw(top1=True), "top1 must be"),
        (raw(phase="dancing"), "phase must be one of"),
        (raw(phase=["train"]), "phase must be one of"),
        (raw(loss="low"), "loss must be"),
        (raw(message=7), "message must be text"),
        (raw(reason="two words"), "reason must be one word"),
        (raw(eta_seconds=-1), "eta_seconds must be"),
        (raw(straggler_rank=-1), "straggler_rank must be"),
        (raw(straggler_ratio="slow"), "straggler_ratio must be"),
        (raw(loss=math.nan), "NaN"),
        (raw(loss=math.inf), "Infinity"),
        (raw().replace(b'"step": 10', b'"loss": 1e999'), "loss must be finite"),
        (raw(attempt=2), "attempt 2"),
        (raw(experiment="other"), "team/other"),
        (raw(namespace="other"), "other/digits"),
    ],
)
def test_a_bad_document_is_refused_with_one_line(bad, said):
    with pytest.raises(ProgressError) as error:
        parse(bad, IDENTITY)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_text_is_cleaned_and_cut():
    document = parse(raw(message="a\r\nb\x1b[31m\u202e" + "x" * 5000), IDENTITY)
    assert document.message.startswith("a b [31m x")
    assert len(document.message) == MAX_TEXT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([f.name for f in fields(Progress)]), JSON))
def test_whatever_comes_is_refused_or_fits_into_json(values):
    try:
        document = parse(raw(**values), IDENTITY)
    except ProgressError:
        return
    text = json.dumps(vars(document), allow_nan=False)
    assert len(text) < 16_384


def test_a_termination_message_is_read_or_is_none():
    last = from_termination(json.dumps(progress(exit_code=66, reason="DataMissing", message="no folder")))
    assert (last.exit_code, last.reason, last.message) == (66, "DataMissing", "no folder")
    assert from_termination("Killed\n") is None
    assert from_termination("") is None
    assert from_termination(json.dumps(progress(attempt=2)), IDENTITY) is None


class Peer:
    """A server of one answer; `answer` gets the connection."""

    def __init__(self, answer):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self._serve, args=(answer,))

    def _serve(self, answer):
        connection, _ = self.server.accept()
        with connection:
            connection.recv(4096)
            with contextlib.suppress(OSError):  # the reader may have hung up, as it should
                answer(connection)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.thread.join()
        self.server.close()


def ask(answer, timeout=5.0):
    with Peer(answer) as peer:
        return read("127.0.0.1", peer.port, IDENTITY, timeout)


def http(body, head=b"HTTP/1.1 200 OK\r\n"):
    return lambda connection: connection.sendall(head + b"\r\n" + body)


def test_an_answer_is_read():
    reading = ask(http(raw(step=3)))
    assert reading.answered
    assert reading.document.step == 3


def test_a_chunked_answer_is_read():
    body = raw()
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert ask(http(chunk, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n")).answered


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (http(raw(attempt=2)), "attempt 2"),
        (http(b"", b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/progress\r\n"), "HTTP status 302"),
        (http(b"", b"HTTP/1.1 500 Oops\r\n"), "HTTP status 500"),
        (http(raw(), b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n"), "IncompleteRead"),
        (http(b"x" * 10_000_000), "longer than"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "SSH"),
        (lambda _: None, "/progress"),
    ],
)
def test_a_bad_answer_is_none(answer, said):
    reading = ask(answer)
    assert (reading.answered, reading.document) == (False, None)
    assert said in reading.why


def test_a_slow_drip_ends_at_the_time_out():
    hung_up = threading.Event()

    def drip(connection):
        try:
            for _ in range(600):
                connection.sendall(b"H")
                time.sleep(0.05)
        finally:
            hung_up.set()

    reading = ask(drip, timeout=0.3)
    assert not reading.answered
    assert "did not answer in 0.3 s" in reading.why
    assert hung_up.is_set()


def test_nobody_there_is_no_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "refused" in read("127.0.0.1", port, IDENTITY).why.lower()


def test_a_host_that_is_no_address_is_not_looked_up():
    assert not read("progress.example.com", 80, IDENTITY).answered
