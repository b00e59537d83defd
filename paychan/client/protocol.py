"""The payer's rules (sans I/O): what to sign, what to send, what to make of the answer. Generators of steps, see `steps`.

Three rules keep the payer's money: a payment is in the durable state before it is sent; while its outcome is unknown, it is
sent again and nothing higher is signed; what the server says about money is only ever compared with what was signed.
"""

from dataclasses import dataclass

from coincurve import PrivateKey

from ..core.outpoint import format_outpoint, txid_hex, txid_of, vout_of
from ..core.payment import Payment
from ..core.sender import Sender, sign_payment
from ..core.units import DUST_LIMIT, check_satoshi
from .answers import Result, check_result, read_problem
from .errors import (
    HOLDING,
    ChannelClosed,
    ChannelClosing,
    ChannelUnknown,
    ClientError,
    InvalidAmount,
    Refused,
    ServerMisbehaved,
    StateBehindServer,
    StateError,
)
from .record import ChannelRecord, Funding, Hold, PayerPhase
from .steps import Chances, RetryPolicy, Save, Steps, persist
from .wire import Reply

END_ROUNDS = 2
"""How often the end of a channel is asked for with each payment: an earlier request may still arrive in between."""

BEHIND = (
    "the server holds a newer payment than this state file, which is an old copy. Your money is safe: the server can take only "
    "what you signed, and the rest returns with its settlement or your refund. Restore the newest state file to go on"
)

NOT_OPEN = "the channel is not open, so there is nothing to close; what was paid to it returns by `refund` after its expiry"


@dataclass(frozen=True)
class Outcome:
    """What an operation achieved. Satoshi: `change_value` and `paid_value` of the channel as acknowledged; `amount` that this
    operation added; `recovered` of an earlier payment whose outcome had been unknown."""

    status: str
    change_value: int
    paid_value: int
    amount: int
    recovered: int
    settlement_txid: str


