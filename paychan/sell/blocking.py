"""The till for threads: WSGI, Flask, Django. Each thread has connections of its own, and asks for one sale at a time."""

import os
import socket
import ssl
import threading
import time
from typing import Any, TypeVar

from ..rpc.connection import reachable
from .challenges import Challenges
from .facts import Answer, Decision, Headers, Price, Request, Sale, Sign
from .rules import Rules
from .steps import UNSENT, Ask, Await, Call, Do, Pause, Step, Steps, Told
from .wire import ANSWER_BYTES_MAX, ANSWER_SECONDS, SALES, SLOW_SECONDS, Door, dumps, list_of, read_answer, read_answers

T = TypeVar("T")


class BlockingDoor:
    """A connection to the door, of one thread."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._socket: socket.socket | None = None
        self._pid = 0
        self._is_sent = False

    def ask(self, sales: tuple[dict[str, Any], ...]) -> list[Told] | None:
        """Ask for sales, in order; return what each was answered, UNSENT if nobody heard them; None: unknown."""
        answer = self._exchange("POST", SALES, list_of([dumps(sale) for sale in sales]), ANSWER_SECONDS)
        if answer is None:
            return None if self._is_sent else [UNSENT] * len(sales)
        return read_answers(*answer, len(sales))

    def call(self, method: str, target: str) -> Told | None:
        """Make another request; return its answer, None: unknown."""
        answer = self._exchange(method, target, b"", SLOW_SECONDS)
        return None if answer is None else read_answer(*answer)

    def _exchange(self, method: str, target: str, body: bytes, seconds: float) -> tuple[int, bytes] | None:
        """Send one request and return its answer. A connection that the other side has ended meanwhile is tried anew, once."""
        deadline = time.monotonic() + seconds
        self._is_sent = False
        for is_last in (False, True):
            had = self._socket is not None and self._pid == os.getpid()
            answer = None
            try:
                connection = self._connection(deadline)
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                self._is_sent = True  # a part of it, at least, may be
                connection.sendall(self._door.render(method, target, body))
                answer = self._receive(connection, deadline)
                return answer
            except (OSError, ValueError):
                if is_last or not had:
                    return None
            finally:
                if answer is None:
                    self.close()
        return None

    def _connection(self, deadline: float) -> socket.socket:
        if self._socket is not None and self._pid == os.getpid():  # one from before a fork is the parent's
            return self._socket
        door, seconds = self._door, max(deadline - time.monotonic(), 0.001)
        door.approach()
        if door.server is None:
            made = socket.socket(socket.AF_UNIX)
            made.settimeout(seconds)
            try:
                with reachable(door.socket) as path:
                    made.connect(path)
            except BaseException:
                made.close()
                raise
        else:
            made = socket.create_connection((door.server.host, door.server.port), seconds)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if door.server.is_tls:
                made = ssl.create_default_context(cafile=door.ca_file or None).wrap_socket(made, server_hostname=door.server.host)
        self._socket, self._pid = made, os.getpid()
        return made

    def _receive(self, connection: socket.socket, deadline: float) -> tuple[int, bytes]:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._read(connection, deadline)
        head = data[:end].lower()
        if not head.startswith(b"http/1.1 "):
            raise ValueError("not HTTP/1.1")
        at = head.index(b"\r\ncontent-length:") + 17
        stop = head.find(b"\r\n", at)
        size = int(head[at:] if stop < 0 else head[at:stop])
        while len(data) < end + 4 + size:
            data += self._read(connection, deadline)
            if len(data) > ANSWER_BYTES_MAX:
                raise ValueError("the answer is too long")
        if b"\r\nconnection: close" in head:
            self.close()
        return int(head[9:12]), data[end + 4 : end + 4 + size]

    def _read(self, connection: socket.socket, deadline: float) -> bytes:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        data = connection.recv(1 << 16)
        if not data:
            raise ConnectionResetError("the door has closed")
        return data

    def close(self) -> None:
        """End the connection."""
        if self._socket is not None:
            if self._pid == os.getpid():
                self._socket.close()
            self._socket = None


class Till:
    """See facts.py: the same as `till.Till`, blocking. Threads may share it."""

    def __init__(self, door: Door, realm: str = "paychan", secret: bytes = b"", sign: Sign | None = None) -> None:
        self._door, self._threads = door, threading.local()
        challenges = Challenges(lambda: secret or door.secret, realm)
        self._rules = Rules(challenges, time.time, time.monotonic, door.explain, sign)

    def decide(self, request: Request, price: Price) -> Decision:
        """Return the Answer that a request gets, or the Sale that it bought."""
        return self._drive(self._rules.decide(request, price))

    def manage(self, request: Request) -> Answer | None:
        """Return the answer to a request that handles a channel and buys nothing, whatever its price; None for any other."""
        return self._drive(self._rules.manage(request))

    def finish(self, sale: Sale, status: int) -> Headers | Answer:
        """Say that a sale is about to be answered with this status; return the headers to add."""
        return self._drive(self._rules.finish(sale, status))

    def failed(self, sale: Sale) -> None:
        """Give a sale back that was not served."""
        self._drive(self._rules.failed(sale))

    @property
    def rules(self) -> Rules:
        """What decides; for streams, which drive it themselves."""
        return self._rules

    def keep(self, sale: Sale, answer: Answer) -> None:
        """Keep the answer for who asks again."""
        self._rules.keep(sale, answer)

    def forget(self, sale: Sale) -> None:
        """Keep no answer."""
        self._rules.forget(sale)

    def _drive(self, steps: Steps[T]) -> T:
        result: Any = None
        try:
            while True:
                result = self.do(steps.send(result))
        except StopIteration as stop:
            returned: T = stop.value
            return returned
        finally:
            steps.close()

    def do(self, step: Step) -> Any:
        """Do one step of the rules; return its result."""
        if isinstance(step, Ask):
            return self._connection.ask(step.sales)
        if isinstance(step, Call):
            return self._connection.call(step.method, step.target)
        if isinstance(step, Do):
            return step.done()
        if isinstance(step, Await):
            try:
                return step.future.result(step.seconds)
            except TimeoutError:
                return None
        if isinstance(step, Pause):
            time.sleep(step.seconds)
        return None

    @property
    def _connection(self) -> BlockingDoor:
        found: BlockingDoor | None = getattr(self._threads, "door", None)
        if found is None:
            found = self._threads.door = BlockingDoor(self._door)
        return found
