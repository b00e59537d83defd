"""Where a worker is found by other workers: the text in its HELLO, which the store hands on, unread, in the owner table.

PATH                          a Unix socket: all there is without a cluster
tls:HOST:PORT MACHINE PATH    in a cluster: a port for workers of other machines, and the Unix socket for those of its own
"""

import re
from dataclasses import dataclass

MACHINE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
"""What a machine may be called."""

_TLS = re.compile(r"tls:(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+):([0-9]{1,5}) (\S+) (/.*)", re.DOTALL)


@dataclass(frozen=True)
class PeerAddress:
    """path: of the Unix socket. machine, host (a name, or an IP address without brackets), port: empty without a cluster."""

    path: str
    machine: str = ""
    host: str = ""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "PeerAddress":
        """Raises ValueError."""
        if not text.startswith("tls:"):
            return cls(text)
        match = _TLS.fullmatch(text)
        if match is None or not MACHINE.match(match[3]) or not 0 < int(match[2]) < 65536:
            raise ValueError("must be PATH, or tls:HOST:PORT MACHINE PATH")
        return cls(match[4], match[3], match[1].strip("[]"), int(match[2]))

    @property
    def place(self) -> str:
        """Host and port as they stand in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"tls:{self.place} {self.machine} {self.path}" if self.machine else self.path


def machine_of(text: str) -> str | None:
    """Return the machine of an address, empty without a cluster; None if it is no address."""
    try:
        return PeerAddress.parse(text).machine
    except ValueError:
        return None
