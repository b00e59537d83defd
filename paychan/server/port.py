"""Whether a port can be listened at: granian would share one that is taken without a word."""

import errno
import socket
import time

from ..core.errors import ConfigError
from ..settings.hosts import in_url

PORT_WAIT_SECONDS = 5.0
"""How long a port may stay taken by a predecessor that is being killed."""

NOT_OURS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
"""This machine has no such address, or no IPv6."""


def wait_for_port(host: str, port: int, source: str, section: str) -> None:
    """Return when a port is free. host: an IP address. Raises ConfigError for the section of the file `source` that names them."""
    deadline = time.monotonic() + PORT_WAIT_SECONDS
    while True:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:  # a kernel may know no IPv6
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return
        except OSError as error:
            if time.monotonic() > deadline:
                key = "host" if error.errno in NOT_OURS else "port"
                raise ConfigError(f"{source}: {section}.{key}: {in_url(host)}:{port}: {error.strerror}") from error
        time.sleep(0.1)
