"""What the store's code on PostgreSQL, and workers of several machines, find where they look for the outside."""

import hashlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg

from paychan.server.doors import peer_port
from store import serving
from store.engines.postgres import engine, opening, pinned, sharing, waiting

from ..disk import Disk
from ..hosts import Stage, _exit_now, _process, _time
from ..network import Listener
from .driver import connect

PEER_PORT = 9100


def _disk() -> Disk:
    return Stage.world.disk_of(_process().name)


class SimulatedMark:
    """`store.mark.Mark` on the simulated disk: noted after each group, and not synced."""

    def __init__(self, directory: Path) -> None:
        self.path, self._name = directory, f"{directory}.mark"
        self.sequence = int(_disk().replaced.get(self._name, (b"", b"0"))[1] or b"0")

    def note(self, sequence: int) -> None:
        _disk().replace(_process(), self._name, b"%d" % sequence, is_synced=False)

    def close(self) -> None:
        """Nothing is open."""


def _urandom(size: int) -> bytes:
    return hashlib.sha256(Stage.world.network.token().encode()).digest()[:size]


def _pins_there(directory: Path) -> Any:
    return SimpleNamespace(exists=lambda: bool(_disk().replaced.get(f"{directory}/postgres", (b"", b""))[1]))


def _read_or_make(directory: Path) -> pinned.Pinned:
    text = _disk().replaced.get(f"{directory}/postgres", (b"", b""))[1]
    if text:
        instance, system, identity = text.decode().split("|")
        return pinned.Pinned(instance, int(system) if system else None, identity)
    made = pinned.Pinned(_urandom(16).hex())
    _write(directory, made)
    return made


def _write(directory: Path, pins: pinned.Pinned) -> None:
    text = f"{pins.instance}|{'' if pins.system is None else pins.system}|{pins.identity}"
    _disk().replace(_process(), f"{directory}/postgres", text.encode())


def _peer_listener(*_: Any) -> Listener:
    process = _process()
    return Listener(f"tcp:{Stage.world.plan.machine_of(process.name)}:{PEER_PORT + int(process.name[6:])}")  # type: ignore[attr-defined]


def _watch_end(sock: Any) -> None:
    sock.end.is_watched = True


def stand_ins() -> tuple[tuple[Any, dict[str, Any]], ...]:
    """As `..hosts._stand_ins`."""
    clock = SimpleNamespace(monotonic=_time, monotonic_ns=lambda: int(_time() * 1e9))
    no_tls = SimpleNamespace(server=None, client=None)
    return (
        (asyncpg, {"connect": connect}),
        (engine, {"time": clock}),
        (opening, {"time": clock, "Mark": SimulatedMark, "os": SimpleNamespace(urandom=_urandom)}),
        (sharing, {"time": clock}),
        (waiting, {"time": clock}),
        (pinned, {"path_of": _pins_there, "read_or_make": _read_or_make, "write": _write}),
        (serving, {"claim_or_none": lambda *_: None, "os": SimpleNamespace(_exit=_exit_now)}),
        (
            peer_port,
            {"make_contexts": lambda _: no_tls, "first_free_port": _peer_listener, "_notice_silence": _watch_end},
        ),
    )
