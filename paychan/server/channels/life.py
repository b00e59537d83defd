"""What this worker does for the channels of its own shards besides taking payments: open, close, settle. It knows no HTTP and no
other worker.

Every method raises NotOwner when the shard is another worker's: the caller sends the request there.
"""

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..._fast.channel import ChannelTable, read_channel_request, shard_of
from ..._fast.payment import split_payment
from ..._fast.status import Status
from ...chain.base import FundingOutput
from ...core.channel import ABSENT, ChannelState, ChannelTerms, Event, Phase, next_phase
from ...core.errors import Rejection, Unavailable
from ...core.outpoint import format_outpoint
from ...core.payment import Payment
from ...core.settlement import verify_payment
from ...rpc.store_messages import Entry, EntryStatus
from ..protocol.parameters import Query
from ..protocol.replies import Reply, closed_result, payment_result, problem, problem_of_status
from ..settlement.settling import Settling
from ..shards.committer import LOST, Committer
from ..shards.loading import Loader
from ..shards.ownership import NotOwner
from .opening import Opening, OpenRequest
from .proving import Proving

CLOSED_SECONDS = 1.0
"""How long a DELETE is answered as the one before it was, while the phase is the same. A look costs the node some calls."""

CLOSED_MAX = 10_000
"""Channels whose last DELETE is remembered; some 5 MB."""


@dataclass(frozen=True)
class _Closed:
    """What a DELETE brought: the answer or the error, from when (seconds of the loop) in which phase."""

    at: float
    phase: int
    outcome: Reply | Unavailable


async def _nobody_asks() -> None:
    """What may be opened is known here."""


