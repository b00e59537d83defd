"""What is not plain about payments: interlocks, channels that must be read first, doubts about the chain, refusals that must wait.

The plain part is compiled (`paychan/_fast/intake.pyx`) and asks this one for the rest.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..._fast.channel import ChannelTable
from ..._fast.intake import FutureRequest, Intake, PaymentRequest
from ..._fast.sale import FutureSale
from ..._fast.status import Status
from ..._fast.tally import EMPTIED, SHARED
from ...core.errors import BY_NUMBER, PaychanError, Rejection, Unavailable
from ...core.network import Network, decode_address
from ...core.units import SECONDS_PER_HOUR
from ...rpc.store_messages import EntryStatus
from ..protocol.parameters import Query
from ..protocol.replies import INTERNAL_ERROR, Reply, problem, problem_of_status
from ..settlement.tip import TipFollower
from ..shards.committer import LOST, Committer
from ..shards.loading import Loaded, Loader
from ..shards.ownership import NotOwner
from .books import Books
from .funding import FundingChecks
from .life import ChannelLife, refusal_of_form
from .notes import Notes

DOUBT_MARGIN_SECONDS = 6 * SECONDS_PER_HOUR
"""While the chain cannot be trusted, channels that are so much nearer to their settlement take no payments either."""

STATUSES_MAX = 256

LATER_MAX = 20_000
"""Payments of one worker that a task each looks after: the funding output is looked up, the owner looked for. They wait for others
than the disk, some for ten seconds, and cost some 3 kB each."""

log = logging.getLogger("paychan.payments")


def _is_refused_by_form(status: int) -> bool:
    """Return whether a refusal needs no look at the channel: no later state of it overturns that."""
    row = BY_NUMBER.get(status)
    by_request = row is not None and ((row.status == 400 and status < Status.OUT_OF_ORDER) or status == Status.NO_SUCH_ROUTE)
    by_request = by_request or status in (Status.TOO_MANY_FAILURES, Status.SHARD_STOPPED)  # not judged at all
    return by_request and status != Status.REPEATED_PARAMETER  # whose answer names the parameter


REFUSALS_BY_FORM = [problem_of_status(status) if _is_refused_by_form(status) else None for status in range(STATUSES_MAX)]

_MISSING = problem(Rejection("no_such_channel"))


class Payments:
    """The rules that the compiled intake asks. `trouble()` names the interlock that is tripped; `elsewhere(request, outpoint,
    shard)` sends a request to the worker that owns its channel.
    """

    lost = problem(Unavailable("store_unavailable"))
    moved = problem(Unavailable("owner_moved"))
    overloaded = problem(Unavailable("overloaded"))

    def __init__(
        self,
        network: Network,
        channels: ChannelTable,
        committer: Committer,
        loader: Loader,
        life: ChannelLife,
        funding: FundingChecks,
        tip: TipFollower,
        clock: Callable[[], int],
        exposure_max: int,
        notes: Notes,
        books: Books,
        trouble: Callable[[], str],
        elsewhere: Callable[[PaymentRequest, bytes, int], None],
    ) -> None:
        self._network, self._channels, self._committer, self._loader = network, channels, committer, loader
        self._life, self._funding, self._tip, self._clock = life, funding, tip, clock
        self._exposure_max, self._notes, self._books = exposure_max, notes, books
        self._trouble, self.elsewhere = trouble, elsewhere
        self._tasks: set[asyncio.Task[None]] = set()
        self.intake = Intake(channels, committer.queue, self, REFUSALS_BY_FORM, exposure_max)

    def limit(self, exposure_max: int) -> None:
        """Have another limit of what one channel may hold from now on, satoshi."""
        self._exposure_max = exposure_max
        self.intake.limit(exposure_max)

    async def pay(self, path: str, query: str, door: int = SHARED) -> Reply:
        """Take one payment for a shard of ours; return its answer. door: where it is counted (tally.pxd). Raises NotOwner."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.intake.submit(FutureRequest(self.intake, path, query, future, door))
        return await future

    async def sell(self, sale: bytes) -> Reply:
        """Take one sale (`sale.pyx` has its form) for a shard of ours; return its answer. Raises NotOwner."""
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.intake.submit(FutureSale(self.intake, sale, future))
        return await future

    # --- what the intake asks ---

    def look(self) -> tuple[Reply | None, int]:
        """Return the answer to all payments while an interlock is tripped, and the time to judge by (unix seconds). Both hold for
        this turn of the event loop."""
        asyncio.get_running_loop().call_soon(self.intake.look_again)
        refusal = None
        if trouble := self._trouble():
            refusal = problem(Unavailable(trouble))
        elif doubt := self._tip.clock_doubt:
            refusal = problem(Unavailable("clock_doubtful", doubt))
        return refusal, self._clock() + (DOUBT_MARGIN_SECONDS if self._tip.is_doubtful else 0)

    def not_owner(self, outpoint: bytes) -> NotOwner:
        return NotOwner(outpoint)

    def odd(self, request: PaymentRequest, status: int, outpoint: bytes) -> None:
        """Take over a request whose judgement was not plain: remove the obstacle and have it judged again, or answer it."""
        if status == Status.NOT_LOADED:
            self._loader.want(outpoint, lambda loaded: self._loaded(request, loaded))
        elif status == Status.UNCHECKED:
            self.answer_later(request, self._check_funding(outpoint))
        elif status == Status.HAS_CHANGE_ADDRESS:
            self._judge_change_address(request)
        else:
            self._refuse(request, status, outpoint)

    def exhausted(self, request: PaymentRequest, outpoint: bytes, value_received: int) -> None:
        """Settle a channel that gave up everything (in satoshi: `value_received` of it now), and answer with its settlement. If too
        much is going on, the settler does it."""
        self.answer_later(request, self._settle(outpoint, value_received))

    async def _settle(self, outpoint: bytes, value_received: int) -> Reply:
        return (await self._life.settle_begun(outpoint, value_received))._replace(outcome=EMPTIED)

    def exposed(self, outpoint: bytes) -> None:
        """Settle a channel that holds more than the configured exposure, or have the signer note its payment, without letting the
        payer wait."""
        if not self._channels.is_loaded(outpoint):
            return  # another worker's by now
        if self._channels.received(outpoint) > self._exposure_max:
            self._life.settle_early(outpoint)
        else:
            self._notes.want(outpoint)

    def time(self) -> int:
        """Return the unix seconds that reservations are judged by."""
        return self._clock()

    def sold_out(self, outpoint: bytes) -> None:
        """Settle a channel whose last payment came with a sale, without letting the seller wait."""
        self._life.settle_early(outpoint)

    def proved(self, request: PaymentRequest, outpoint: bytes) -> None:
        """Tell who has signed a payment on a channel what is known of it."""
        self.answer_later(request, self._books.snapshot(outpoint))

    def paid(self, body: bytes) -> Reply:
        return Reply(200, body)

    def failed(self, error: Exception) -> Reply:
        """Log a bug of ours and return the answer. Its text could hold a request's bytes, so only its kind is told."""
        log.error("internal error in a payment: %s", type(error).__name__)
        return INTERNAL_ERROR

    # --- obstacles ---

    def _loaded(self, request: PaymentRequest, loaded: Loaded) -> None:
        if loaded is Loaded.MISSING:
            request.answer(_MISSING)
        elif loaded is Loaded.FAILED:
            request.answer(self.lost)
        elif loaded is Loaded.REFUSED:
            request.answer(self.overloaded)
        else:
            request.again()

    async def _check_funding(self, outpoint: bytes) -> None:
        await self._funding.check(outpoint)

    def _judge_change_address(self, request: PaymentRequest) -> None:
        try:
            Query(request.query).optional("change_address", lambda text: decode_address(self._network, text))
        except PaychanError as error:
            request.answer(problem(error))
            return
        request.ignore_change_address = True
        request.again()

    def _refuse(self, request: PaymentRequest, status: int, outpoint: bytes) -> None:
        """Refuse, at once if the refusal stands. One judged on a state that is not durable yet waits for it: once that is durable,
        no later state overturns the refusal; if the write failed, the request must be judged again.
        """
        try:
            refusal = self._refusal(status, request.query)
        except PaychanError as error:
            refusal = problem(error)
        is_standing = not self._channels.is_loaded(outpoint) or self._channels.is_durable(outpoint)
        if is_standing or status == Status.REPEATED_PARAMETER:
            request.answer(refusal)
        else:
            self.answer_later(request, self._refuse_when_durable(outpoint, refusal))

    def _refusal(self, status: int, query: str) -> Reply:
        if status == Status.OUT_OF_ORDER:
            detail = f"out-of-order payment (assigns {self._channels.shortfall} satoshi less value to server)"
            return problem(Rejection("out_of_order", detail, "payment"))
        if status == Status.INSUFFICIENT_CREDIT:
            missing, required = self._channels.shortfall, self._channels.exposure + self._channels.shortfall
            raise Rejection("insufficient_credit", figures={"missing": missing, "required": required})
        if status == Status.CHANNEL_EXPIRING and self._tip.is_doubtful:
            raise Unavailable("chain_unavailable")
        return refusal_of_form(status, query)

    async def _refuse_when_durable(self, outpoint: bytes, refusal: Reply) -> Reply | None:
        outcome = await self._committer.wait_for(outpoint)
        if outcome == LOST:
            return self.lost
        return refusal if outcome == EntryStatus.OK else None

    # --- what takes longer ---

    @property
    def postponed(self) -> int:
        """How many payments a task looks after now."""
        return len(self._tasks)

    def answer_later(self, request: PaymentRequest, finding: Coroutine[Any, Any, Reply | None]) -> None:
        """Answer with what `finding` returns; None: the obstacle is gone, the request is judged again."""
        if len(self._tasks) >= LATER_MAX:
            finding.close()
            request.answer(self.overloaded)
            return
        task = asyncio.get_running_loop().create_task(self._answer(request, finding))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: PaymentRequest, finding: Coroutine[Any, Any, Reply | None]) -> None:
        try:
            reply = await finding
        except PaychanError as error:
            reply = problem(error)
        except NotOwner:
            reply = None
        except Exception as error:
            reply = self.failed(error)
        if reply is None:
            request.again()
        else:
            request.answer(reply)
