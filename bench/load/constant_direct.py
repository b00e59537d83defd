"""H of a worker's own port: `python -m bench.load.constant_direct PORT` answers each complete request head with one constant.

`make_protocol` is what stands in for the server's own-port protocol.
"""

import asyncio
import sys
from email.utils import formatdate

import uvloop

from bench.load.constant import BODY, HEADERS

FIELDS = [("date", formatdate(usegmt=True)), *HEADERS, ("content-length", str(len(BODY)))]
HEAD = "".join(f"{name}: {value}\r\n" for name, value in FIELDS)
ANSWER = b"HTTP/1.1 200 OK\r\n" + HEAD.encode() + b"\r\n" + BODY


class ConstantProtocol(asyncio.Protocol):
    """Counts blank lines: requests have no body here."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        if heads and self._transport:
            self._transport.write(ANSWER * len(heads))


def make_protocol() -> asyncio.Protocol:
    """Return the protocol of one connection."""
    return ConstantProtocol()


async def serve(port: int) -> None:
    """Serve on loopback until the process is stopped."""
    server = await asyncio.get_running_loop().create_server(make_protocol, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
