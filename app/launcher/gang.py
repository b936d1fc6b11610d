"""The heartbeat between the launchers of one gang, over TCP: node 0 listens, the others dial.

Every line is one JSON object of at most LINE bytes: {"gang", "node", "boot", "devices", "complete", "code", "failure",
"uneven"}. A line of another gang ends the connection, so that a stranger on the same port disturbs nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
import threading
import time
from typing import Any

from app.launcher.roster import Roster, Trouble

SILENCE_SECONDS = 45.0
"""A peer that says nothing for so long is lost. A network cut of 20 s, which TCP itself survives, must not count."""

LINE = 2048
_LONGEST = 300
_GOODBYE_SECONDS = 5.0


class Gang:
    """This launcher's end of the gang; it lives in a thread of its own.

    Args:
        key: what the launchers of one gang, and only they, have in common.
        node: this node's rank.
        nodes: how many there are.
        devices: how many ranks this launcher starts; all must start as many.
        address: where node 0 is; a name that may not resolve yet.
        port: on node 0.
        listener: the listening socket, on node 0 only.
        silence: seconds without a word after which a peer is lost; a word is sent 15 times as often.
    """

    def __init__(
        self,
        key: str,
        *,
        node: int,
        nodes: int,
        devices: int,
        address: str,
        port: int,
        listener: socket.socket | None = None,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        self._key = key
        self._node = node
        self._nodes = nodes
        self._devices = devices
        self._address = address
        self._port = port
        self._listener = listener
        self._interval = silence / 15
        self._roster = Roster(node, devices, range(1, nodes) if node == 0 else [0], silence)
        self._boot = secrets.token_hex(8)
        self._code: int | None = None
        self._obstacle = ""
        self._resolved = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._over = asyncio.Event()
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), name="gang")
        self._thread.daemon = True

    def start(self) -> None:
        """Begins to listen or to dial."""
        self._thread.start()

    @property
    def complete(self) -> bool:
        """Whether all nodes have met."""
        with self._lock:
            return self._roster.sealed

    def trouble(self, now: float, awake_since: float = 0.0) -> Trouble | None:
        """See Roster.trouble."""
        with self._lock:
            return self._roster.trouble(now, awake_since)

    def absence(self) -> str:
        """Who is not there yet and why, in words that name address and port."""
        with self._lock:
            missing = self._roster.missing(time.monotonic())
        if self._node:
            why = self._obstacle or "the other nodes have not all reached it"
            return f"node 0 at {self._address}, --gang_port {self._port}: {why}"
        if missing:
            nodes = ", ".join(map(str, missing[:10])) + (", …" if len(missing) > 10 else "")
            why = f" ({self._obstacle})" if self._obstacle else ""
            return f"node {nodes} did not reach node 0 at {self._address}, --gang_port {self._port}{why}"
        return f"--master_addr {self._address}: {self._obstacle or 'does not resolve'}"

    def end(self, code: int) -> None:
        """Tells the peers how this node ended, hears them out for a moment and closes."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._finish(code), self._loop).result()
        self._thread.join()
        self._loop.close()

    # In the thread of the loop from here on.

    async def _run(self) -> None:
        server = None
        work = [self._tick()]
        if self._listener is not None:
            server = await asyncio.start_server(self._serve, sock=self._listener, limit=LINE)
            work.append(self._resolve())
        else:
            work.append(self._dial())
        tasks = {asyncio.ensure_future(one) for one in work}  # kept: asyncio itself holds tasks weakly
        await self._over.wait()
        if server is not None:
            server.close()
        pending = (tasks | asyncio.all_tasks()) - {asyncio.current_task()}
        while pending:
            # Again and again: before Python 3.12 wait_for swallows a cancellation that comes just when it is done.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.05)

    async def _finish(self, code: int) -> None:
        self._code = code
        deadline = time.monotonic() + _GOODBYE_SECONDS
        # A client that is just between two connections waits for the next one, if node 0 can still care.
        while self._node and self.complete and not self._writers and not self._roster.ended(0):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        self._broadcast()
        # Only this direction is closed: closing both while words are still coming in would make TCP drop the last one.
        for writer in list(self._writers):
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()
        while self._writers and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        self._over.set()

    def _word(self) -> bytes:
        word = {
            "gang": self._key,
            "node": self._node,
            "boot": self._boot,
            "devices": self._devices,
            "complete": self._roster.sealed,
            "code": self._code,
            "failure": self._roster.failure(),
            "uneven": self._roster.uneven,
        }
        return json.dumps(word).encode() + b"\n"

    def _broadcast(self) -> None:
        with self._lock:
            word = self._word()
        for writer in list(self._writers):
            with contextlib.suppress(OSError, RuntimeError):
                writer.write(word)

    async def _tick(self) -> None:
        while True:
            self._seal()
            self._broadcast()
            await asyncio.sleep(self._interval)

    def _seal(self) -> None:
        with self._lock:
            there = self._resolved and not self._roster.missing(time.monotonic())
            if self._node == 0 and there and not self._roster.uneven:
                self._roster.sealed = True

    async def _resolve(self) -> None:
        """Node 0's own ranks need its name as well; a headless service's appears late."""
        while not self._resolved:
            try:
                await self._loop.getaddrinfo(self._address, self._port)
                self._resolved = True
            except OSError as error:
                self._obstacle = f"does not resolve ({error.strerror})"
                await asyncio.sleep(min(1.0, self._interval))

    async def _dial(self) -> None:
        while not self._roster.ended(0):
            try:
                opening = asyncio.open_connection(self._address, self._port, limit=LINE)
                reader, writer = await asyncio.wait_for(opening, 4 * self._interval)
            except socket.gaierror as error:
                self._obstacle = f"the name does not resolve ({error.strerror})"
            except asyncio.TimeoutError:
                self._obstacle = "no answer"
            except OSError as error:
                self._obstacle = f"can't be reached ({error.strerror or error})"
            else:
                self._greet(writer)
                await self._listen(reader, writer)
            await asyncio.sleep(min(1.0, self._interval))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._writers) > 2 * self._nodes + 16:
            writer.close()
            return
        try:
            line = await asyncio.wait_for(reader.readline(), 2 * self._interval)
        except (OSError, ValueError, asyncio.TimeoutError):
            writer.close()
            return
        if not self._hear(line):
            with contextlib.suppress(OSError):
                writer.write(json.dumps({"gang": self._key}).encode() + b"\n")
            writer.close()
            return
        self._seal()
        self._greet(writer)
        await self._listen(reader, writer)

    def _greet(self, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._broadcast()

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hears one peer until it closes, talks nonsense, or says nothing for several words' time."""
        try:
            while True:
                line = await asyncio.wait_for(reader.readline(), 4 * self._interval)
                if not line or not self._hear(line):
                    return
        except (OSError, ValueError, asyncio.TimeoutError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    def _hear(self, line: bytes) -> bool:
        """Notes one line; False where it is not of this gang."""
        word = parse(line)
        if word is None:
            return False
        if word["gang"] != self._key:
            self._obstacle = f"there is another gang ({word['gang'][:200]!r})"
            return False
        node, boot, code, devices = word.get("node"), word.get("boot"), word.get("code"), word.get("devices")
        if not (type(node) is int and 0 <= node < self._nodes and node != self._node):
            return False
        if not (isinstance(boot, str) and type(devices) is int):
            return False
        with self._lock:
            ours = self._roster.heard(node, boot, time.monotonic(), devices, code if type(code) is int else None)
            if ours and node == 0:
                self._obstacle = ""
                self._hear_node_0(word)
        return True

    def _hear_node_0(self, word: dict[str, Any]) -> None:
        if word.get("complete") is True:
            self._roster.sealed = True
        if isinstance(uneven := word.get("uneven"), str):
            self._roster.uneven = self._roster.uneven or uneven[:_LONGEST]
        failure = word.get("failure")
        if isinstance(failure, list) and len(failure) == 2 and all(type(part) is int for part in failure):
            node, code = failure
            if node != self._node:
                self._roster.told(node, code)


def parse(line: bytes) -> dict[str, Any] | None:
    """The object in a line, None where there is none or it names no gang."""
    try:
        word = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return word if isinstance(word, dict) and isinstance(word.get("gang"), str) else None
