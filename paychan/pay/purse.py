"""A purse: a directory with the payer's channels, their keys, and the ledger. Processes and threads of one user may share it.

    purse = Purse("purse/")                        # Budget and wallet from purse.toml in it, if there is one
    with purse.take(terms, amount) as turn:        # terms: pay.terms.read_terms(origin, challenge.session())
        payload = turn.pay(amount, "GET /x", purse.budget_on(terms.network))  # durable: send it now
        turn.taken(accepted, spent, is_purchase=True)  # the receipt says so; without this it is pending, and sent again

For SDKs that ask for a payload and tell nothing back at once:

    payload = purse.pay(terms, amount, what="GET /x")           # a dict: action, channelId, payment ...
    purse.taken(payload["channelId"], accepted, spent)          # when a receipt, or a settled answer, is seen
    purse.insufficient(payload["channelId"], accepted, spent)   # when a 402 says that the credit is too low
    purse.refused(payload["channelId"])                         # when it says that the payment was not taken
    purse.unknown, purse.adopt, purse.end                       # channel-not-found, a snapshot, channel-finalized

`purse.pay` returns the *same* payment again as long as nothing was told: that is safe for ever, as the payment is the idempotency
key. Satoshi are integers, times unix seconds. Every NAME.json and NAME.key in the directory is a channel as `paychan.client` has
it: `paychan list|status|close|refund --state-dir DIR` work on it.
"""

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bitcoin.core import Hash160

from ..client import (
    Agreement,
    ChannelBusy,
    ChannelMissing,
    ChannelRecord,
    Funding,
    PayerPhase,
    Refused,
    StateError,
    create_key,
    parse_record,
    read_key,
    read_state,
)
from ..client.storage import ChannelFile, is_there, make_directory
from ..client.wire import parse_url
from ..core.network import Network
from ..core.outpoint import format_outpoint
from ..core.units import DUST_LIMIT
from ..mpp.snapshot import Snapshot
from ..mpp.text import format_channel_id
from .budget import DAY, Budget, Question
from .errors import BudgetExceeded, PurseBusy, TermsRefused
from .ledger import Ledger
from .settings import PurseSettings, read_settings
from .terms import Terms, check_way, new_agreement, told_terms
from .turn import Turn, UsedUp
from .wallets import Wallet, deposit, wallet_for

Ask = Callable[[Question], bool]

MARGIN_SECONDS = 120
"""So long before its end a channel is not used any more: clocks differ."""

LOW_PERCENT = 10
"""The next channel is made when less than this of a channel's value, or of its time, is left."""

_USABLE = (PayerPhase.OPEN, PayerPhase.OPENING, PayerPhase.FUNDING)
"""The phases in which a channel can pay, in the order in which they are tried."""


@dataclass(frozen=True)
class Paid:
    """A payload, its channelId, how much of its payment was signed for it, and what was left of those before; satoshi."""

    payload: dict[str, Any]
    channel: str
    added: int
    credit: int


@dataclass(frozen=True)
class Standing:
    """What a look at a channel told. left: satoshi beyond what the newest payment gives away."""

    name: str
    record: ChannelRecord

    @property
    def paid(self) -> int:
        """Satoshi that were signed away on the channel."""
        record = self.record
        return record.funding.value - record.signed.change_value if record.funding and record.signed else 0

    @property
    def left(self) -> int:
        record = self.record
        if record.signed is not None:
            return record.signed.change_value
        return record.funding.value if record.funding else record.agreement.planned_value or 0


def runs_low(left: int, value: int, cost: int, time_left: float, life: float) -> bool:
    """Return whether the next channel is to be made: less than two purchases, or a tenth of value or life, is left.

    left: beyond the dust limit; value, cost: of the channel, of a purchase; satoshi. time_left, life: seconds.
    """
    return left < 2 * cost or left * 100 < value * LOW_PERCENT or time_left * 100 < life * LOW_PERCENT


