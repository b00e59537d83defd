"""One POST, of which only the status is wanted: bounded in time and size, to an address that was looked at, following no redirect.

A connection is made for each delivery: a receiver that hangs holds nothing but its own, and an old one is never written to.
"""

import asyncio
import socket
import ssl
from collections.abc import Mapping

from .target import Network, Target, may_reach

HEAD_SIZE_MAX = 16 * 1024


class NotTaken(Exception):
    """A delivery was not taken. `str()` says why, for the operator."""


async def post(target: Target, fields: Mapping[str, str], body: bytes, allowed: tuple[Network, ...], seconds: float) -> int:
    """Send a body, and return the status of the answer, whatever it is. Raises NotTaken if none came within `seconds`."""
    try:
        async with asyncio.timeout(seconds):
            address = await _address(target, allowed)
            return await _exchange(target, address, fields, body)
    except TimeoutError:
        raise NotTaken(f"no answer within {seconds:g} seconds") from None
    except ssl.SSLError:
        raise NotTaken("cannot prove who it is, or speaks no TLS that we accept") from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise NotTaken(f"cannot be reached: {reason}") from None
    except (ValueError, EOFError, asyncio.LimitOverrunError):
        raise NotTaken("its answer is no HTTP that we accept") from None


async def _address(target: Target, allowed: tuple[Network, ...]) -> str:
    """Return the address of a host. If one of several is inside, none is taken: whoever names them means it so."""
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    addresses = [str(row[4][0]) for row in found]
    if not addresses or not all(may_reach(address, allowed) for address in addresses):
        raise NotTaken("points inside")
    return addresses[0]


async def _exchange(target: Target, address: str, fields: Mapping[str, str], body: bytes) -> int:
    tls = ssl.create_default_context() if target.is_tls else None
    reader, writer = await asyncio.open_connection(
        address, target.port, ssl=tls, server_hostname=target.host if tls else None, limit=HEAD_SIZE_MAX
    )
    try:
        more = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        writer.write(f"{head}{more}\r\n".encode() + body)
        await writer.drain()
        while (status := _status(await reader.readuntil(b"\n"))) < 200:  # interim answers
            while (await reader.readuntil(b"\n")).strip():
                pass
        return status
    finally:
        writer.close()


def _status(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not rest[:3].isdigit() or not 100 <= int(rest[:3]) <= 599:
        raise ValueError("no HTTP answer")
    return int(rest[:3])
