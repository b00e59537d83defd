"""The client's connection as the kernel has it: granian has no way to say how much of an answer has arrived, or to break one off.

What is handed to granian is taken at once, however slow the client is, so a long answer must be paced from outside; and an
answer that ends early would be ended as if it were whole. Both need the socket: it is one of this process's, found by its two
addresses.
"""

import asyncio
import os
import socket
import stat
import struct
import time
from contextlib import suppress
from ipaddress import ip_address

from .refusals import Refused

UNPACED_BYTES = 256 * 1024
"""So much of an answer is sent without a look at the socket: most answers end before."""

AHEAD_BYTES_MAX = 1 << 20
"""So many bytes of an answer may wait for a slow client, beside what the kernel holds."""

_POLL_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1)
_ACKNOWLEDGED = struct.Struct("<120xQ")
"""`tcpi_bytes_acked` in Linux's `struct tcp_info`, since 4.1."""


class Wire:
    """One client's connection. client, server: ADDRESS:PORT as RSGI has them."""

    def __init__(self, client: str, server: str) -> None:
        self._addresses = (client, server)
        self._socket: socket.socket | None = None
        self._handed = 0
        self._base: int | None = None

    async def pace(self, size: int, idle_seconds: float) -> None:
        """Note that `size` bytes were handed to granian, and return when the client has taken enough of all that was. Raises
        `Refused` if it takes nothing for `idle_seconds`, or is gone."""
        self._handed += size
        if self._handed <= UNPACED_BYTES:
            return
        if self._base is None:
            self._socket = self._find()
            self._base, self._handed = self._acknowledged(), UNPACED_BYTES + size
        deadline, seen, polls = time.monotonic() + idle_seconds, 0, 0
        while (outstanding := self._outstanding()) > AHEAD_BYTES_MAX:
            if (arrived := self._acknowledged()) != seen:
                deadline, seen = time.monotonic() + idle_seconds, arrived
            if time.monotonic() > deadline:
                raise Refused("request_timeout", f"the client takes nothing; {outstanding} bytes wait for it")
            await asyncio.sleep(_POLL_SECONDS[min(polls, len(_POLL_SECONDS) - 1)])
            polls += 1

    def break_off(self) -> None:
        """End the connection at once, so that the client sees that the answer is not whole. Only while it is being sent."""
        self._socket = self._socket or self._find()
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the socket; the connection stays."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _outstanding(self) -> int:
        """Return how many bytes wait for the client. Of what the kernel counts some is framing, or was handed over before the
        socket was found: where it counts more than there was, it is counted from there on."""
        arrived = self._acknowledged()
        base = self._base or 0
        if arrived - base > self._handed:
            self._base = base = arrived - self._handed
        return self._handed - (arrived - base)

    def _acknowledged(self) -> int:
        """Return how many bytes the client's machine has taken on this connection; as many as were handed over if that is not
        known."""
        if self._socket is None:
            return self._handed
        try:
            return int(_ACKNOWLEDGED.unpack_from(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))[0])
        except (OSError, struct.error):
            return self._handed

    def _find(self) -> socket.socket | None:
        """Return a second handle of the connection's socket; None if it is gone, or is not of TCP."""
        wanted = tuple(map(_address, self._addresses))
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError, ValueError):
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    found = socket.socket(fileno=os.dup(int(name)))
                    if found.family in (socket.AF_INET, socket.AF_INET6) and _addresses_of(found) == wanted:
                        return found
                    found.close()
        return None


def _addresses_of(found: socket.socket) -> tuple[tuple[str, int], ...]:
    return tuple((_plain(name[0]), name[1]) for name in (found.getpeername(), found.getsockname()))


def _address(text: str) -> tuple[str, int]:
    """Return the address and port in ADDRESS:PORT. Raises ValueError."""
    name, _, port = text.rpartition(":")
    return _plain(name.strip("[]")), int(port)


def _plain(text: str) -> str:
    """Return an address in one spelling: an IPv4 address inside an IPv6 one is that address."""
    address = ip_address(text.partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)