class Purse:
    """See the module. directory: made if it is not there, for its owner alone."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        budget: Budget | None = None,
        wallet: Wallet | None = None,
        ask: Ask | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """budget, wallet: instead of those of DIRECTORY/purse.toml. ask: whether a payment above the budget may be made after all;
        it may be called from another thread. Raises StateError, ConfigError."""
        self.directory = Path(directory)
        make_directory(self.directory)
        self.settings: PurseSettings = read_settings(self.directory)
        self.budget = budget or self.settings.budget
        self.ask, self._clock = ask, clock
        self._wallet = wallet or self.settings.wallet()
        self.ledger = Ledger(self.directory / "spending.db", clock)
        self._seen: dict[str, tuple[bytes, ChannelRecord]] = {}
        self._told: dict[str, set[str]] = {}

    # --- agreeing ---

    def agree(self, terms: Terms) -> None:
        """Make sure that a server asks for what was agreed with it. Raises TermsRefused."""
        check_way(terms)
        expected = self.settings.network
        if expected is not None and terms.network.name != expected.name:
            raise TermsRefused(f"the server is on network {terms.network.name}, this purse on {expected.name}", "wrong_network")
        if terms.delta_min > terms.amount + terms.prepay_max:
            raise TermsRefused("the server's minVoucherDelta is beyond its own maxPrepay")
        known = self.ledger.agreed(terms.origin)
        asked = (terms.recipient.hex(), terms.network.name)
        if known is None:
            self.ledger.agree(terms.origin, *asked)
        elif known != asked:
            what = "network" if known[1] != asked[1] else "key"
            detail = f"{terms.origin} asks to pay another {what} than was agreed; `paychan purse trust {terms.origin}` agrees to it"
            raise TermsRefused(detail, f"other_{what}")

    def trust(self, origin: str) -> None:
        """Forget whom a server's channels paid: the next terms it names are agreed to."""
        self.ledger.forget(origin)

    def budget_on(self, network: Network) -> Budget:
        """Return what may be spent on a network. In debug mode a channel's opening costs nobody anything."""
        is_free = wallet_for(network, self._wallet).is_free
        return replace(self.budget, opening=None, deposit=None) if is_free else self.budget

    # --- taking turns ---

    def take(self, terms: Terms, cost: int) -> Turn:
        """Return a turn on a channel that can pay `cost` satoshi; it must be released. A new channel is made if there is none.

        Raises PurseBusy while others have their turn on what there is, TermsRefused, FundingNeeded, BudgetExceeded, StateError.
        """
        self.agree(terms)
        turn = self._take_known(terms, cost)
        if turn is None:
            with self._making():
                turn = self._take_known(terms, cost) or self._turn(self._make(terms, cost), terms)
        return turn

    def _take_known(self, terms: Terms, cost: int) -> Turn | None:
        is_busy = False
        for standing in self.usable(terms, cost):
            if is_busy and standing.record.acknowledged is None:
                break  # to open one more costs more than to wait for those that are open
            try:
                turn = self._turn(standing.name, terms)
            except ChannelBusy:
                is_busy = True
                continue
            if self._is_usable(Standing(standing.name, turn.record), terms, cost):
                return turn
            turn.release()
        if is_busy:
            raise PurseBusy(f"another purchase from {terms.origin} is under way")
        return None

    def turn_on(self, name: str, terms: Terms) -> Turn:
        """Return the turn on this channel. Raises ChannelBusy, ChannelMissing, StateError."""
        return self._turn(name, terms)

    def _turn(self, name: str, terms: Terms | None) -> Turn:
        """Return the turn on a channel that has its funding. terms: None for a turn that signs nothing. Raises FundingNeeded."""
        path = self._path(name)
        file = ChannelFile(path)
        try:
            record = self._parse(name, file.read())
            if record.funding is None:
                record.funding = wallet_for(record.agreement.network, self._wallet).fund(name, record.agreement)
                file.save(record.serialize())
            terms = terms or told_terms(record.agreement)
            return Turn(name, file, record, read_key(path.parent / record.key_file), terms, self.ledger)
        except BaseException:
            file.close()
            raise

    def _parse(self, name: str, raw: bytes) -> ChannelRecord:
        """Return the record in a file's bytes, which may be changed. Those seen before need not be checked again."""
        seen = self._seen.get(name)
        if seen is None or seen[0] != raw:
            seen = (raw, parse_record(raw))
            self._seen[name] = seen
        return replace(seen[1])

    # --- looking ---

    def names(self) -> list[str]:
        """Return the names of all channels, sorted."""
        try:
            return sorted(name.removesuffix(".json") for name in os.listdir(self.directory) if name.endswith(".json"))
        except OSError as error:
            raise StateError(f"{self.directory}: cannot be read: {error.strerror}") from error

    def standings(self, is_strict: bool = False) -> Iterator[Standing]:
        """Look at every channel without its lock. One that cannot be read is left out, or with `is_strict` a StateError."""
        for name in self.names():
            try:
                yield Standing(name, self._parse(name, read_state(self._path(name))))
            except StateError as error:
                if is_strict:
                    raise StateError(f"{self._path(name)}: {error.detail}; restore it, or move it away") from error

    def usable(self, terms: Terms, cost: int) -> list[Standing]:
        """Return the channels that can pay `cost` satoshi to a server, in the order in which they are tried.

        Raises StateError if one cannot be read: it may be this server's, and to open another one costs the open price.
        """
        found = [standing for standing in self.standings(is_strict=True) if self._is_usable(standing, terms, cost)]
        return sorted(found, key=lambda standing: (_USABLE.index(standing.record.phase), standing.record.agreement.exp_time))

    def _is_usable(self, standing: Standing, terms: Terms, cost: int) -> bool:
        record, agreed = standing.record, standing.record.agreement
        if agreed.server_pubkey != terms.recipient or agreed.network.name != terms.network.name:
            return False
        if record.hold is not None or record.phase not in _USABLE or self._ends_at(record, terms) <= self._clock():
            return False
        opening = terms.open_price if record.acknowledged is None else 0
        is_pending = record.signed is not None and record.signed != record.acknowledged
        return is_pending or standing.left - opening - max(cost, terms.delta_min) >= DUST_LIMIT

    def _ends_at(self, record: ChannelRecord, terms: Terms) -> int:
        """Return until when a channel can be used; unix seconds. One that is not open yet must still be opened by then."""
        agreed = record.agreement
        period = max(terms.settlement_period, agreed.settlement_period_hours * 3600 if record.acknowledged else 0)
        return agreed.exp_time - period - MARGIN_SECONDS - (0 if record.acknowledged else terms.duration_min)

    # --- making channels ---

    @contextmanager
    def _making(self) -> Iterator[None]:
        """Keep other processes and threads from making channels meanwhile."""
        descriptor = os.open(self.directory / "making.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _make(self, terms: Terms, cost: int) -> str:
        """Make a channel's key and record, durably; return its name. No money has moved yet."""
        wallet, budget = wallet_for(terms.network, self._wallet), self.budget_on(terms.network)
        value = deposit(replace(terms, amount=max(cost, terms.amount)), wallet, self.settings.deposit)
        self._ask_about(Question(terms.origin, "a new channel", value, "deposit", 0, 0), budget.deposit)
        spent = self.ledger.spent(terms.origin).opening  # before money is locked up, not only before it is signed away
        self._ask_about(Question(terms.origin, "opening a channel", terms.open_price, "opening", 0, spent), budget.opening)
        name = self._free_name(terms.origin)
        key = create_key(self._path(name).with_suffix(".key"))
        pubkey = key.public_key.format()
        agreed = new_agreement(terms, pubkey, Hash160(pubkey), self._expiry(terms), value)
        file = ChannelFile(self._path(name), is_new=True)
        try:
            file.save(ChannelRecord(agreed, f"{name}.key").serialize())
        finally:
            file.close()
        return name

    def _ask_about(self, question: Question, most: int | None) -> None:
        """Raises BudgetExceeded if it is too much, and nobody who was asked allows it."""
        if most is None or question.spent + question.amount <= most:
            return
        question = replace(question, most=most)
        if self.ask is None or not self.ask(question):
            raise BudgetExceeded(str(question))

    def _expiry(self, terms: Terms) -> int:
        """Return when a new channel expires: as long as the purse wants, within what the server allows."""
        waiting = 600 * (terms.confirmations + 1)
        least, most = terms.duration_min + waiting + 2 * MARGIN_SECONDS, terms.duration_max - MARGIN_SECONDS
        if least > most:
            raise TermsRefused("the server's minDuration and maxDuration leave no time to open a channel")
        wanted = int(self.settings.days * DAY)
        return int(self._clock()) + terms.settlement_period + min(max(wanted, least), most)

    def _free_name(self, origin: str) -> str:
        host = re.sub(r"[^A-Za-z0-9.]", "-", parse_url(origin).authority).strip("-.")[:48] or "server"
        number = 1
        while any(is_there(self._path(f"{host}-{number}").with_suffix(suffix)) for suffix in (".json", ".key")):
            number += 1
        return f"{host}-{number}"

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"

    def prepare(self, terms: Terms, cost: int) -> None:
        """Make and fund the next channel if what there is will not last. Raises what `take` does; the old ones still pay."""
        usable = self.usable(terms, cost)
        if len(usable) != 1 or not self._is_low(usable[0], terms, cost):
            return
        with self._making():
            if len(self.usable(terms, cost)) == 1:
                self._turn(self._make(terms, cost), terms).release()

    def _is_low(self, standing: Standing, terms: Terms, cost: int) -> bool:
        record = standing.record
        if record.acknowledged is None or record.funding is None:
            return False
        time_left = self._ends_at(record, terms) - self._clock()
        life = min(self.settings.days * DAY, terms.duration_max)
        return runs_low(standing.left - DUST_LIMIT, record.funding.value, max(cost, terms.delta_min), time_left, life)

    def unfunded(self, name: str) -> Agreement:
        """Return what was agreed for a channel that has no money yet. Raises ChannelMissing, Refused, StateError."""
        record = parse_record(read_state(self._there(name)))
        if record.funding is not None:
            raise Refused(f"{name} is funded by {format_outpoint(record.funding.outpoint)}", "already_funded")
        return record.agreement

    def set_funding(self, name: str, funding: Funding) -> None:
        """Note a channel's funding output; who calls is sure of its value. Raises as `unfunded`, and ChannelBusy."""
        file = ChannelFile(self._there(name))
        try:
            self.unfunded(name)
            record = parse_record(file.read())
            record.funding = funding
            file.save(record.serialize())
        finally:
            file.close()

    def _there(self, name: str) -> Path:
        if name not in self.names():
            raise ChannelMissing(f"no channel {name} in {self.directory}")
        return self._path(name)

    # --- for SDKs that tell nothing back at once ---

    def pay(self, terms: Terms, amount: int, what: str = "", wait: float = 30.0) -> dict[str, Any]:
        """Return the payload of a credential that pays `amount` satoshi. See the module. wait: seconds for a turn."""
        return self.pay_telling(terms, amount, what, wait).payload

    def pay_telling(self, terms: Terms, amount: int, what: str = "", wait: float = 30.0) -> Paid:
        """Do as `pay`; return the payload with what is known of its channel."""
        while True:
            try:
                with self.patiently(terms, amount, wait) as turn:
                    payload = turn.pay(amount, what, self.budget_on(terms.network), self.ask)
                    return Paid(payload, turn.channel_id, turn.added, turn.credit)
            except UsedUp:
                continue

    def patiently(self, terms: Terms, amount: int, wait: float = 30.0) -> Turn:
        """Return a turn as `take` does, waiting for it if others have theirs; with what was told of its channel before."""
        deadline = time.monotonic() + wait
        while True:
            try:
                turn = self.take(terms, amount)
            except PurseBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
                continue
            for told in self._told.pop(turn.channel_id, ()):
                turn.refused() if told == "refused" else turn.must_open()
            return turn

    def taken(self, channel: str, accepted: int, spent: int, is_purchase: bool = True) -> None:
        """The server has payments worth `accepted` satoshi on a channelId, of which `spent` are spent, and gave the goods.
        is_purchase: see Turn.taken."""
        with self._turn_by_id(channel) as turn:
            turn.taken(accepted, spent, is_purchase=is_purchase)

    def insufficient(self, channel: str, accepted: int, spent: int) -> None:
        """The server has payments worth `accepted` satoshi, and they are spent: what was pending bought something else before."""
        with self._turn_by_id(channel) as turn:
            turn.taken(accepted, spent, is_answered=False)

    def refused(self, channel: str) -> None:
        """The server did not take the payment, by its own word; the next may be higher, within the same bound."""
        self._told.setdefault(channel, set()).add("refused")

    def unknown(self, channel: str) -> None:
        """The server does not know the channel: the next payload opens it again."""
        self._told.setdefault(channel, set()).add("unknown")

    def adopt(self, channel: str, snapshot: Snapshot) -> None:
        """The server presents the payer's newest payment; see Turn.adopt."""
        with self._turn_by_id(channel) as turn:
            turn.adopt(snapshot)

    def end(self, channel: str) -> None:
        """The server says that the channel takes no more payments."""
        with self._turn_by_id(channel) as turn:
            turn.end()

    def closed(self, channel: str, settlement_txid: str) -> None:
        """The server has settled the channel with its newest payment."""
        with self._turn_by_id(channel) as turn:
            turn.closed(settlement_txid)

    def find(self, channel: str) -> str:
        """Return the name of a channelId's channel. Raises ChannelMissing."""
        for standing in self.standings():
            funding = standing.record.funding
            if funding is not None and format_channel_id(funding.outpoint) == channel:
                return standing.name
        raise ChannelMissing(f"no channel {channel} in {self.directory}")

    @contextmanager
    def _turn_by_id(self, channel: str, wait: float = 30.0) -> Iterator[Turn]:
        name, deadline = self.find(channel), time.monotonic() + wait
        turn = None
        while turn is None:
            try:
                turn = self._turn(name, None)
            except ChannelBusy:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with turn:
            yield turn

    def close(self) -> None:
        """Close the ledger. The channels stay as they are."""
        self.ledger.close()

