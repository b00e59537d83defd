"""Connections to one server, blocking and asyncio: one request, one answer, within one timeout. They never follow redirects.

Any doubt about a connection's state closes it: an answer must never be read as that of another request.
"""

import asyncio
import socket
import ssl
import time

from .wire import NoReply, Reply, Server, WireError, parse_response, render_request

_READ_SIZE = 1 << 16


def reason(error: Exception) -> str:
    """Say why there was no answer, for people."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Connection:
    """A keep-alive connection that blocks."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._socket: socket.socket | None = None

    def exchange(self, method: str, target: str, timeout: float, body: bytes = b"") -> Reply | NoReply:
        """Send one request; return its answer. `timeout`: seconds for all of it, connecting included."""
        deadline = time.monotonic() + timeout
        is_sent, reply = False, None
        try:
            connection = self._socket or self._connect(timeout)
            self._socket = connection
            is_sent = True
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.sendall(render_request(self._server, method, target, body))
            reply = self._receive(connection, deadline)
            return reply
        except (OSError, WireError) as error:
            return NoReply(reason(error), is_sent)
        finally:
            if reply is None or not reply.keeps_alive:
                self.close()

    def _connect(self, timeout: float) -> socket.socket:
        server = self._server
        connection = socket.create_connection((server.host, server.port), timeout)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.is_tls:
                return ssl.create_default_context().wrap_socket(connection, server_hostname=server.host)
            return connection
        except BaseException:
            connection.close()
            raise

    def _receive(self, connection: socket.socket, deadline: float) -> Reply:
        data = bytearray()
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError
            connection.settimeout(remaining)
            piece = connection.recv(_READ_SIZE)
            data += piece
            reply = parse_response(bytes(data), is_ended=not piece)
            if reply is not None:
                return reply

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class AsyncConnection:
    """The same, for asyncio. One exchange at a time; a cancelled one closes the connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def exchange(self, method: str, target: str, timeout: float, body: bytes = b"") -> Reply | NoReply:
        """Send one request; return its answer. `timeout`: seconds for all of it, connecting included."""
        is_sent, reply = False, None
        try:
            async with asyncio.timeout(timeout):
                if self._streams is None:
                    self._streams = await self._connect()
                reader, writer = self._streams
                is_sent = True
                writer.write(render_request(self._server, method, target, body))
                await writer.drain()
                reply = await self._receive(reader)
                return reply
        except (OSError, WireError) as error:
            return NoReply(reason(error), is_sent)
        finally:
            if reply is None or not reply.keeps_alive:
                self.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        server = self._server
        context = ssl.create_default_context() if server.is_tls else None
        return await asyncio.open_connection(server.host, server.port, ssl=context)

    async def _receive(self, reader: asyncio.StreamReader) -> Reply:
        data = bytearray()
        while True:
            piece = await reader.read(_READ_SIZE)
            data += piece
            reply = parse_response(bytes(data), is_ended=not piece)
            if reply is not None:
                return reply

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
