"""What this worker does for the channels of its own shards: pay, open, close, settle. It knows no HTTP and no other worker.

Every method raises NotOwner when the shard is another worker's: the caller sends the request there.
"""

import asyncio
import hmac
from collections.abc import Callable

from .._fast.channel import ChannelTable, read_channel_request, shard_of
from .._fast.payment import split_payment
from .._fast.status import Status
from ..chain.base import FundingOutput
from ..channel import ABSENT, ChannelState, ChannelTerms, Event, Phase, next_phase
from ..errors import BY_NUMBER, Rejection, Unavailable
from ..network import Network, decode_address
from ..outpoint import format_outpoint
from ..rpc.connection import ConnectionGone, RemoteRefusal
from ..rpc.store_client import StoreClient
from ..rpc.store_messages import Entry, EntryStatus
from ..units import SECONDS_PER_HOUR
from .committer import LOST, Committer
from .funding import FundingChecks
from .opening import Opening, OpenRequest
from .parameters import Query
from .peers import NotOwner
from .replies import Reply, closed_result, payment_result, problem, problem_of_status
from .settling import Settling
from .tip import TipFollower

ATTEMPTS_MAX = 4
"""How often one request is judged: once, after loading the channel, and again when its shard changed hands meanwhile."""

DOUBT_MARGIN_SECONDS = 6 * SECONDS_PER_HOUR
"""While the chain cannot be trusted, channels that are so much nearer to their settlement take no payments either."""

_ACCEPTED, _EXHAUSTED, _REPLAYED = int(Status.ACCEPTED), int(Status.EXHAUSTED), int(Status.REPLAYED)


