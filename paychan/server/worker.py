"""One worker, assembled: which part talks to which. Created and started inside granian's worker process."""

import asyncio
import logging

from .._fast.channel import ChannelTable, read_channel_request
from ..chain.base import ChainBackend, FundingOutput
from ..chain.debug import DebugChain
from ..chain.fixture import FixtureChain
from ..clock import make_clock
from ..config import ServerConfig
from ..errors import PaychanError, Unavailable
from ..rpc.signer_client import SignerClient
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Hello, OwnerTable, Welcome
from .committer import Committer
from .engine import Engine, refusal_of_form
from .opening import Opening
from .ownership import Ownership
from .peers import NotOwner, PeerRequest, Peers
from .replies import Reply, json_reply, problem
from .settler import Settler
from .settling import Settling

DISPATCH_ATTEMPTS_MAX = 4
"""How often a request is sent to a shard's owner, which may be changing, before it is answered 503."""

SETTLED_CONFIRMATIONS = 6
"""Blocks upon a settlement after which the channel counts as settled for good."""

log = logging.getLogger("paychan.worker")


def make_chain(config: ServerConfig) -> ChainBackend:
    """Return the chain backend that the configuration names."""
    state_dir = config.common.state_dir
    if config.chain_backend == "debug":
        return DebugChain(state_dir, config.fee_per_byte)
    if config.fixture_file is None:
        raise AssertionError("the configuration's check asks for the file")
    return FixtureChain(state_dir, config.fixture_file, config.fee_per_byte)


