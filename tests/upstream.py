"""An upstream for tests: a server of its own, over real sockets, that tells what it was asked and misbehaves on request.

`python -m tests.upstream PORT`. It reads requests itself, byte by byte, so that a test sees exactly what came over the wire.
"""

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass
class Asked:
    """One request as it came. `line`: method, target, version."""

    line: list[str]
    headers: list[list[str]] = field(default_factory=list)
    body: bytes = b""

    def value(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def path(self) -> str:
        return self.line[1].partition("?")[0]


class Upstream:
    """Answers by path; `/log` tells all that was asked before, and forgets it."""

    def __init__(self) -> None:
        self.asked: list[dict] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while asked := await self._read(reader):
                if asked.path not in ("/log", "/peek"):
                    self.asked.append({"line": asked.line, "headers": asked.headers, "size": len(asked.body)})
                if not await self._answer(asked, reader, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.asked.append({"line": ["broken", type(error).__name__]})
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        if not (line := await reader.readline()):
            return None
        asked = Asked(line.decode("latin-1").split())
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            asked.headers.append([name, value.strip()])
        if size := int(asked.value("content-length") or 0):
            if asked.path == "/early":
                return asked
            asked.body = await reader.readexactly(size)
        return asked

    async def _answer(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer; return whether the connection goes on."""
        name = asked.path.strip("/").split("/")[0]
        answer: Callable[..., Awaitable[bool]] = getattr(self, f"on_{name}", self.on_anything)
        return await answer(asked, reader, writer)

    async def _send(self, writer: asyncio.StreamWriter, status: str, body: bytes, *headers: str, length: int | None = None) -> bool:
        lines = [f"HTTP/1.1 {status}", *headers]
        if length != -1:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        return True

    async def on_anything(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        told = json.dumps({"line": asked.line, "headers": asked.headers, "body": asked.body.decode("latin-1")}).encode()
        headers = ("Content-Type: application/json", "X-Upstream: yes", "Set-Cookie: a=1", "Set-Cookie: b=2")
        if asked.line[0] == "HEAD":
            return await self._send(writer, "200 OK", b"", *headers, length=len(told))
        return await self._send(writer, "200 OK", told, *headers)

    async def on_log(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        body, self.asked = json.dumps(self.asked).encode(), []
        return await self._send(writer, "200 OK", body)

    async def on_peek(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        return await self._send(writer, "200 OK", json.dumps(self.asked).encode())

    async def on_status(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        number = asked.path.rpartition("/")[2]
        if number in ("204", "304"):
            return await self._send(writer, f"{number} Something", b"", 'ETag: "x"', length=-1)
        return await self._send(writer, f"{number} Something", b"told so")

    async def on_headers(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        return await self._send(
            writer, "200 OK", b"ok", "Connection: X-Hop, keep-alive", "X-Hop: 1", "Keep-Alive: timeout=5", "Trailer: X-After",
            "Payment-Receipt: forged", 'WWW-Authenticate: Payment id="forged"', "WWW-Authenticate: Basic realm=x", "X-Kept: yes",
        )  # fmt: skip

    async def on_letters(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        writer.write("HTTP/1.1 200 OK\r\nX-Utf: \u65e5\r\nX-Kept: yes\r\n".encode())
        writer.write(b"X-Latin: \xe9\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()
        return True

    async def on_hints(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        return await self._send(writer, "200 OK", b"after hints")

    async def on_drop(self, asked: Asked, *_: object) -> bool:
        return False

    async def on_silent(self, asked: Asked, *_: object) -> bool:
        await asyncio.sleep(3600)
        return False

    async def on_early(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, "413 Too much", b"too much", "Connection: close")
        return False

    async def on_short(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        """Break off in an answer of known length: /short/SENT/LENGTH. A long one is begun for a while."""
        sent, length = map(int, asked.path.split("/")[2:4])
        await self._send(writer, "200 OK", b"x" * sent, length=length)
        await asyncio.sleep(0.5 if sent > 65536 else 0)
        return False

    async def on_cut(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        """Break off in a chunked answer, after /cut/PIECES pieces."""
        await self._send(writer, "200 OK", b"", "Transfer-Encoding: chunked", length=-1)
        for _number in range(int(asked.path.split("/")[2])):
            writer.write(b"5\r\nhello\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
        return False

    async def on_big(self, asked: Asked, _: object, writer: asyncio.StreamWriter) -> bool:
        """Answer with /big/BYTES bytes; tell in the log how many were taken when the connection broke."""
        size = sent = int(asked.path.split("/")[2])
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        entry = {"line": ["sent", "0"]}
        self.asked.append(entry)
        sent = 0
        while sent < size:
            piece = b"b" * min(65536, size - sent)
            writer.write(piece)
            await writer.drain()
            sent += len(piece)
            entry["line"] = ["sent", str(sent)]
        return True

    async def on_events(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send /events/COUNT events, 20 ms apart or as many seconds as X-Pause says; 0: for ever."""
        pause = float(asked.value("x-pause") or 0.02)
        count = int(asked.path.rpartition("/")[2])
        status = "404 Not Found" if "refused" in asked.path else "200 OK"
        await self._send(writer, status, b"", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", length=-1)
        number = 0
        while not count or number < count:
            number += 1
            event = f"id: {number}\ndata: event {number}\n\n".encode()
            writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await writer.drain()
            await asyncio.sleep(pause)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    async def on_echo(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """A WebSocket that says each short message again; `close` ends it. /echo/many/COUNT sends COUNT messages unasked."""
        key = asked.value("sec-websocket-key").encode()
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        if not key:
            return await self._send(writer, "200 OK", b"no handshake")
        lines = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}")
        await self._send(writer, "101 Switching Protocols", b"", *lines, length=-1)
        parts = asked.path.split("/")
        for number in range(int(parts[3]) if len(parts) > 3 else 0):
            text = f"message {number + 1}".encode()
            writer.write(bytes([0x81, len(text)]) + text)
            await writer.drain()
        while True:
            first, second = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(await reader.readexactly(second & 0x7F)))
            if first & 0x0F == 8 or data == b"close":
                writer.write(b"\x88\x02\x03\xe8")
                await writer.drain()
                return False
            writer.write(bytes([first, len(data)]) + data)
            await writer.drain()


async def main(port: int) -> None:
    server = await asyncio.start_server(Upstream().serve, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
