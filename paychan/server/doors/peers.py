"""Worker to worker: a request for a shard that another worker owns goes to it, and its answer comes back as it is.

Workers of one machine use Unix sockets; those of another machine are reached over TLS (`peer_port.py`).
"""

import asyncio
import contextlib
import logging
import os
import secrets
import struct
from collections.abc import Awaitable, Callable, Collection, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ..._fast.forward import ForwardLink, OwnerEnd
from ..._fast.intake import Intake, PaymentRequest
from ..._fast.tally import PASSED_ON
from ...chain.base import FundingOutput
from ...core.errors import Unavailable
from ...rpc.connection import Address, ConnectionGone, FrameConnection, RemoteRefusal, connect, listen
from ...rpc.peer_address import PeerAddress
from ...rpc.peer_tls import reason_of
from ...settings.models import ClusterConfig
from ..protocol.replies import Reply, problem
from ..shards.ownership import NotOwner
from .peer_port import PeerPort, VersionDiffers

PAYLOAD_MAX = 128 << 10
"""Bytes; a URL is below 64 kB."""

FORWARDED = 1
"""Frame type of a forwarded request."""

CONTROL = 5
"""Frame type of what the operator's process says (`steered.py`): on the Unix socket alone, no other machine steers this one."""

ANSWER_SECONDS_MAX = 12.0
"""Longer than a close with a slow signer takes. A payment on a link is given up between once and twice this."""

CONNECT_SECONDS_MAX = 2.0
"""On a Unix socket only a stopped process, whose queue of connections is full, takes so long; on a network one that is gone."""

AWAY_SECONDS = 0.5
"""So long a worker of another machine that could not be reached is taken to be away: each try may take CONNECT_SECONDS_MAX."""

log = logging.getLogger("paychan.peers")

_Made = TypeVar("_Made", bound=Any)
_Connecting = asyncio.Task[FrameConnection] | asyncio.Task[ForwardLink]

_HEAD = struct.Struct("<BHH36sQI?")
_REPLY = struct.Struct("<HH")


@dataclass(frozen=True, slots=True)
class PeerRequest:
    """What is forwarded: a verb (pay, open, close or settle), the channel, path and query as they came; for an open the value
    (satoshi) and the confirmations of the funding output that was looked up."""

    verb: str
    outpoint: bytes
    path: str = ""
    query: str = ""
    funding_value: int = 0
    confirmations: int = 0
    is_coinbase: bool = False

    @property
    def funding(self) -> FundingOutput:
        """The funding output that was looked up for an open."""
        return FundingOutput(self.outpoint, self.funding_value, self.confirmations, self.is_coinbase)

    def encode(self) -> bytes:
        verb, path, query = self.verb.encode(), self.path.encode(), self.query.encode()
        funding = (self.outpoint, self.funding_value, self.confirmations, self.is_coinbase)
        head = _HEAD.pack(len(verb), len(path), len(query), *funding)
        return head + verb + path + query

    @classmethod
    def decode(cls, payload: bytes) -> "PeerRequest":
        """Raises ValueError."""
        if len(payload) < _HEAD.size:
            raise ValueError("a forwarded request is too short")
        verb_size, path_size, query_size, outpoint, *funding = _HEAD.unpack_from(payload)
        path_at = _HEAD.size + verb_size
        query_at = path_at + path_size
        if len(payload) != query_at + query_size:
            raise ValueError("a forwarded request has a wrong length")
        verb, path = payload[_HEAD.size : path_at].decode(), payload[path_at:query_at].decode()
        return cls(verb, outpoint, path, payload[query_at:].decode(), *funding)


def encode_reply(reply: Reply) -> bytes:
    location = reply.location.encode()
    return _REPLY.pack(reply.status, len(location)) + location + reply.body


def decode_reply(payload: bytes) -> Reply:
    status, location_size = _REPLY.unpack_from(payload)
    body_at = _REPLY.size + location_size
    return Reply(status, payload[body_at:], payload[_REPLY.size : body_at].decode(), outcome=PASSED_ON)


