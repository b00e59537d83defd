"""What a service manager is told of a process: systemd's protocol of datagrams (sd_notify), which others speak too.

The socket is made and connected when the process starts, for the signer can make none later. Its name is taken out of the
environment, so that no child speaks for its parent. Without a manager nothing is sent.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

BEATS = 3
"""A watchdog is fed so many times within the time that it waits."""


SEND_SECONDS_MAX = 1.0
"""The kernel keeps few datagrams for a manager that is busy; what is said once waits so long for room."""


class Manager:
    """Who started this process, if it wants to be told. `beat_seconds`: between two proofs of life, 0 if none are waited for."""

    def __init__(self, env: MutableMapping[str, str] = os.environ) -> None:
        path, microseconds = env.pop("NOTIFY_SOCKET", ""), env.pop("WATCHDOG_USEC", "")
        is_mine = env.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._socket = _connected(path) if path else None
        is_watched = self._socket is not None and is_mine and microseconds.isdecimal() and int(microseconds) > 0
        self.beat_seconds = int(microseconds) / 1e6 / BEATS if is_watched else 0.0

    @property
    def is_there(self) -> bool:
        """Whether anybody is told."""
        return self._socket is not None

    def ready(self, what: str) -> None:
        """Say that this process serves now. what: a line for people."""
        self._send("READY=1", f"STATUS={_line(what)}")

    def waiting(self, why: str) -> None:
        """Say what this process waits for, in a line for people."""
        self._send(f"STATUS={_line(why)}")

    def reloading(self) -> None:
        """Say that the configuration is being read again; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that this process ends."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Feed the watchdog. Only who has just seen that what this process is for still works may call it."""
        if self.beat_seconds:
            self._send("WATCHDOG=1", seconds=0)

    def _send(self, *lines: str, seconds: float = SEND_SECONDS_MAX) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):  # a manager that is gone, or does not read, stops nobody for long
                self._socket.settimeout(seconds)
                self._socket.send("\n".join(lines).encode())


def _connected(path: str) -> socket.socket | None:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        made.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    except (OSError, ValueError):
        made.close()
        return None
    return made


def _line(text: str) -> str:
    return "".join(symbol if symbol.isprintable() else " " for symbol in text)[:500]
