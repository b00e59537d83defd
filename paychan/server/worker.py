"""One worker, assembled: which part talks to which. Created and started inside granian's worker process."""

import asyncio
import base64
import logging
import time
from collections.abc import Callable

import orjson

from .._fast.batch import Batch
from .._fast.channel import ChannelTable, read_channel_request
from .._fast.intake import Intake, PaymentRequest
from .._fast.sale import SaleBatch
from .._fast.tally import FORWARDED, NANOSECONDS_FROM, PASSED_ON, SALE_DOOR, SHARED, Tally
from ..chain.base import FundingOutput
from ..chain.make import make_chain
from ..clock import Clock, wall_clock
from ..core.errors import PaychanError, Rejection, Unavailable
from ..metrics import families
from ..metrics.families import Family
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.peer_address import machine_of
from ..rpc.peer_tls import CertificateError
from ..rpc.signer_client import SignerClient
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Hello, MessageError, OwnerTable, Unsettled, Welcome
from ..settings.cluster import trouble_with_end
from ..settings.models import ServerConfig
from .channels.books import Books
from .channels.funding import FundingChecks
from .channels.life import ChannelLife, refusal_of_form
from .channels.lookups import NEGATIVE_SECONDS, Lookups
from .channels.notes import Notes
from .channels.opening import Opening, OpenRequest
from .channels.payments import Payments
from .channels.prices import Prices
from .channels.proving import Proving
from .doors.peers import PeerRequest, Peers
from .gauges import Gauges
from .limits import Limits
from .protocol.replies import INTERNAL_ERROR, Form, Reply, json_reply, problem
from .settlement.figures import Figures
from .settlement.highwater import read_highest, write_highest
from .settlement.largest import Largest
from .settlement.settler import Settler
from .settlement.settling import Settling, SettlingRules
from .settlement.telling import Telling
from .settlement.tip import TipFollower
from .settlement.watcher import Watcher
from .shards.committer import Committer
from .shards.loading import Loader
from .shards.ownership import NotOwner, Ownership
from .steered import Steered

LOOK_AGAIN_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.1, 0.3, 1.0, 1.0)
"""Waits of a request whose shard is changing hands, each before another look for its owner; after the last it is answered 503. It
also looks again when an owner table comes, but that is not enough: the new owner may hear of the change after us, and refuse."""

HIGHEST_SECONDS = 60.0
"""Between two notes of the highest time seen."""

HIGHEST_RETRY_SECONDS = 1.0

PEERS_RETRY_SECONDS = 1.0

CERTIFICATE_SECONDS = 3600.0
"""Between two looks at when the cluster's certificate ends."""

EXPIRY_CODES = ("exp_time_too_soon", "exp_time_too_far")
"""Refusals for which the time must be certain."""

KEPT_AHEAD = (
    "%s holds a time that is %d seconds ahead of the wall clock, and is believed as far as the chain allows. If the wall clock is "
    "right, stop the server, remove the file and start again"
)

log = logging.getLogger("paychan.worker")


def _to_text(payment: bytes) -> str:
    return base64.urlsafe_b64encode(payment).decode()


