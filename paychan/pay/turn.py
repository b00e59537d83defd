"""A purchase's turn on a channel: nobody else signs on it meanwhile. What is signed here is on disk before anybody sees it.

Three rules. While a payment's outcome is unknown, it is presented again, and nothing higher is signed. What is signed never exceeds
what the server acknowledged by more than one purchase (with the open price, if it opens the channel). What the server says about
money is compared with what was signed: it can lower what is signed next, never raise it.
"""

from collections.abc import Callable
from typing import Any, NoReturn

from coincurve import PrivateKey

from ..client import ChannelRecord, PayerPhase, ServerMisbehaved, StateBehindServer
from ..client.errors import ClientError
from ..client.protocol import BEHIND
from ..client.record import Hold
from ..client.storage import ChannelFile
from ..core.sender import sign_payment
from ..core.settlement import verify_payment
from ..core.units import DUST_LIMIT
from ..mpp.snapshot import Snapshot
from ..mpp.text import encode_bytes, format_channel_id
from .budget import Budget, Entry, Question
from .errors import TermsRefused
from .ledger import Ledger
from .terms import Terms


class UsedUp(ClientError):
    """What is left in the channel does not pay for this purchase; another channel will."""

    code = "used_up"


class Turn:
    """One channel, locked. Use as a context manager, or call `release`."""

    def __init__(self, name: str, file: ChannelFile, record: ChannelRecord, key: PrivateKey, terms: Terms, ledger: Ledger) -> None:
        self.name, self.record, self.terms = name, record, terms
        self._file, self._key, self._ledger = file, key, ledger
        self._is_refused = self._must_open = self._is_too_small = False
        self.added = 0
        """Satoshi for goods that were newly signed in this turn."""
        self.is_fresh = False
        """Whether the newest payment was signed in this turn: nobody saw it before."""
        self.waited = 0.0
        """Seconds that were waited for the funding's confirmations."""
        ledger.take_back(name, self.signed_value)

    # --- what there is ---

    @property
    def channel_id(self) -> str:
        return format_channel_id(self.record.terms.outpoint)

    @property
    def funding_value(self) -> int:
        return self.record.funding.value if self.record.funding else 0

    @property
    def signed_value(self) -> int:
        """Satoshi that the newest payment that was ever signed gives away in all."""
        return self.funding_value - self.record.signed.change_value if self.record.signed else 0

    @property
    def acknowledged_value(self) -> int:
        """Satoshi that the newest payment gives away of which the server said that it has it."""
        return self.funding_value - self.record.acknowledged.change_value if self.record.acknowledged else 0

    @property
    def credit(self) -> int:
        """Satoshi that the server has and has not charged for, as it told last."""
        return self._ledger.credit(self.name)

    @property
    def is_pending(self) -> bool:
        """Whether the newest payment's outcome is unknown."""
        return self.record.signed is not None and self.record.signed != self.record.acknowledged

    @property
    def is_opening(self) -> bool:
        """Whether the server has not said yet that the channel is open."""
        return self.record.acknowledged is None

    def pays(self, terms: Terms) -> bool:
        """Return whether the channel pays who asks for this."""
        agreed = self.record.agreement
        return agreed.server_pubkey == terms.recipient and agreed.network.name == terms.network.name

    # --- paying ---

    def pay(self, cost: int, what: str, budget: Budget, ask: Callable[[Question], bool] | None = None) -> dict[str, Any]:
        """Return the credential's payload that pays for one purchase of `cost` satoshi, or presents what is pending.

        Raises UsedUp, BudgetExceeded, TermsRefused, StateError: then nothing was signed.
        """
        if self.is_pending and not self._is_refused:
            return self._payload()
        opening = self.terms.open_price if self.is_opening else 0
        wanted = self._wanted(cost, opening)
        if wanted > self.signed_value:
            self._sign(wanted, opening, what, budget, ask)
        return self._payload() if self.is_pending else {**self._payload(), "purchase": self._purchase}

    @property
    def _purchase(self) -> str:
        """What tells the next purchase by a payment that was taken before from those that it has bought: it changes with each whose
        outcome is known, so who must ask again asks for the same one."""
        return f"after {self._ledger.purchases(self.name)}"

    def _wanted(self, cost: int, opening: int) -> int:
        """Return what the next payment must give away in all: one purchase beyond what is acknowledged, less the credit."""
        missing = max(cost - (0 if self.is_opening else self.credit), 0)
        if missing and self._is_too_small:
            missing = max(missing, self.terms.delta_min)
        if missing > max(cost, 1) + self.terms.prepay_max:
            raise TermsRefused("the server's minVoucherDelta is beyond its own maxPrepay")
        return self.acknowledged_value + opening + missing

    def pay_up_to(self, required: int, what: str, budget: Budget, ask: Callable[[Question], bool] | None = None) -> dict[str, Any]:
        """Return the payload that brings what was paid in all to `required` satoshi, for a stream that has used up what was paid.

        Raises as `pay`, and TermsRefused if that is more than the server's own maxPrepay beyond what it has.
        """
        if self.is_pending:
            return self._payload()
        if required - self.acknowledged_value > self.terms.amount + self.terms.prepay_max:
            raise TermsRefused("the server asks for more at once than its own maxPrepay", "prepay_too_large")
        if required > self.signed_value:
            self._sign(max(required, self.signed_value + self.terms.delta_min), 0, what, budget, ask)
        return self._payload()

    def _sign(self, wanted: int, opening: int, what: str, budget: Budget, ask: Callable[[Question], bool] | None) -> None:
        """Enter, sign and save, in this order."""
        left, before = self.funding_value - wanted, self.signed_value
        if left < DUST_LIMIT:
            raise UsedUp(f"{self.funding_value - before} satoshi are left in channel {self.name}")
        added = wanted - before
        for_opening = min(added, opening if not before else added) if self.is_opening else 0
        entry = Entry(self.terms.origin, self.name, what, added - for_opening, for_opening, wanted)
        self._ledger.enter(entry, budget, ask, self.added)
        signed, phase = self.record.signed, self.record.phase
        try:
            self.record.signed = sign_payment(self.record.terms, left, self._key)
            self.record.phase = PayerPhase.OPENING if self.is_opening else phase
            self._save()
        except BaseException:
            self.record.signed, self.record.phase = signed, phase  # nobody has seen it; the next reads what the file has
            raise
        self._is_refused = False
        self.added += entry.amount
        self.is_fresh = True

    def _payload(self) -> dict[str, Any]:
        record = self.record
        if record.signed is None:
            raise TermsRefused("the channel has no payment yet")
        text = encode_bytes(record.signed.serialize())
        payload: dict[str, Any] = {"action": "voucher", "channelId": self.channel_id, "payment": text}
        if self.is_opening or self._must_open:
            payload |= {
                "action": "open",
                "clientPubkey": record.agreement.client_pubkey.hex(),
                "expTime": record.agreement.exp_time,
                "changeAddress": record.agreement.change_address,
            }
        return payload

    def closing(self) -> dict[str, Any]:
        """Return the payload that has the channel settled. Nothing more is signed on it."""
        if self.record.signed is None:
            raise TermsRefused("the channel is not open, so there is nothing to close", "not_open")
        self.end()
        return {"action": "close", "channelId": self.channel_id, "payment": encode_bytes(self.record.signed.serialize())}

    # --- what became of it ---

    def taken(self, accepted: int, spent: int, is_answered: bool = True, is_purchase: bool = False) -> None:
        """The server says that it has payments worth `accepted` satoshi, of which `spent` are spent.

        Less than was signed leaves the payment pending; more does not raise anything. is_answered: whether the goods came with it.
        is_purchase: whether it says so of a request that was bought, or will never be: whoever asks for the same again means
        another purchase.
        """
        if accepted < self.signed_value or self.record.signed is None:
            return
        self.record.acknowledged = self.record.signed
        if self.record.phase is PayerPhase.OPENING:
            self.record.phase = PayerPhase.OPEN
        self._file.save(self.record.serialize(), is_vital=False)  # if that is lost, the same payment is presented once more
        self._must_open = False
        credit = max(self.signed_value - spent, 0) if spent >= 0 else 0
        state = "taken" if is_answered else "unanswered"
        self._ledger.note(self.name, self.signed_value, min(credit, self.signed_value), state, int(is_purchase))

    def refused(self, is_too_small: bool = False) -> None:
        """The server refused the payment for good, by its own word: a higher one may be signed, within the same bound.

        is_too_small: it adds less than the server's minVoucherDelta, and does not reach what is required either.
        """
        self._is_refused = True
        self._is_too_small = self._is_too_small or is_too_small

    def withdraw(self, accepted: int, spent: int) -> None:
        """The server refused the pending payment as too much: a lower one is signed instead. If the server has it all the same, it
        refuses the lower one with a snapshot, from which this payer goes on. accepted, spent: as the server says; spent -1: it
        does not. It may have given back what we do not know of: then less is signed, or nothing."""
        self.record.signed = self.record.acknowledged
        self._save()
        self._ledger.take_back(self.name, self.signed_value)
        self.added = 0
        if spent >= 0:
            self.taken(accepted, spent, is_answered=False)

    def must_open(self) -> None:
        """The server does not know the channel: it is told of it again, with the newest payment."""
        self._must_open = True

    def adopt(self, snapshot: Snapshot) -> None:
        """Go on from what the server presents as the payer's newest payment, if it is the payer's own signature.

        Otherwise nothing more is signed on this channel. Raises ServerMisbehaved.
        """
        payment, terms = snapshot.payment, self.record.terms
        if snapshot.outpoint != terms.outpoint or payment.change_value > terms.funding_value or not verify_payment(terms, payment):
            self.hold(ServerMisbehaved("the server presents a payment that this payer never signed"))
        if self.record.signed is None or payment.change_value < self.record.signed.change_value:
            value = self.funding_value - payment.change_value
            self._ledger.adopt(Entry(self.terms.origin, self.name, "restored from the server", value, 0, value))
            self.record.signed = payment
            self.added = 0  # what was signed here is below that
        self.taken(self.funding_value - payment.change_value, snapshot.spent, is_answered=False)

    def behind(self) -> NoReturn:
        """The server has a newer payment, and does not show it. Raises StateBehindServer."""
        self.hold(StateBehindServer(BEHIND))

    def hold(self, error: ClientError) -> NoReturn:
        """Stop signing on this channel, durably, and raise `error`."""
        self.record.hold = Hold(error.code, error.detail)
        self._save()
        raise error

    def end(self) -> None:
        """The channel takes no more payments."""
        self.record.phase = PayerPhase.CLOSING
        self._save()

    def closed(self, settlement_txid: str) -> None:
        """The server has settled the channel with its newest payment."""
        self.record.acknowledged = self.record.signed
        self.record.phase, self.record.settlement_txid = PayerPhase.CLOSED, settlement_txid
        self._save()

    def _save(self) -> None:
        self._file.save(self.record.serialize())

    def release(self) -> None:
        """Give the channel to the next."""
        self._file.close()

    def __enter__(self) -> "Turn":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
