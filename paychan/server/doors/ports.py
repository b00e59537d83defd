"""Ports of a worker's own: each worker takes the first free one from the configured port up."""

import socket

PORTS_MAX = 512
"""How many ports from the base are tried: twice the most workers, for on a reload old and new ones live side by side."""


def first_free_port(host: str, base_port: int, backlog: int) -> socket.socket | None:
    """Return a socket that listens on the first free port; None if there is none. host: an IP address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(base_port, min(base_port + PORTS_MAX, 65536)):
        listener = None
        try:
            listener = socket.socket(family, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(backlog)
        except OSError:
            if listener is not None:
                listener.close()
            continue
        listener.setblocking(False)
        return listener
    return None