class Peers:
    """This worker's own socket, in a cluster its own port, too, and connections to the other workers', made when first needed.

    A peer is named by its address as the owner table has it (`rpc/peer_address.py`).
    """

    def __init__(
        self,
        directory: Path,
        answer: Callable[[PeerRequest], Awaitable[Reply]],
        intake: Callable[[], Intake | None],
        refused: Callable[[PaymentRequest, bytes], None],
        cluster: ClusterConfig | None = None,
        control: Callable[[bytes], Awaitable[bytes]] | None = None,
    ) -> None:
        """answer(request): answers what other workers forward, but for payments: they go to `intake()`. refused(request, outpoint)
        gets back the payments that were sent to a worker that is not their owner (any more). control(payload): answers the
        operator's process."""
        self._control = control
        self._directory, self._answer, self._intake, self._refused = directory, answer, intake, refused
        self.address = PeerAddress(str(directory.absolute() / f"worker-{os.getpid()}-{secrets.token_hex(4)}.sock"))
        """What the store is told; in a cluster the port is part of it once `start` has returned."""
        self._cluster = cluster
        self._port: PeerPort | None = None
        self._away_until: dict[str, float] = {}
        self._lost: set[str] = set()
        self._troubles: dict[str, str] = {}
        self._server: asyncio.AbstractServer | None = None
        self._connections: dict[str, asyncio.Task[FrameConnection]] = {}
        self._incoming: set[OwnerEnd] = set()
        self._links: dict[str, asyncio.Task[ForwardLink]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises OSError, CertificateError."""
        self._remove_dead_sockets()
        if self._server is None:
            own = Address(path=self.address.path)
            self._server = await listen(own, self._accept)  # type: ignore[arg-type]  # compiled: a protocol but for the base class
        if self._cluster is not None:
            self._port = PeerPort(self._cluster, self._accept_remote, lambda: len(self._incoming))
            self._port.start()
            self.address = PeerAddress(self.address.path, self._cluster.machine, self._cluster.peer_host, self._port.port)
        self._give_up_overdue()

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        if self._port is not None:
            self._port.stop()
        with contextlib.suppress(OSError):
            os.unlink(self.address.path)
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self._incoming):
            connection.close()
        tasks: list[_Connecting] = [*self._connections.values(), *self._links.values()]
        for task in tasks:
            if _is_made(task):
                task.result().close()
            task.cancel()

    async def forward(self, peer: str, request: PeerRequest) -> Reply | None:
        """Return the owner's answer; None if the request certainly did nothing: the peer is away, or not the owner (any more).

        Raises Unavailable if the peer took the request and gave no answer. It may have taken effect, so it must not be sent
        again from here: the payer would be told "value received 0" without ever having missed an answer.
        """
        try:
            connection = await asyncio.wait_for(self._connection(peer), CONNECT_SECONDS_MAX)
        except (OSError, TimeoutError):
            return None
        if not connection.is_open:
            return None
        try:
            answer = await asyncio.wait_for(connection.call(FORWARDED, request.encode()), ANSWER_SECONDS_MAX)
        except RemoteRefusal:
            return None
        except (ConnectionGone, TimeoutError) as error:
            raise Unavailable("owner_moved") from error
        return decode_reply(answer)

    async def _connection(self, peer: str) -> FrameConnection:
        task = self._connections.get(peer)
        if task is None or _is_dead(task):
            task = asyncio.get_running_loop().create_task(self._connect(peer, self._outgoing))
            self._connections[peer] = task
            self._forget_closed()
        return await asyncio.shield(task)

    async def _connect(self, peer: str, make: Callable[[], _Made]) -> _Made:
        """Return a new connection to a peer, over TLS if it is another machine's. Raises OSError."""
        try:
            address = PeerAddress.parse(peer)
        except ValueError as error:
            raise ConnectionError("the owner table has an address that is none") from error
        if address.machine == (self._cluster.machine if self._cluster else ""):
            return await connect(Address(path=address.path), make)
        if self._port is None:
            self._note(address, "it is of another machine, and there is no [cluster] here")
            raise ConnectionError("it is of another machine")
        if self._is_away(peer):
            raise ConnectionError("it could not be reached a moment ago")
        try:
            made = await self._port.connect(address.host, address.port, make)
        except OSError as error:
            self._away_until[peer] = asyncio.get_running_loop().time() + AWAY_SECONDS
            is_passing = isinstance(error, ConnectionError) and not isinstance(error, VersionDiffers)
            (self._lost.discard if is_passing else self._lost.add)(peer)
            self._note(address, str(error) if isinstance(error, VersionDiffers) else reason_of(error))
            raise
        self._note(address, "")
        self._lost.discard(peer)
        return made

    def is_lost(self, peer: str) -> bool:
        """Return whether a peer on another machine is silent, of another version, or not believed: nobody need wait for it to move.

        It is tried again meanwhile. One that refuses connections or closes them is not lost: it ends, or is being replaced.
        """
        if peer in self._lost and not self._is_away(peer):
            self.link(peer)
        return peer in self._lost

    def _is_away(self, peer: str) -> bool:
        return asyncio.get_running_loop().time() < self._away_until.get(peer, 0.0)

    def _note(self, address: PeerAddress, why: str) -> None:
        """Log once why a machine's worker cannot be reached, and once that it can be again."""
        if self._troubles.get(address.place, "") != why:
            told = "machine %s, %s: cannot be reached: %s" if why else "machine %s, %s: is reached again%s"
            log.log(logging.WARNING if why else logging.INFO, told, address.machine, address.place, why)
        self._troubles[address.place] = why

    def _forget_closed(self) -> None:
        for peer, task in list(self._connections.items()):
            if _is_dead(task):
                del self._connections[peer]
        for peer, link in list(self._links.items()):
            if _is_dead(link):
                del self._links[peer]

    def keep_only(self, peers: Collection[str]) -> None:
        """Close the connections to all others: a worker that lost its shards (a stopped one) may never answer."""
        tasks: list[tuple[str, _Connecting]] = [*self._connections.items(), *self._links.items()]
        for peer, task in tasks:
            if peer not in peers and _is_made(task):
                task.result().close()
        for peer in [peer for peer in self._away_until if peer not in peers]:
            del self._away_until[peer]
        self._lost.intersection_update(peers)

    def _outgoing(self) -> FrameConnection:
        return FrameConnection(PAYLOAD_MAX, lambda *_: None, lambda _: None)

    def link(self, peer: str) -> ForwardLink | None:
        """Return the connection for payments to a peer. None while it is being made: until then there is only the patient way."""
        task = self._links.get(peer)
        if peer and (task is None or _is_dead(task)):
            task = asyncio.get_running_loop().create_task(self._connect(peer, self._make_link))
            self._links[peer] = task
            self._forget_closed()
        return task.result() if task is not None and _is_made(task) else None

    def _make_link(self) -> ForwardLink:
        gone, full = problem(Unavailable("owner_moved")), problem(Unavailable("overloaded"))
        call_soon = asyncio.get_running_loop().call_soon
        return ForwardLink(PAYLOAD_MAX, call_soon, Reply, self._refused, gone, full)

    def _give_up_overdue(self) -> None:
        for task in self._links.values():
            if _is_made(task):
                task.result().expire()
        self._timer = asyncio.get_running_loop().call_later(ANSWER_SECONDS_MAX, self._give_up_overdue)

    def _accept(self) -> OwnerEnd:
        return self._end(self._on_local_frame)

    def _accept_remote(self) -> OwnerEnd:
        return self._end(self._on_frame)

    def _end(self, on_frame: Callable[[OwnerEnd, int, int, bytes], None]) -> OwnerEnd:
        call_soon = asyncio.get_running_loop().call_soon
        return OwnerEnd(PAYLOAD_MAX, call_soon, self._intake, on_frame, self._incoming.add, self._incoming.discard)

    def _on_frame(self, connection: OwnerEnd, kind: int, request_id: int, payload: bytes) -> None:
        if kind != FORWARDED:
            connection.close()
            return
        self._run(self._serve(connection, request_id, payload))

    def _on_local_frame(self, connection: OwnerEnd, kind: int, request_id: int, payload: bytes) -> None:
        if kind == CONTROL and self._control is not None:
            self._run(self._obey(connection, request_id, self._control(payload)))
        else:
            self._on_frame(connection, kind, request_id, payload)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _obey(self, connection: OwnerEnd, request_id: int, work: Awaitable[bytes]) -> None:
        connection.reply(CONTROL, request_id, await work)

    async def _serve(self, connection: OwnerEnd, request_id: int, payload: bytes) -> None:
        try:
            reply = await self._answer(PeerRequest.decode(payload))
        except NotOwner:
            connection.refuse(request_id, b"not the owner")
            return
        connection.reply(FORWARDED, request_id, encode_reply(reply))

    def _remove_dead_sockets(self) -> None:
        """Remove what killed workers left behind."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._directory.glob("worker-*.sock"):
            pid = path.name.split("-")[1]
            if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
                path.unlink(missing_ok=True)


def _is_dead(task: _Connecting) -> bool:
    """Return whether a connection could not be made, or is closed."""
    return task.done() and (task.cancelled() or task.exception() is not None or not task.result().is_open)


def _is_made(task: _Connecting) -> bool:
    """Return whether a connection has been made and is open."""
    return task.done() and not _is_dead(task)