class Worker:
    """Answers requests that have been parsed from HTTP, its own shards' by itself, others' by asking their owner."""

    def __init__(
        self,
        config: ServerConfig,
        on_joined: Callable[[Intake], None] = lambda _: None,
        own_url: str = "",
        granian_way: Callable[[], str] = lambda: "",
        tally: Tally | None = None,
        connections: Callable[[], int] = lambda: 0,
        limits: Limits | None = None,
    ) -> None:
        """on_joined(intake) is called once payments can be taken. own_url: where clients reach this worker's own port, or empty.
        granian_way(): tells which way granian's requests come in. tally: where it is counted; None: nobody reads it.
        connections(): how many there are at the own port. limits: what addresses may cost, shared with the doors."""
        self._is_counted, self._tally, self._connections = tally is not None, tally or Tally(), connections
        self._limits = limits or Limits(config.limits, self._tally)
        self._config, self._on_joined, self._own_url, self._granian_way = config, on_joined, own_url, granian_way
        self._highest_file = config.common.state_dir / "clock"
        highest = 0 if config.common.debug else read_highest(self._highest_file)
        self._steered = Steered(config, self._obey, self._describe)
        config = self._config = self._steered.config
        chain = config.chain
        self._clock = Clock(wall_clock(config.common.clock_start), highest, chain.tip_age_max, time.monotonic)
        self._chain = make_chain(chain, config.common, config.fee_per_byte)
        self._tip = TipFollower(self._chain, self._clock, chain.poll_seconds, chain.tip_age_max, self._on_tip_moved, self._tally)
        negative_seconds = NEGATIVE_SECONDS if chain.has_network else 0.0
        self._prices = Prices(config, self._chain, time.monotonic)
        lookups = Lookups(self._chain, chain.lookups_per_second, time.monotonic, negative_seconds, self._tally)
        self._opening = Opening(config, lookups, self._prices)
        self._signer = SignerClient(config.signer, self._on_signer)
        run_dir = config.common.state_dir / "run"
        control = self._steered.control
        self._peers = Peers(run_dir, self._answer_peer, lambda: self._intake, self._pay_patiently, config.cluster, control)
        self._life: ChannelLife | None = None
        self._intake: Intake | None = None
        self._store_said: Callable[[], str] = str  # why it refuses us
        self._unsettled, self._is_over = Unsettled(), False
        self._gauges = Gauges(self._tally, self._look)
        self._tasks: list[asyncio.Task[None]] = []
        self._parts: list[Settler | Settling | Watcher | Telling | Notes | Figures] = []

    # --- life ---

    def start(self) -> None:
        """Start connecting. Until the signer and the store have answered, requests are answered 503."""
        loop = asyncio.get_running_loop()
        self._signer.link.start()
        self._tip.start()
        if self._is_counted:
            self._gauges.start()
            self._steered.start()
        self._prices.start()
        works = (self._join(), self._keep_highest(), self._watch_certificate())
        self._tasks = [loop.create_task(work) for work in works]

    async def _join(self) -> None:
        """Once the signer's key is known, join the store's workers and build what needs the shard count."""
        while not self._signer.link.is_up:
            await asyncio.sleep(0.02)
        await self._start_peers()
        self._steered.look()  # whoever changes something from now on tells this worker
        while self._steered.is_drained:
            await asyncio.sleep(0.1)
        self._steered.has_joined = True
        hello = Hello(self._config.common.network.name, self._signer.public_key, str(self._peers.address))
        told = (self._on_owners, self._on_store_lost, self._on_unsettled, self._steered.hear)
        self._store = StoreClient(self._config.store, hello, *told)
        self._steered.follow(self._store)
        self._store_said = lambda: self._store.link.refusal
        self._store.link.start()

    async def _start_peers(self) -> None:
        """Make the socket for other workers. On a full disk that fails; whoever makes room there does not think of us."""
        why = ""
        while True:
            try:
                await self._peers.start()
                return
            except (OSError, CertificateError) as error:
                if why != (why := str(error)):
                    log.warning("the socket for other workers cannot be made: %s", why)
                await asyncio.sleep(PEERS_RETRY_SECONDS)

    async def _keep_highest(self) -> None:
        """Note the highest time that is sure, for the next start; in debug mode clocks start where they are told."""
        if ahead := self._clock.kept_ahead():
            log.warning(KEPT_AHEAD, self._highest_file, ahead)
        while not self._config.common.debug:
            try:
                if not self._clock.doubt():
                    write_highest(self._highest_file, self._clock.sure())
            except OSError as error:
                log.warning("the highest time seen could not be noted: %s", error.strerror)
            await asyncio.sleep(HIGHEST_SECONDS if await self._share_highest() else HIGHEST_RETRY_SECONDS)

    async def _share_highest(self) -> bool:
        """Tell other machines of the highest time that is sure, and hear of theirs; return whether the store took it."""
        if self._life is None or not self._store.link.is_up:
            return False
        try:
            self._clock.hear(await self._store.highest(0 if self._clock.doubt() else self._clock.sure()))
        except (ConnectionGone, RemoteRefusal, MessageError):
            return False
        return True

    def _trouble_with_certificate(self) -> str:
        """Return that the certificate that is shown to other machines ends soon, or has ended."""
        cluster = self._config.cluster
        return trouble_with_end(cluster.certificate_ends, time.time()) if cluster is not None else ""

    async def _watch_certificate(self) -> None:
        """Say in time that the cluster's certificate must be renewed. A reload brings the new one."""
        cluster, told = self._config.cluster, ""
        while cluster is not None:
            if told != (told := self._trouble_with_certificate()) and told:
                log.warning("%s %s", cluster.files.certificate, told)
            await asyncio.sleep(CERTIFICATE_SECONDS)

    def _on_signer(self, outcome: str, nanoseconds: int) -> None:
        self._tally.add(families.SIGNER_REQUESTS.cell(outcome))
        self._tally.observe(families.SIGNER.at, NANOSECONDS_FROM, nanoseconds)

    def _on_tip_moved(self, generation: int) -> None:
        if self._life is not None:
            self._funding.tip_moved(generation)

    def _on_owners(self, welcome: Welcome, table: OwnerTable) -> None:
        if self._life is None:
            self._build(welcome.shard_count)
        self._ownership.update(welcome, table)
        self._tally.set(families.NUMBER_AT, welcome.worker_id)
        self._payments.intake.look_again()
        self._payments.intake.forget_links()
        self._peers.keep_only(self._ownership.peers)

    def _on_store_lost(self) -> None:
        self._steered.forget_revision()
        if self._life is not None:
            self._ownership.lose()
            self._payments.intake.look_again()
            self._payments.intake.forget_links()

    def _obey(self, config: ServerConfig) -> None:
        """Go by other limits, those that the operator has set."""
        self._config = config
        self._opening.limit(config)
        if self._life is not None:
            self._life.limit(config.channel_exposure_max)
            self._payments.limit(config.channel_exposure_max)
            self._largest.limit(config.channel_exposure_max, config.total_exposure_max)
        self._on_unsettled(self._unsettled)

    def _describe(self) -> dict[str, object]:
        """Return what the operator is told of this worker beside its gauges."""
        return {"is_drained": not self._steered.has_joined, "ready": orjson.loads(self.ready().body)}

    def _on_unsettled(self, unsettled: Unsettled) -> None:
        """Note what the store counts. Looking at it must cost a payment nothing, so what follows from it is a flag."""
        self._unsettled, was_over = unsettled, self._is_over
        self._is_over = unsettled.total > self._config.unsettled_value_max
        if self._is_over != was_over:
            taken = "no opens and payments are taken" if self._is_over else "opens and payments are taken again"
            log.warning("%s, %s", self._how_much(), taken)
            self._bound_intake()

    def _bound_intake(self) -> None:
        if self._intake is not None:
            self._intake.no_money = problem(Unavailable("too_much_unsettled")) if self._is_over else None

    def _how_much(self) -> str:
        return f"{self._unsettled.total} satoshi are unsettled, {self._config.unsettled_value_max} may be"

    def _build(self, shard_count: int) -> None:
        config, store, now, sure = self._config, self._store, self._clock.now, self._clock.sure
        channels = self._channels = ChannelTable(shard_count, config.settlement_period)
        self._ownership = Ownership(channels, shard_count)
        self._committer = Committer(channels, store, self._tally)
        self._funding = FundingChecks(channels, store, self._chain, min(config.funding_tx_min_conf, 1))
        self._funding.tip_moved(self._tip.generation)
        rules = SettlingRules(config.settlement_period, config.settlement_confirmations, config.fee_bounds, config.fee_per_byte)
        self._settling = settling = Settling(
            rules, channels, shard_count, self._committer, store, self._signer, self._chain, sure, self._tally
        )
        loader = Loader(channels, shard_count, store)
        proving = Proving(self._chain, self._signer, store, None if config.common.debug else config.fee_bounds.floor)
        exposure_max = config.channel_exposure_max
        self._life = ChannelLife(
            channels,
            shard_count,
            self._committer,
            loader,
            settling,
            self._opening,
            proving,
            now,
            self._own_url,
            exposure_max,
            self._steered.check_opens,
            self._steered.ask_opens,
        )
        notes = Notes(channels, store, self._signer, config.unnoted_value_max)

        def price_changed(least: int) -> None:
            channels.open_price = least

        self._prices.follow(price_changed)
        self._books = Books(config, store, now, lambda: channels.open_price)
        self._payments = Payments(
            config.common.network,
            channels,
            self._committer,
            loader,
            self._life,
            self._funding,
            self._tip,
            now,
            exposure_max,
            notes,
            self._books,
            self.trouble,
            self._pay_elsewhere,
            self._limits.table,
        )
        self._intake = self._payments.intake
        self._bound_intake()
        self._on_joined(self._intake)
        self._largest = Largest(store, exposure_max, config.total_exposure_max)
        settler = Settler(self._ownership, store, self._tip, self.settle, config.settlement_period, self._largest, sure)
        watcher = Watcher(self._ownership, store, self._tip, self._chain, self.settle)
        self._figures = Figures(self._ownership, store, sure)
        telling = Telling(self._ownership, store, self._tip, config.settlement_period + config.expiring_notice, sure)
        settler.start()
        watcher.start()
        telling.start()
        if self._is_counted:
            self._figures.start()
        self._parts = [settler, watcher, telling, settling, notes, self._figures]

    async def stop(self) -> None:
        """Leave: requests in flight have been answered by now; closing the store's connection frees the shards."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in self._parts:
            await part.stop()
        await self._prices.stop()
        await self._tip.stop()
        await self._gauges.stop()
        await self._steered.stop()
        if self._life is not None:
            await self._store.link.stop()
        await self._signer.link.stop()
        await self._peers.stop()

    # --- interlocks (design section 8) ---

    def trouble(self) -> str:
        """Return the code of the interlock that is tripped, or an empty text."""
        if self._steered.is_drained and not self._steered.has_joined:
            return "machine_drained"
        if not self._signer.link.is_up:
            return "signer_unavailable"
        if self._life is None or not self._store.link.is_up:
            return "store_unavailable"
        if self._store.lease_ends < asyncio.get_running_loop().time():
            return "owner_moved"  # stopped or starved: our shards may have been given away
        if self._committer.is_full:
            return "overloaded"
        return ""

    def _check_exposure(self) -> None:
        if self._is_over:
            raise Unavailable("too_much_unsettled")

    def _check_interlocks(self) -> ChannelLife:
        trouble = self.trouble()
        if trouble or self._life is None:
            raise Unavailable(trouble or "store_unavailable")
        return self._life

    def ready(self) -> Reply:
        """Answer /readyz: 200 if payments would be accepted, else 503 with the tripped interlock's code."""
        trouble = self.trouble()
        if not trouble and not self._ownership.is_complete:
            trouble = "owner_moved"
        if not trouble and len(self._ownership.stopped) >= self._ownership.shard_count:
            trouble = "shard_stopped"
        if trouble:
            return problem(Unavailable(trouble, self._store_said() if trouble == "store_unavailable" else ""))
        if self._is_over:
            return problem(Unavailable("too_much_unsettled", self._how_much()))
        if doubt := self._tip.clock_doubt:
            return problem(Unavailable("clock_doubtful", f"{doubt}; {self._highest_file.name} may be at fault (OPERATING.md)"))
        if self._tip.is_doubtful:  # no channel opens, and those near their expiry take no payments
            return problem(Unavailable("chain_unavailable", self._tip.doubt))
        content: dict[str, object] = {
            "ready": True,
            "workers": self._workers_of(self._config.cluster.machine if self._config.cluster is not None else ""),
            "server_pubkey": self._signer.public_key.hex(),
            "uneconomic_channels": len(self._settling.uneconomic),
            "stopped_shards": {str(shard): why for shard, why in self._ownership.stopped.items()},
            "granian_door": self._granian_way(),
            "exposure": {
                "open_value": self._unsettled.open,
                "total_value_max": self._config.total_exposure_max,
                "unsettled_value": self._unsettled.total,
                "unsettled_value_max": self._config.unsettled_value_max,
            },
        }
        if (cluster := self._config.cluster) is not None:
            content["cluster"] = {
                "machine": cluster.machine,
                "workers": self._ownership.worker_count,
                "certificate_ends": cluster.certificate_ends,
                "trouble": self._trouble_with_certificate(),
            }
        if ahead := self._clock.kept_ahead():
            content["clock_ahead_seconds"] = ahead
        if self._config.chain.has_network and self._tip.tip is not None:
            tip = self._tip.tip
            content["chain"] = {"height": tip.height, "tip_age_seconds": max(0, self._clock.now() - tip.time)}
        return json_reply(200, content)

    def _workers_of(self, machine: str) -> int:
        """Return how many workers of a machine the store knows; empty: of the one there is without a cluster."""
        return sum(machine_of(address) == machine for address in self._ownership.peers)

    def _look(self) -> dict[Family, int | dict[str, int]]:
        """Return what this worker's gauges show."""
        config, tip, ready = self._config, self._tip.tip, self.ready()
        found: dict[Family, int | dict[str, int]] = {
            families.READY: ready.status == 200,
            families.NOT_READY: {families.OUTCOMES[ready.outcome]: 1} if ready.is_problem else {},
            families.SIGNER_UP: self._signer.link.is_up,
            families.STORE_UP: self._life is not None and self._store.link.is_up,
            families.CHAIN_DOUBTFUL: self._tip.is_doubtful,
            families.CLOCK_DOUBTFUL: bool(self._tip.clock_doubt),
            families.CLOCK_AHEAD: self._clock.kept_ahead(),
            families.TIP_HEIGHT: tip.height if tip is not None and config.chain.has_network else 0,
            families.TIP_TIME: tip.time if tip is not None and config.chain.has_network else 0,
            families.CERTIFICATE: config.cluster.certificate_ends if config.cluster is not None else 0,
            families.CONNECTIONS: self._connections(),
            families.OPENS_FROZEN: self._steered.is_frozen,
            families.OPEN_VALUE: self._unsettled.open,
            families.UNSETTLED: self._unsettled.total,
            families.OPEN_LIMIT: config.total_exposure_max,
            families.UNSETTLED_LIMIT: config.unsettled_value_max,
        }
        if self._life is not None:
            found |= {
                families.WAITING: self._committer.queue.waiting,
                families.LATER: self._payments.postponed,
                families.LOADED: len(self._channels),
                families.OWNED: self._ownership.owned,
                families.SHARDS: self._ownership.shard_count,
                families.STOPPED: len(self._ownership.stopped),
                families.UNECONOMIC: len(self._settling.uneconomic),
                families.NO_ESTIMATE: not self._settling.has_estimates,
                **self._figures.gauges(),
            }
        return found

    # --- requests ---

    async def pay(self, path: str, query: str, address: int = 0) -> Reply:
        """PUT on a channel, where no compiled door takes it. address: whom it is counted for."""
        try:
            self._check_interlocks()
            return await self._payments.pay(path, query, SHARED, address)
        except NotOwner as error:
            outpoint = error.outpoint
        except Unavailable as error:
            self._tally.answered(SHARED, error.row.number)
            raise
        try:
            reply = await self._elsewhere(PeerRequest("pay", outpoint, path, query))
        except Unavailable as error:
            self._tally.answered(SHARED, error.row.number)
            raise
        self._tally.answered(SHARED, reply.outcome)
        self._limits.blame(address, reply.status)
        return reply

    async def pay_batch(self, body: bytes, address: int = 0) -> Reply:
        """POST of many payments, for any channels: each is answered, and counted for its address, as its PUT would be, after one
        group commit for all."""
        self._check_interlocks()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bytes] = loop.create_future()

        def done(answers: bytes) -> None:
            if not future.done():
                future.set_result(answers)

        batch = Batch(body, _to_text, done, loop.call_soon, address)
        try:
            batch.submit(self._payments.intake)
        except ValueError as error:
            raise Rejection("invalid_batch", str(error)) from error
        return Reply(200, await future, form=Form.BATCH)

    async def sell(self, sales: list[bytes]) -> list[bytes]:
        """What sellers ask for, for any channels (`sale.pyx` has its form); return the bodies of the answers, in order."""
        future: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        self.submit(sales, lambda answers: None if future.done() else future.set_result(answers))
        return await future

    def submit(self, sales: list[bytes], done: Callable[[list[bytes]], None]) -> None:
        """Do the same, and have `done` called with the answers. Raises Unavailable, and then nothing was done."""
        self._check_interlocks()
        SaleBatch(sales, done, asyncio.get_running_loop().call_soon).submit(self._payments.intake)

    def refused(self, error: PaychanError) -> None:
        """Count a sale that was refused before it came here."""
        self._tally.answered(SALE_DOOR, error.row.number)

    def now(self) -> int:
        """Return the unix seconds that reservations are judged by."""
        return self._clock.now()

    @property
    def books(self) -> Books:
        """What sellers read. Raises Unavailable."""
        self._check_interlocks()
        return self._books

    async def close(self, path: str, query: str) -> Reply:
        """DELETE on a channel."""
        status, outpoint, _ = read_channel_request(path, query)
        if status:
            return refusal_of_form(status, query)
        return await self._dispatch(PeerRequest("close", outpoint, path, query))

    async def open(self, query: str) -> Reply:
        """POST a new channel. Counted here, whoever opens it."""
        outcome = "store_unavailable"  # as a bug of ours is answered
        try:
            reply = await self._open(query)
            outcome = orjson.loads(reply.body)["code"] if reply.is_problem else "opened"  # another worker's, perhaps
        except PaychanError as error:
            outcome = error.code
            raise
        finally:
            self._tally.add(families.OPENS.cell(outcome))
        return reply

    async def _open(self, query: str) -> Reply:
        """Open it: everything that can be judged here is, before the chain is asked."""
        self._check_interlocks()
        self._check_exposure()
        key = self._signer.public_key
        request = self._parse_open(query, key)
        if self._tip.is_doubtful:
            raise Unavailable("chain_unavailable", self._tip.doubt)
        try:
            found = await self._opening.find_funding(request, key)
        except Rejection as error:
            if request.outpoint is None or error.code != "funding_not_found":
                raise
            found = FundingOutput(request.outpoint, 0, 0)
        return await self._dispatch(
            PeerRequest("open", found.outpoint, "", query, found.value, found.confirmations, found.is_coinbase)
        )

    def _parse_open(self, query: str, key: bytes) -> OpenRequest:
        """Return a checked open request. Raises Rejection; for its expiry only by a time that has been held against the chain."""
        if doubt := self._tip.clock_doubt:
            raise Unavailable("clock_doubtful", doubt)
        try:
            return self._opening.parse(query, key, self._clock.now())
        except Rejection as error:
            if error.code in EXPIRY_CODES and self._tip.is_doubtful:
                raise Unavailable("chain_unavailable", self._tip.doubt) from error
            raise

    async def settle(self, outpoint: bytes) -> Reply:
        """Have a channel settled by its owner, because its time has come."""
        return await self._dispatch(PeerRequest("settle", outpoint))

    async def funding_info(self, query: str) -> Reply:
        """GET fundingInfo: pure computation, once the signer's key is known. Nobody is told where to lock money as long as no
        channel would open: chain or time are in doubt, too much is unsettled, or openings are frozen."""
        key = self._signer.public_key
        if not key:
            raise Unavailable("signer_unavailable")
        self._check_exposure()
        self._steered.check_opens()
        if self._tip.clock_doubt:
            raise Unavailable("clock_doubtful", self._tip.clock_doubt)
        if self._tip.is_doubtful:
            raise Unavailable("chain_unavailable", self._tip.doubt)
        return self._opening.funding_info(query, key, self._clock.now())

    def terms(self) -> Reply:
        """What sellers tell their payers of the channels that would be opened now. Raises Unavailable."""
        key = self._signer.public_key
        if not key:
            raise Unavailable("signer_unavailable")
        return self._opening.terms_of_all(key)

    # --- here or elsewhere ---

    async def _dispatch(self, request: PeerRequest) -> Reply:
        try:
            return await self._answer(request)
        except NotOwner:
            return await self._elsewhere(request)

    async def _answer(self, request: PeerRequest) -> Reply:
        """Answer a request for one of our own shards. Raises NotOwner, PaychanError."""
        life = self._check_interlocks()
        if request.verb == "pay":
            return await self._payments.pay(request.path, request.query, FORWARDED)
        if request.verb == "sell":
            return await self._payments.sell(bytes.fromhex(request.query))
        if request.verb == "close":
            return await life.close(request.path, request.query)
        if request.verb == "settle":
            return await life.settle(request.outpoint)
        self._check_exposure()
        key = self._signer.public_key
        return await life.open(self._parse_open(request.query, key), request.funding, key)

    async def _answer_peer(self, request: PeerRequest) -> Reply:
        try:
            return await self._answer(request)
        except PaychanError as error:
            return problem(error)
        except NotOwner:
            raise
        except Exception as error:  # a bug of ours: without an answer the other worker would wait for long
            log.error("internal error in a forwarded request: %s", type(error).__name__)
            return INTERNAL_ERROR

    def _pay_elsewhere(self, request: PaymentRequest, outpoint: bytes, shard: int) -> None:
        """Have the owner of a channel take a payment that came through a compiled door."""
        link = self._peers.link(self._ownership.peer_of(outpoint))
        if link is not None:
            self._payments.intake.links[shard] = link  # from now on without asking here
            link.ask(request, outpoint)
        else:
            self._pay_patiently(request, outpoint)

    def _pay_patiently(self, request: PaymentRequest, outpoint: bytes) -> None:
        """Look for the owner of a channel that is changing hands."""
        verb = "sell" if request.is_sale else "pay"
        self._payments.answer_later(request, self._elsewhere(PeerRequest(verb, outpoint, request.path, request.query)))

    async def _elsewhere(self, request: PeerRequest) -> Reply:
        """Send a request to its shard's owner. While the shard changes hands, wait and look again, a few times; not for an
        owner on a machine that cannot be reached: that may last, and many would wait."""
        for seconds in LOOK_AGAIN_SECONDS:
            peer = self._ownership.peer_of(request.outpoint)
            if self._peers.is_lost(peer):
                break
            reply = await self._peers.forward(peer, request) if peer else None
            if reply is not None:
                return reply
            await self._ownership.wait_for_change(seconds)
            try:
                return (await self._answer(request))._replace(outcome=PASSED_ON)  # it was counted as one that came from elsewhere
            except NotOwner:
                continue
        raise Unavailable("owner_moved")