class ChannelLife:
    """The rules of a channel's life, applied to memory and store in the order that loses no money."""

    def __init__(
        self,
        channels: ChannelTable,
        shard_count: int,
        committer: Committer,
        loader: Loader,
        settling: Settling,
        opening: Opening,
        proving: Proving,
        clock: Callable[[], int],
        own_url: str,
        exposure_max: int,
        check_opens: Callable[[], None] = lambda: None,
        ask_opens: Callable[[], Awaitable[None]] = _nobody_asks,
    ) -> None:
        """exposure_max: satoshi; a channel that holds more is settled, also if its opening payment brought it all. check_opens():
        raises Unavailable while no channel may be opened, as far as is known here; ask_opens() asks the store first."""
        self._channels, self._shard_count, self._committer, self._loader = channels, shard_count, committer, loader
        self._settling, self._opening, self._proving = settling, opening, proving
        self._clock, self._own_url, self._check_opens, self._ask_opens = clock, own_url, check_opens, ask_opens
        self._exposure_max = exposure_max
        self._closed: OrderedDict[bytes, _Closed] = OrderedDict()
        self._early: set[asyncio.Task[Reply]] = set()

    def limit(self, exposure_max: int) -> None:
        """Have another limit from now on, satoshi."""
        self._exposure_max = exposure_max

    async def _load_or_reject(self, outpoint: bytes) -> None:
        """Enter a channel of ours into the table. Raises Rejection("no_such_channel"), Unavailable, NotOwner."""
        if not await self._loader.load(outpoint):
            raise Rejection("no_such_channel")

    def _refuse_if_stopped(self, outpoint: bytes) -> None:
        """Keep payers from channels whose accounts are in doubt. Settling goes on, by the settler: on what is durable."""
        if self._channels.is_stopped(outpoint):
            raise Unavailable("shard_stopped")

    # --- open ---

    async def open(self, request: OpenRequest, funding: FundingOutput, server_pubkey: bytes) -> Reply:
        """Open a channel on a funding output that was looked up; value 0: there is none, or it is spent. Then the channel may
        still exist, and whoever lost the answer to an open that gave up everything is told so."""
        terms = self._opening.terms(request, funding, server_pubkey, self._clock())
        if await self._loader.load(terms.outpoint):
            return self._exists(terms, request.payment)
        if not funding.value:
            raise Rejection("funding_not_found")
        self._refuse_if_stopped(terms.outpoint)
        self._check_opens()  # who lost the answer to an earlier open has been told by now
        received = self._opening.check(terms, request.payment, funding)
        try:
            await self._proving.prove(terms, request.payment)
        except Rejection:  # maybe of one that opened meanwhile, and is settled already
            if await self._loader.load(terms.outpoint):
                return self._exists(terms, request.payment)
            raise
        await self._ask_opens()  # nothing is waited for from its check to the write
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
            credit=received,
        )
        outcome = await self._committer.write(entry)
        _raise_if_lost(outcome)
        if outcome == EntryStatus.STOPPED:
            raise Unavailable("shard_stopped")
        if outcome == EntryStatus.CONFLICT and await self._loader.load(terms.outpoint):
            return self._exists(terms, request.payment)
        if outcome != EntryStatus.OK:
            raise NotOwner(terms.outpoint)
        if phase == Phase.CLOSING:
            return await self.settle_begun(terms.outpoint, received)
        if received > self._exposure_max:
            self.settle_early(terms.outpoint)
        return payment_result(201, request.payment.change_value, received, self._location(terms.outpoint))

    def _location(self, outpoint: bytes) -> str:
        """Return where the channel is paid: at the port of this worker, its owner, if clients can reach it."""
        return f"{self._own_url}/v1/channels/{format_outpoint(outpoint)}"

    def _exists(self, terms: ChannelTerms, payment: Payment) -> Reply:
        """Tell the payer that the channel is there. A stranger, who names another's outpoint, is told as if it were not."""
        outpoint = terms.outpoint
        if self._channels.redeem_script(outpoint) != terms.redeem_script:
            raise Rejection("funding_not_found")
        if not verify_payment(terms, payment):
            raise Rejection("bad_signature", parameter="payment")
        if self._channels.phase(outpoint) == Phase.SETTLED:
            return problem(Rejection("channel_settled"))
        return problem(Rejection("channel_exists"), self._location(outpoint))

    # --- close and settle ---

    async def close(self, path: str, query: str) -> Reply:
        """Settle a channel for whoever holds its newest payment."""
        status, outpoint, token = read_channel_request(path, query)
        status = status or split_payment(token)[0]
        if status:
            return refusal_of_form(status, query)
        self._refuse_if_stopped(outpoint)
        await self._load_or_reject(outpoint)
        _raise_if_lost(await self._committer.wait_for(outpoint))
        await self._load_or_reject(outpoint)
        if not hmac.compare_digest(self._channels.newest_payment(outpoint), token):
            raise Rejection("not_newest_payment", parameter="payment")
        await self._begin_closing(outpoint)
        return await self._close_once(outpoint)

    async def _close_once(self, outpoint: bytes) -> Reply:
        """Carry the settlement on, unless that was tried a moment ago: then say what became of it."""
        known, is_loaded = self._closed.get(outpoint), self._channels.is_loaded(outpoint)
        is_same = known is not None and is_loaded and known.phase == self._channels.phase(outpoint)
        if known is None or not is_same or asyncio.get_running_loop().time() - known.at >= CLOSED_SECONDS:
            known = await self._close_now(outpoint)
        if isinstance(known.outcome, Unavailable):
            raise known.outcome
        return known.outcome

    async def _close_now(self, outpoint: bytes) -> _Closed:
        outcome: Reply | Unavailable
        try:
            outcome = await self.settle_begun(outpoint, 0)
        except Unavailable as error:
            outcome = error
        if not self._channels.is_loaded(outpoint):  # its state has changed, and is not known here
            return _Closed(0.0, 0, outcome)
        closed = self._closed[outpoint] = _Closed(asyncio.get_running_loop().time(), self._channels.phase(outpoint), outcome)
        self._closed.move_to_end(outpoint)
        if len(self._closed) > CLOSED_MAX:
            self._closed.popitem(last=False)
        return closed

    async def settle(self, outpoint: bytes) -> Reply:
        """Settle a channel because its time has come, or go on settling it."""
        await self._load_or_reject(outpoint)
        await self._begin_closing(outpoint)
        return await self.settle_begun(outpoint, 0)

    def settle_early(self, outpoint: bytes) -> None:
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

    async def settle_begun(self, outpoint: bytes, received: int) -> Reply:
        """Carry a settlement as far as it goes now; the channel takes no more payments, durably."""
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
