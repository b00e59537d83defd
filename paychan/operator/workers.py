"""The workers of this machine, asked over their sockets, STATE_DIR/run/worker-PID-RANDOM.sock; by commands on the spot, too."""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect
from ..server.doors.peers import CONTROL, FORWARDED, PAYLOAD_MAX, PeerRequest, decode_reply
from ..server.protocol.replies import Reply

ANSWER_SECONDS_MAX = 2.0
"""For a word that costs a worker nothing; who takes longer is stuck, or stopped."""

SETTLE_SECONDS_MAX = 30.0
"""For a settlement: signer and node are asked."""

_NAME = re.compile(r"worker-([0-9]{1,10})-[0-9a-f]+\.sock\Z")


@dataclass(frozen=True)
class WorkerSocket:
    """Where one worker is asked. pid: as its socket's name has it."""

    pid: int
    path: Path


def sockets(run_dir: Path) -> list[WorkerSocket]:
    """Return the sockets of the workers that live, of all generations: a killed one may have left its own behind."""
    found = [(match, path) for path in sorted(run_dir.glob("worker-*.sock")) if (match := _NAME.match(path.name))]
    return [WorkerSocket(int(match[1]), path) for match, path in found if Path(f"/proc/{match[1]}").exists()]


async def tell_all(run_dir: Path, word: str) -> tuple[list[dict[str, Any]], list[int]]:
    """Say a word (`look`, `drain`) to all workers at once; return what those say that answer, and the pids of the others."""
    asked = sockets(run_dir)
    answers = await asyncio.gather(*(tell(worker, word) for worker in asked))
    pairs = list(zip(asked, answers, strict=True))
    silent = [worker.pid for worker, told in pairs if told is None and Path(f"/proc/{worker.pid}").exists()]
    return [told for told in answers if told is not None], silent


async def tell(worker: WorkerSocket, word: str) -> dict[str, Any] | None:
    """Say a word to one worker; return its answer, None if it gives none in time."""
    try:
        answer = json.loads(await _call(worker, CONTROL, word.encode(), ANSWER_SECONDS_MAX))
    except (OSError, ConnectionGone, RemoteRefusal, TimeoutError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


async def settle(run_dir: Path, outpoint: bytes) -> Reply | None:
    """Ask the workers, one after the other, until the channel's owner answers; None if none of this machine is it."""
    request = PeerRequest("settle", outpoint).encode()
    for worker in sockets(run_dir):
        try:
            return decode_reply(await _call(worker, FORWARDED, request, SETTLE_SECONDS_MAX))
        except (OSError, ConnectionGone, RemoteRefusal, TimeoutError):
            continue
    return None


async def _call(worker: WorkerSocket, kind: int, payload: bytes, seconds: float) -> bytes:
    """Raises OSError, ConnectionGone, RemoteRefusal, TimeoutError."""
    async with asyncio.timeout(seconds):
        connection = await connect(
            Address(path=str(worker.path)), lambda: FrameConnection(PAYLOAD_MAX, lambda *_: None, lambda _: None)
        )
        try:
            return await connection.call(kind, payload)
        finally:
            connection.close()
