"""The port that Prometheus asks: a process of its own, which reads the counts' file and nothing else of the system.

So it answers while workers are busy, stopped or dead, and nobody who asks it can cost a payment anything but processor time. One
request a connection; whoever is slow, or says what is not HTTP, is dropped.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from ..core.errors import ConfigError
from ..rpc.connection import Address, bind
from ..settings.models import ServerConfig
from . import exposition, file

PATH = "/metrics"
CONNECTIONS_MAX = 64
"""Prometheus has one; more are closed at once."""

HEAD_SIZE_MAX = 8192
REQUEST_SECONDS_MAX = 5.0
"""For a request's head, and again for its answer to be taken."""

KEPT_SECONDS = 0.2
"""A text is shown to all who ask within this time: it takes some milliseconds to make."""

log = logging.getLogger("paychan.metrics")


class MetricsServer:
    """Made on a running event loop."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._machine = config.cluster.machine if config.cluster is not None else ""
        self._connections = 0
        self._kept: dict[bool, tuple[float, bytes]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises ConfigError if the address is no good."""
        metrics = self._config.metrics
        address = Address(path=str(metrics.socket)) if metrics.socket is not None else Address(host=metrics.host, port=metrics.port)
        try:
            listener = await self._listen(address)
        except OSError as error:
            raise ConfigError(f"{self._config.common.source}: metrics.listen: {address}: {error.strerror}") from error
        log.info("metrics at %s, path %s", address, PATH)
        async with listener:
            await stop.wait()

    async def _listen(self, address: Address) -> asyncio.Server:
        if address.path:
            Path(address.path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return await asyncio.start_unix_server(self._serve, sock=bind(address), limit=HEAD_SIZE_MAX)
        return await asyncio.start_server(self._serve, sock=bind(address), limit=HEAD_SIZE_MAX)

    # --- HTTP ---

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_SECONDS_MAX):
                    head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                async with asyncio.timeout(REQUEST_SECONDS_MAX):
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # gone, slow, or no HTTP: nobody is told
        finally:
            self._connections -= 1
            with contextlib.suppress(RuntimeError):  # the loop has ended
                writer.transport.abort()

    def _answer(self, head: bytes) -> bytes:
        line, _, fields = head.partition(b"\r\n")
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response("400 Bad Request", b"")
        if words[0] not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"", "allow: GET, HEAD\r\n")
        if words[1].partition(b"?")[0] != PATH.encode():
            return _response("404 Not Found", b"")
        is_open = any(
            name.strip().lower() == b"accept" and b"application/openmetrics-text" in value
            for name, _, value in (field.partition(b":") for field in fields.split(b"\r\n"))
        )
        try:
            body = self._text(is_open)
        except OSError as error:
            log.warning("there is nothing to show: %s", error)
            return _response("503 Service Unavailable", b"")
        kind = exposition.OPENMETRICS if is_open else exposition.CLASSIC
        return _response("200 OK", body, f"content-type: {kind}\r\n", is_head=words[0] == b"HEAD")

    def _text(self, is_open: bool) -> bytes:
        """Return the text, as it is or was a moment ago. Raises OSError."""
        made_at, text = self._kept.get(is_open, (float("-inf"), b""))
        if time.monotonic() - made_at >= KEPT_SECONDS:
            labels = {"network": self._config.common.network.name}
            slots = file.read_all(self._config.common.state_dir, self._config.store)
            text = exposition.expose(slots, labels, self._machine, is_open)
            self._kept[is_open] = time.monotonic(), text
        return text


def _response(status: str, body: bytes, fields: str = "", is_head: bool = False) -> bytes:
    head = f"HTTP/1.1 {status}\r\n{fields}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode() + (b"" if is_head else body)
