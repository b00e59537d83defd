"""The ports that are listened at: free, or our own running server's."""

import errno
import socket
from dataclasses import dataclass

from ..server.port import NOT_OURS
from ..settings.hosts import in_url
from .machine import Machine
from .verdicts import Verdict, bad, ok


@dataclass(frozen=True)
class Port:
    """number: of what bind failed with, 0 if the port is free. is_ours: a server of this configuration answers there, or runs."""

    name: str
    host: str
    port: int
    number: int
    is_ours: bool


def ports(machine: Machine) -> list[Verdict]:
    config = machine.server
    wanted = [("http.port", config.http_host, config.http_port)]
    if config.sell.port:
        wanted.append(("sell.port", config.sell.host, config.sell.port))
    if config.cluster is not None and config.cluster.listen_host:
        wanted.append(("cluster.peer_port", config.cluster.listen_host, config.cluster.peer_port))
    runs = is_ours(machine.ready)
    return [judge(Port(name, host, port, _try(host, port), runs)) for name, host, port in wanted]


def is_ours(ready: dict[str, object]) -> bool:
    """Return whether what answers /readyz is a server of ours, ready or not."""
    return "server_pubkey" in ready or ("code" in ready and "status" in ready)


def _try(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return 0
    except OSError as error:
        return error.errno or errno.EIO


def judge(port: Port) -> Verdict:
    place = f"{in_url(port.host)}:{port.port}"
    if not port.number:
        return ok(port.name, f"{place} is free")
    if port.number in NOT_OURS:
        return bad(
            port.name,
            f"{place} is no address of this machine",
            f"set {port.name.partition('.')[0]}.host to one, or bring the interface up",
        )
    if port.number == errno.EACCES:
        return bad(port.name, f"{place} may not be listened at by this user", "take a port above 1023; a proxy listens at 443")
    if port.is_ours:
        return ok(port.name, f"{place} is our running server's")
    return bad(port.name, f"{place} is taken by another program", f"find it (ss -ltnp), or change {port.name}")
