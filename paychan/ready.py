"""Whether our processes are there, asked as anybody asks them: /readyz of the server, a connection to signer and store."""

import contextlib
import http.client
import json
import os
import socket

from .rpc.connection import Address, reachable_path
from .settings.models import ServerConfig

SECONDS_MAX = 2.0
READY_SIZE_MAX = 1 << 20
"""Bytes of /readyz that are looked at; each stopped shard of 4096 adds some 100."""


def ready_state(config: ServerConfig) -> dict[str, object]:
    """Return what /readyz says, empty if it says nothing."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.http_host, config.http_host)
    connection = http.client.HTTPConnection(host, config.http_port, timeout=SECONDS_MAX)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError, RecursionError):
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        state: object = json.loads(answer.read(READY_SIZE_MAX))
        if isinstance(state, dict):
            return state
    return {}


def answers(address: Address) -> bool:
    """Return whether a process accepts connections at an address."""
    try:
        pid_at(address)
        return True
    except OSError:
        return False


def pid_at(address: Address) -> int:
    """Return the process id of who listens at an address, 0 on TCP, where the kernel does not tell. Raises OSError."""
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(SECONDS_MAX)
        if not address.path:
            probe.connect((address.host, address.port))
            return 0
        path, handle = reachable_path(address.path)
        try:
            probe.connect(path)
        finally:
            if handle >= 0:
                os.close(handle)
        return int.from_bytes(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
