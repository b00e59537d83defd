"""The table `[operator]` of server.toml: where the operator's API and page are asked for."""

from pathlib import Path

from . import dangers, hosts
from .listening import read_listen
from .models import Common, OperatorConfig
from .sections import Section
from .tokens import tokens_file

SOCKET_PATH_MAX = 100
"""Bytes: the kernel takes 107, and the HTTP server knows no way around that."""


def operator_config(root: Section, common: Common) -> OperatorConfig:
    """Return the checked table; without it, or without `listen`, nothing is listened at."""
    operator = root.table("operator")
    address = read_listen(operator, common)
    certificate, key = (_in_state_dir(common, operator.path(name)) for name in ("certificate", "key"))
    if (certificate is None) != (key is None):
        operator.fail("key", "certificate and key come together")
    dangers.check_secret_file(operator, "key", key, group_may_read=True)
    if address is None:
        if certificate is not None and not operator.has("listen"):
            operator.fail("listen", "is missing: certificate and key are for a port")
        return OperatorConfig()
    if address.path and certificate is not None:
        operator.fail("certificate", "is for a port: a Unix socket is of this machine alone")
    if len(address.path.encode()) > SOCKET_PATH_MAX:
        operator.fail("listen", f"is longer than {SOCKET_PATH_MAX} bytes with its directory")
    if address.port and not hosts.is_loopback(address.host) and key is None:
        operator.fail("key", "is missing: tokens, and what they may do, would cross the network in plain text")
    socket = Path(address.path) if address.path else None
    return OperatorConfig(socket, address.host, address.port, certificate, key, tokens_file(common.state_dir))


def _in_state_dir(common: Common, path: Path | None) -> Path | None:
    return None if path is None else common.state_dir / path