class Protocol:
    """Operations on one channel. Each changes `record` as it goes; the driver saves it when a step says so."""

    def __init__(self, record: ChannelRecord, key: PrivateKey, policy: RetryPolicy, chances: Chances) -> None:
        if key.public_key.format() != record.agreement.client_pubkey:
            raise StateError("the key file is not this channel's")
        self.record, self._key, self._policy, self._chances = record, key, policy, chances

    # --- operations ---

    def fund(self, funding: Funding) -> Steps[None]:
        """Note the funding output; who calls has made sure of its value. A channel has only one."""
        record = self.record
        check_satoshi(funding.value, "the funding value")
        if record.signed is not None and record.funding not in (None, funding):
            raise Refused(f"the channel is funded by {format_outpoint(record.funding.outpoint)}", "already_funded")
        record.funding = funding
        yield self._save()

    def open(self, amount: int | None = None) -> Steps[Outcome]:
        """Open the channel, paying `amount` satoshi (default: the price agreed). Again, it sends the newest payment again."""
        record = self.record
        self._refuse_if_held()
        if record.phase not in (PayerPhase.FUNDING, PayerPhase.OPENING, PayerPhase.OPEN):
            raise self._ended()
        paid_before = record.paid_value
        if record.phase is PayerPhase.FUNDING:
            self._sign_opening(amount)
        try:
            yield from self._send_opening(self._newest())
        except Refused as error:
            if error.code != "open_price_short" or not self._is_raised(amount):
                raise
            self._sign_opening(amount)
            yield from self._send_opening(self._newest())
        return self._outcome(amount=record.paid_value - paid_before)

    def pay(self, amount: int) -> Steps[Outcome]:
        """Pay `amount` satoshi more; all that is left closes the channel. A payment with an unknown outcome is sent first.

        Raises InvalidAmount before anything is sent; ChannelClosing, ChannelClosed: this payment did not count, unless the
        record says that it is pending; OutcomeUnknown; ServerMisbehaved, StateBehindServer: nothing more is signed.
        """
        recovered = yield from self._resend()
        if self.record.phase is not PayerPhase.OPEN:
            raise self._ended()
        payment = self._sign(amount)
        before, self.record.signed = self.record.signed, payment
        try:
            yield self._save()
        except StateError:
            self.record.signed = before  # nobody has seen it
            raise
        yield from self._send_payment(payment, amount)
        return self._outcome(amount=amount, recovered=recovered)

    def resend(self) -> Steps[Outcome]:
        """Send the payment whose outcome is unknown again, if there is one."""
        recovered = yield from self._resend()
        return self._outcome(recovered=recovered)

    def close(self) -> Steps[Outcome]:
        """Have the channel settled. A payment whose outcome is unknown counts only if the server already has it."""
        record = self.record
        if record.phase is PayerPhase.CLOSED:
            return self._outcome()
        if record.signed is None:
            raise Refused(NOT_OPEN, "not_open")
        paid_before = record.paid_value
        if record.phase is PayerPhase.OPEN:
            record.phase = PayerPhase.CLOSING
        yield from self._end()
        return self._outcome(recovered=record.paid_value - paid_before)

    def resume(self) -> Steps[None]:
        """Allow signing again after ServerMisbehaved or StateBehindServer. A pending payment still comes first."""
        self.record.hold = None
        yield self._save()

    # --- signing ---

    def _sign(self, amount: int) -> Payment:
        """Return the payment of `amount` satoshi beyond the newest signed one. Raises InvalidAmount."""
        left = self.record.signed.change_value if self.record.signed else self.record.terms.funding_value
        if type(amount) is not int or amount <= 0:
            raise InvalidAmount("the amount must be a positive number of satoshi")
        rest = left - amount
        if rest < 0:
            raise InvalidAmount(f"{amount} satoshi exceed the {left} left in the channel")
        if 0 < rest < DUST_LIMIT:
            most = max(left - DUST_LIMIT, 0)
            raise InvalidAmount(f"{rest} satoshi would remain, below the dust limit: pay at most {most}, or all {left}")
        return sign_payment(self.record.terms, rest, self._key)

    def _sign_opening(self, amount: int | None) -> None:
        """Sign the opening payment: `amount` in all. Only this price was agreed, so a dearer one needs the caller's word."""
        record, price = self.record, self.record.agreement.open_price
        amount = price if amount is None else amount
        if type(amount) is int and amount < price:
            raise InvalidAmount(f"the open price is {price} satoshi", "open_price_short")
        self.record.signed, before = None, record.signed
        try:
            record.signed = self._sign(amount)
        except InvalidAmount:
            record.signed = before
            raise
        record.phase = PayerPhase.OPENING

    def _is_raised(self, amount: int | None) -> bool:
        record = self.record
        if amount is None or record.phase is not PayerPhase.OPENING or record.signed is None:
            return False
        return amount > record.terms.funding_value - record.signed.change_value

    # --- sending ---

    def _sender(self) -> Sender:
        return Sender(self.record.terms, self._key, self.record.agreement.change_address)

    def _save(self) -> Save:
        return Save(self.record.serialize())

    def _request(self, method: str, target: str) -> Steps[tuple[Reply, bool]]:
        """Send a request about a payment, after making the state durable."""
        yield self._save()
        return (yield from persist(method, target, self.record.agreement.server_url, self._policy, self._chances))

    def _newest(self) -> Payment:
        if self.record.signed is None:
            raise StateError("the channel has no payment yet")
        return self.record.signed

    def _send_opening(self, payment: Payment) -> Steps[None]:
        record = self.record
        outpoint = record.terms.outpoint
        target = self._sender().open_target(payment)
        target += f"&funding_txid={txid_hex(txid_of(outpoint))}&funding_vout={vout_of(outpoint)}"
        is_fresh = record.phase is PayerPhase.OPENING
        reply, is_repeated = yield from self._request("POST", target)
        if reply.status in (201, 202):
            yield from self._check_location(reply)
            amount = record.terms.funding_value - payment.change_value
            yield from self._acknowledge(reply, payment, amount if is_fresh and not is_repeated else 0)
            return
        code, detail = yield from self._read_problem(reply)
        if reply.status == 409 and code == "channel_settled":
            yield from self._end()
        elif reply.status == 409:
            yield from self._send_payment(payment, 0)
        else:
            raise Refused(detail, code)

    def _check_location(self, reply: Reply) -> Steps[None]:
        """The server must mean our funding output; its Location is compared, never followed."""
        location = reply.headers.get("location")
        if location is not None and not location.endswith("/v1/channels/" + format_outpoint(self.record.terms.outpoint)):
            yield from self._hold(ServerMisbehaved("the server opened another channel than the one that was asked for"))

    def _resend(self) -> Steps[int]:
        """Settle what became of a pending payment; return what it added, in satoshi."""
        self._refuse_if_held()
        record = self.record
        if record.phase is PayerPhase.OPENING:
            raise Refused("the channel is not open yet", "not_open")
        if record.phase is not PayerPhase.OPEN or not record.is_pending or record.signed is None:
            return 0
        value = record.pending_value
        yield from self._send_payment(record.signed, 0)
        return value

    def _send_payment(self, payment: Payment, amount: int) -> Steps[None]:
        """PUT a payment. `amount`: what a server that sees it for the first time must say it received, 0 if it may know it."""
        reply, is_repeated = yield from self._request("PUT", self._sender().channel_target(payment))
        if reply.status in (200, 202):
            yield from self._acknowledge(reply, payment, 0 if is_repeated else amount)
            return
        code, detail = yield from self._read_problem(reply)
        if code == "out_of_order":
            yield from self._hold(StateBehindServer(BEHIND))
        if code == "channel_expiring":
            raise ChannelClosing(detail, code)
        if reply.status == 410 or code == "no_such_payment":
            yield from self._learn_end(payment)
            return
        raise (ChannelUnknown if reply.status == 404 else Refused)(detail, code)

    def _learn_end(self, payment: Payment) -> Steps[None]:
        """The channel is closing or closed: find out whether `payment` still counted. Raises ChannelClosed if not."""
        self.record.phase = PayerPhase.CLOSING
        yield from self._end()
        if self.record.acknowledged != payment:
            raise self._ended()

    def _end(self) -> Steps[None]:
        """DELETE the channel with the newest payment that the server has: the newest signed, or the newest acknowledged."""
        record = self.record
        tokens = [payment for payment in (record.signed, record.acknowledged) if payment is not None]
        for payment in list(dict.fromkeys(tokens)) * END_ROUNDS:
            reply, _ = yield from self._request("DELETE", self._sender().channel_target(payment))
            if reply.status == 202:
                yield from self._acknowledge(reply, payment, 0, is_closing=True)
                return
            code, detail = yield from self._read_problem(reply)
            if reply.status == 410:
                raise ChannelClosing(detail, code)
            if reply.status == 404 and record.phase is PayerPhase.OPENING:
                raise ChannelUnknown(NOT_OPEN, "not_open")
            if reply.status == 404:
                raise ChannelUnknown(detail, code)
            if code != "not_newest_payment":
                raise Refused(detail, code)
        yield from self._hold(StateBehindServer(BEHIND))

    # --- judging ---

    def _acknowledge(self, reply: Reply, payment: Payment, amount: int, is_closing: bool = False) -> Steps[None]:
        """Take note of a success answer that is about exactly `payment`; any other puts the channel on hold."""
        record = self.record
        result = yield from self._check(reply, payment, payment.exhausts or is_closing)
        record.acknowledged = payment
        if result.is_closed:
            record.phase, record.settlement_txid = PayerPhase.CLOSED, result.settlement_txid
        elif record.phase is PayerPhase.OPENING:
            record.phase = PayerPhase.OPEN
        if result.claimed_received < amount:
            yield from self._hold(_short(result.claimed_received, amount))
        yield self._save()

    def _check(self, reply: Reply, payment: Payment, is_end: bool) -> Steps[Result]:
        try:
            result = check_result(reply, payment)
            if result.is_closed != is_end:
                raise ServerMisbehaved("the server says that the channel is " + ("open" if is_end else "closed") + ": it is not")
        except ServerMisbehaved as error:
            yield from self._hold(error)
            raise
        return result

    def _read_problem(self, reply: Reply) -> Steps[tuple[str, str]]:
        try:
            return read_problem(reply)
        except ServerMisbehaved as error:
            yield from self._hold(error)
            raise

    def _hold(self, error: ClientError) -> Steps[None]:
        """Stop signing on this channel, durably, and raise `error`."""
        self.record.hold = Hold(type(error).code, error.detail)
        yield self._save()
        raise error

    def _refuse_if_held(self) -> None:
        hold = self.record.hold
        if hold is not None:
            raise HOLDING[hold.code](hold.detail)

    def _ended(self) -> ClientError:
        record = self.record
        if record.phase is PayerPhase.CLOSED:
            return ChannelClosed(f"the channel is settled by {record.settlement_txid}; nothing was added")
        if record.phase is PayerPhase.CLOSING:
            return ChannelClosing("the channel is closing; `close` finishes it")
        return Refused("the channel is not open yet", "not_open")

    def _outcome(self, amount: int = 0, recovered: int = 0) -> Outcome:
        record = self.record
        status = "closed" if record.phase is PayerPhase.CLOSED else "open"
        return Outcome(status, record.change_value, record.paid_value, amount, recovered, record.settlement_txid)


def _short(claimed: int, amount: int) -> ClientError:
    return StateBehindServer(
        f"the server says that this payment of {amount} satoshi brought it only {claimed}: either this state file is an old "
        "copy and the rest was paid before, or the server lies. Nothing beyond the signed payment is lost; resume to go on"
    )