class Engine:
    """The rules of a channel's life, applied to memory and store in the order that loses no money."""

    def __init__(
        self,
        network: Network,
        channels: ChannelTable,
        shard_count: int,
        committer: Committer,
        store: StoreClient,
        settling: Settling,
        opening: Opening,
        funding: FundingChecks,
        tip: TipFollower,
        clock: Callable[[], int],
        exposure_max: int,
    ) -> None:
        self._network, self._channels, self._shard_count = network, channels, shard_count
        self._committer, self._store, self._settling, self._opening = committer, store, settling, opening
        self._funding, self._tip, self._clock, self._exposure_max = funding, tip, clock, exposure_max
        self._early: set[asyncio.Task[Reply]] = set()
        self._loading: dict[bytes, asyncio.Task[bool]] = {}

    # --- pay ---

    async def pay(self, path: str, query: str) -> Reply:
        """Judge a payment, make it durable, then acknowledge it: never in another order."""
        channels, ignore_change_address = self._channels, False
        for _ in range(ATTEMPTS_MAX):
            doubt = DOUBT_MARGIN_SECONDS if self._tip.is_doubtful else 0
            status = channels.pay(path, query, self._clock() + doubt, ignore_change_address)
            if status in (_ACCEPTED, _EXHAUSTED, _REPLAYED):
                reply = await self._acknowledge(status)
                if reply is not None:
                    return reply
            elif status == Status.NOT_LOADED:
                await self._load_or_reject(channels.outpoint)
            elif status == Status.UNCHECKED:
                await self._funding.check(channels.outpoint)
            elif status == Status.NOT_OWNED:
                raise NotOwner(channels.outpoint)
            elif status == Status.HAS_CHANGE_ADDRESS:
                Query(query).optional("change_address", lambda text: decode_address(self._network, text))
                ignore_change_address = True
            elif status == Status.CHANNEL_EXPIRING and doubt:
                raise Unavailable("chain_unavailable")
            else:
                refusal = self._refusal(status, query)  # before waiting: the shortfall is the last judgement's
                if await self._stands(status):
                    return refusal
        raise Unavailable("owner_moved")

    async def _acknowledge(self, status: int) -> Reply | None:
        """Answer a payment that the table took, once it is durable. None: it did not become so, and is to be judged again."""
        channels = self._channels
        outpoint, left, received, exposure = channels.outpoint, channels.value_left, channels.value_received, channels.exposure
        if status == _REPLAYED:
            outcome = EntryStatus.OK if channels.is_durable(outpoint) else await self._committer.wait_for(outpoint)
            received = 0
        else:
            outcome = await self._committer.make_durable(outpoint)
        if outcome != EntryStatus.OK:
            _raise_if_lost(outcome)
            return None
        if status == _EXHAUSTED:
            return await self._settle(outpoint, received)
        if exposure > self._exposure_max:
            self._settle_early(outpoint)
        return payment_result(200, left, received)

    async def _stands(self, status: int) -> bool:
        """Return whether a refusal stands. One judged on a state that is not durable yet waits for it: once that is durable,
        no later state overturns the refusal; if the write failed, the request must be judged again.
        """
        if BY_NUMBER[status].status == 400 and status < Status.OUT_OF_ORDER:
            return True  # refused by its form alone
        if status == Status.NO_SUCH_ROUTE:
            return True
        outpoint = self._channels.outpoint
        if not self._channels.is_loaded(outpoint) or self._channels.is_durable(outpoint):
            return True
        outcome = await self._committer.wait_for(outpoint)
        _raise_if_lost(outcome)
        return outcome == EntryStatus.OK

    def _refusal(self, status: int, query: str) -> Reply:
        if status == Status.OUT_OF_ORDER:
            detail = f"out-of-order payment (assigns {self._channels.shortfall} satoshi less value to server)"
            return problem(Rejection("out_of_order", detail, "payment"))
        return refusal_of_form(status, query)

    # --- loading ---

    async def _load_or_reject(self, outpoint: bytes) -> None:
        """Enter a channel of ours into the table. Raises Rejection("no_such_channel"), Unavailable, NotOwner."""
        if not await self._load(outpoint):
            raise Rejection("no_such_channel")

    async def _load(self, outpoint: bytes) -> bool:
        """Make sure that a channel is in the table; return whether it exists. Requests for one channel share one read."""
        if not self._channels.owns(outpoint):
            raise NotOwner(outpoint)
        if self._channels.is_loaded(outpoint):
            return True
        task = self._loading.get(outpoint)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._read(outpoint))
            self._loading[outpoint] = task
            task.add_done_callback(lambda _: self._loading.pop(outpoint, None))
        if not await asyncio.shield(task):
            return False
        if not self._channels.is_loaded(outpoint):
            raise NotOwner(outpoint)  # the shard moved between the end of the read and now
        return True

    async def _read(self, outpoint: bytes) -> bool:
        shard = shard_of(outpoint, self._shard_count)
        epoch = self._channels.epoch_of(shard)
        try:
            stored = await self._store.load(outpoint)
        except (ConnectionGone, RemoteRefusal) as error:
            raise Unavailable("store_unavailable") from error
        if epoch == 0 or self._channels.epoch_of(shard) != epoch:
            raise NotOwner(outpoint)  # what was read may be older than what another owner wrote since
        if stored is None:
            return False
        if not self._channels.is_loaded(outpoint):
            self._channels.load(ChannelTerms.parse(outpoint, stored.terms), ChannelState.parse(stored.state))
        return True

    # --- open ---

    async def open(self, request: OpenRequest, funding: FundingOutput, server_pubkey: bytes) -> Reply:
        """Open a channel on a funding output that was looked up; value 0: there is none, or it is spent. Then the channel may
        still exist, and whoever lost the answer to an open that gave up everything is told so."""
        terms = self._opening.terms(request, funding, server_pubkey, self._clock())
        if await self._load(terms.outpoint):
            return self._exists(terms.outpoint)
        if not funding.value:
            raise Rejection("funding_not_found")
        received = self._opening.check(terms, request.payment, funding)
        phase = next_phase(ABSENT, Event.EXHAUST if request.payment.exhausts else Event.OPEN)
        state = ChannelState(phase, request.payment)
        shard = shard_of(terms.outpoint, self._shard_count)
        entry = Entry(
            shard=shard,
            epoch=self._channels.epoch_of(shard),
            outpoint=terms.outpoint,
            expected_phase=ABSENT,
            expected_change_value=terms.funding_value,
            state=state.serialize(),
            extra=terms.serialize(),
        )
        outcome = await self._committer.write(entry)
        _raise_if_lost(outcome)
        if outcome == EntryStatus.CONFLICT and await self._load(terms.outpoint):
            return self._exists(terms.outpoint)
        if outcome != EntryStatus.OK:
            raise NotOwner(terms.outpoint)
        if phase == Phase.CLOSING:
            return await self._settle(terms.outpoint, received)
        location = f"/v1/channels/{format_outpoint(terms.outpoint)}"
        return payment_result(201, request.payment.change_value, received, location)

    def _exists(self, outpoint: bytes) -> Reply:
        if self._channels.phase(outpoint) == Phase.SETTLED:
            return problem(Rejection("channel_settled"))
        return problem(Rejection("channel_exists"), f"/v1/channels/{format_outpoint(outpoint)}")

    # --- close and settle ---

    async def close(self, path: str, query: str) -> Reply:
        """Settle a channel for whoever holds its newest payment."""
        status, outpoint, token = read_channel_request(path, query)
        status = status or split_payment(token)[0]
        if status:
            return refusal_of_form(status, query)
        await self._load_or_reject(outpoint)
        _raise_if_lost(await self._committer.wait_for(outpoint))
        await self._load_or_reject(outpoint)
        if not hmac.compare_digest(self._channels.newest_payment(outpoint), token):
            raise Rejection("not_newest_payment", parameter="payment")
        await self._begin_closing(outpoint)
        return await self._settle(outpoint, 0)

    async def settle(self, outpoint: bytes) -> Reply:
        """Settle a channel because its time has come, or go on settling it."""
        await self._load_or_reject(outpoint)
        await self._begin_closing(outpoint)
        return await self._settle(outpoint, 0)

    def _settle_early(self, outpoint: bytes) -> None:
        """Settle a channel that holds more than the configured exposure, without letting the payer wait."""
        task = asyncio.get_running_loop().create_task(self.settle(outpoint))
        self._early.add(task)
        task.add_done_callback(self._settled_early)

    def _settled_early(self, task: "asyncio.Task[Reply]") -> None:
        self._early.discard(task)
        if not task.cancelled():
            task.exception()  # it has been logged, and the settler goes on with what is unfinished

    async def _begin_closing(self, outpoint: bytes) -> None:
        """Refuse further payments, durably. Payments queued before go into the same write or an earlier one."""
        if self._channels.phase(outpoint) == Phase.OPEN:
            self._channels.begin_closing(outpoint)
        elif self._channels.is_durable(outpoint):
            return
        outcome = await self._committer.make_durable(outpoint)
        _raise_if_lost(outcome)
        if outcome != EntryStatus.OK:
            raise NotOwner(outpoint)

    async def _settle(self, outpoint: bytes, received: int) -> Reply:
        state = await self._settling.settle(outpoint)
        if state.settlement_txid in (b"", bytes(32)):
            raise Rejection("funding_spent")  # by another transaction than a settlement of ours
        return closed_result(state.payment.change_value, received, state.settlement_txid)


def refusal_of_form(status: int, query: str) -> Reply:
    """Return the answer to a request that the compiled parser refused. Raises Rejection naming a repeated parameter."""
    if status == Status.REPEATED_PARAMETER:
        for name in ("payment", "change_address"):
            Query(query).optional(name, str)
    return problem_of_status(status)


def _raise_if_lost(outcome: int) -> None:
    if outcome == LOST:
        raise Unavailable("store_unavailable")