class Worker:
    """Answers requests that have been parsed from HTTP, its own shards' by itself, others' by asking their owner."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._clock = make_clock(config.common.clock_start)
        self._chain = make_chain(config)
        self._opening = Opening(config, self._chain)
        self._signer = SignerClient(config.signer)
        self._peers = Peers(config.common.state_dir / "run", self._answer_peer)
        self._engine: Engine | None = None
        self._starting: asyncio.Task[None] | None = None
        self._parts: list[Settler | Settling] = []

    # --- life ---

    def start(self) -> None:
        """Start connecting. Until the signer and the store have answered, requests are answered 503."""
        self._signer.link.start()
        self._starting = asyncio.get_running_loop().create_task(self._join())

    async def _join(self) -> None:
        """Once the signer's key is known, join the store's workers and build what needs the shard count."""
        while not self._signer.link.is_up:
            await asyncio.sleep(0.02)
        await self._peers.start()
        hello = Hello(self._config.common.network.name, self._signer.public_key, self._peers.address.path)
        self._store = StoreClient(self._config.store, hello, self._on_owners, self._on_store_lost)
        self._store.link.start()

    def _on_owners(self, welcome: Welcome, table: OwnerTable) -> None:
        if self._engine is None:
            self._build(welcome.shard_count)
        self._ownership.update(welcome, table)
        self._peers.keep_only(self._ownership.peers)

    def _on_store_lost(self) -> None:
        if self._engine is not None:
            self._ownership.lose()

    def _build(self, shard_count: int) -> None:
        config = self._config
        channels = ChannelTable(shard_count, config.settlement_period)
        self._ownership = Ownership(channels, shard_count)
        self._committer = Committer(channels, self._store)
        settling = Settling(
            channels, shard_count, self._committer, self._store, self._signer, self._chain, SETTLED_CONFIRMATIONS
        )
        self._engine = Engine(
            config.common.network,
            channels,
            shard_count,
            self._committer,
            self._store,
            settling,
            self._opening,
            self._clock,
        )
        settler = Settler(self._ownership, self._store, self.settle, config.settlement_period, self._clock)
        settler.start()
        self._parts = [settler, settling]

    async def stop(self) -> None:
        """Leave: requests in flight have been answered by now; closing the store's connection frees the shards."""
        if self._starting:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for part in self._parts:
            await part.stop()
        if self._engine is not None:
            await self._store.link.stop()
        await self._signer.link.stop()
        await self._peers.stop()

    # --- interlocks (design section 8) ---

    def trouble(self) -> str:
        """Return the code of the interlock that is tripped, or an empty text."""
        if not self._signer.link.is_up:
            return "signer_unavailable"
        if self._engine is None or not self._store.link.is_up:
            return "store_unavailable"
        if self._store.lease_ends < asyncio.get_running_loop().time():
            return "owner_moved"  # stopped or starved: our shards may have been given away
        if self._committer.is_full:
            return "overloaded"
        return ""

    def _check_interlocks(self) -> Engine:
        trouble = self.trouble()
        if trouble or self._engine is None:
            raise Unavailable(trouble or "store_unavailable")
        return self._engine

    def ready(self) -> Reply:
        """Answer /readyz: 200 if payments would be accepted, else 503 with the tripped interlock's code."""
        trouble = self.trouble()
        if not trouble and not self._ownership.is_complete:
            trouble = "owner_moved"
        if trouble:
            return problem(Unavailable(trouble))
        content = {"ready": True, "workers": self._ownership.worker_count, "server_pubkey": self._signer.public_key.hex()}
        return json_reply(200, content)

    # --- requests ---

    async def pay(self, path: str, query: str) -> Reply:
        """PUT on a channel."""
        engine = self._check_interlocks()
        try:
            return await engine.pay(path, query)
        except NotOwner as error:
            return await self._elsewhere(PeerRequest("pay", error.outpoint, path, query))

    async def close(self, path: str, query: str) -> Reply:
        """DELETE on a channel."""
        status, outpoint, _ = read_channel_request(path, query)
        if status:
            return refusal_of_form(status, query)
        return await self._dispatch(PeerRequest("close", outpoint, path, query))

    async def open(self, query: str) -> Reply:
        """POST a new channel: everything that can be judged here is, before the chain is asked."""
        self._check_interlocks()
        key = self._signer.public_key
        funding = await self._opening.find_funding(self._opening.parse(query, key, self._clock()), key)
        return await self._dispatch(
            PeerRequest("open", funding.outpoint, "", query, funding.value, funding.confirmations)
        )

    async def settle(self, outpoint: bytes) -> Reply:
        """Have a channel settled by its owner, because its time has come."""
        return await self._dispatch(PeerRequest("settle", outpoint))

    def funding_info(self, query: str) -> Reply:
        """GET fundingInfo: pure computation, once the signer's key is known."""
        if not self._signer.public_key:
            raise Unavailable("signer_unavailable")
        return self._opening.funding_info(query, self._signer.public_key, self._clock())

    # --- here or elsewhere ---

    async def _dispatch(self, request: PeerRequest) -> Reply:
        try:
            return await self._answer(request)
        except NotOwner:
            return await self._elsewhere(request)

    async def _answer(self, request: PeerRequest) -> Reply:
        """Answer a request for one of our own shards. Raises NotOwner, PaychanError."""
        engine = self._check_interlocks()
        if request.verb == "pay":
            return await engine.pay(request.path, request.query)
        if request.verb == "close":
            return await engine.close(request.path, request.query)
        if request.verb == "settle":
            return await engine.settle(request.outpoint)
        key = self._signer.public_key
        funding = FundingOutput(request.outpoint, request.funding_value, request.confirmations)
        return await engine.open(self._opening.parse(request.query, key, self._clock()), funding, key)

    async def _answer_peer(self, request: PeerRequest) -> Reply:
        try:
            return await self._answer(request)
        except PaychanError as error:
            return problem(error)
        except NotOwner:
            raise
        except Exception as error:  # a bug of ours: without an answer the other worker would wait for long
            log.error("internal error in a forwarded request: %s", type(error).__name__)
            return problem(Unavailable("store_unavailable", "Internal error; send the same request again"))

    async def _elsewhere(self, request: PeerRequest) -> Reply:
        """Send a request to its shard's owner. While the shard changes hands, wait and look again, a few times."""
        for _ in range(DISPATCH_ATTEMPTS_MAX):
            peer = self._ownership.peer_of(request.outpoint)
            reply = await self._peers.forward(peer, request) if peer else None
            if reply is not None:
                return reply
            await self._ownership.wait_for_change()
            try:
                return await self._answer(request)
            except NotOwner:
                continue
        raise Unavailable("owner_moved")
