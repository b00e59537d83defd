"""The auditor: knows what each payer was promised and what the chain says, and notes every breach. It trusts no process."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bitcoin.core import CTransaction

from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.outpoint import format_outpoint
from paychan.core.units import DUST_LIMIT, MAX_MONEY
from store import keys

from .blockchain import BlockChain, payment_in
from .exposure import Exposure

SHARE_WORTH_PERCENT = 50
"""A channel is worth more than its fee if so much of what was received pays for most blocks of its settlement period."""

SETTLEMENT_SIZE = 358  # bytes, about: 9 more than it has, as for the longest destination
INFLATED_SIZE = 882  # of the largest copy that anybody can make of it

CLOCK_SLACK_SECONDS = 2 * 3600
"""By so much a worker that cannot see the chain may lag behind it."""

EARLY_SECONDS = 6 * 3600
"""By so much a worker may be ahead of the median time past: an hour and more is between it and the best block, and a wall clock is
believed up to `tip_age_minutes_max` beyond that one."""


@dataclass
class Account:
    """One channel. lowest: the lowest change value that was acknowledged (the funding value: nothing was). may_close: the payer has
    asked to close it, or it may hold more than the exposure limits allow."""

    terms: ChannelTerms
    lowest: int
    opened: bool = False
    fee: int = -1
    phase: int = ABSENT
    settled_by: bytes = b""
    bumps: int = 0
    closing_at: int = 0
    may_close: bool = False
    pinned: int = 0
    """Satoshi: the most that hung on a version of the settlement in the miners' mempools."""


@dataclass
class Auditor:
    """`settlement_period`: seconds; `confirmations`: what settled means; `fee_rate_max`: satoshi per byte, of server and signer;
    `exposure_max`: satoshi, above which a channel is settled early; `exposure`: of all, where that is limited."""

    chain: BlockChain
    destination: bytes
    settlement_period: int
    confirmations: int
    fee_rate_max: int
    has_copies: bool = False
    """Whether somebody makes copies of settlements."""
    exposure_max: int = MAX_MONEY
    share_worth_percent: int = SHARE_WORTH_PERCENT
    """Less where the signer's clock is behind, whose first share then holds until late, or the end."""
    exposure: Exposure | None = None
    accounts: dict[bytes, Account] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    uneconomic_logged: set[str] = field(default_factory=set)
    lost_logged: set[str] = field(default_factory=set)
    data: Mapping[bytes, bytes] = field(default_factory=dict)

    def breach(self, outpoint: bytes, what: str) -> None:
        self.violations.append(f"{format_outpoint(outpoint)[:10]}: {what}")

    def expect(self, terms: ChannelTerms) -> Account:
        """A payer has funded a channel; `terms` are the truth."""
        account = self.accounts[terms.outpoint] = Account(terms, terms.funding_value)
        return account

    def pinned(self, outpoint: bytes, satoshi: int) -> None:
        """So much hangs on a settlement now."""
        account = self.accounts[outpoint]
        account.pinned = max(account.pinned, satoshi)

    # --- what payers are told ---

    def acknowledged(self, outpoint: bytes, change_value: int, answered_left: int) -> None:
        """The server has acknowledged a payment: it owes nobody more than this change from now on."""
        account = self.accounts[outpoint]
        if answered_left != change_value:
            self.breach(outpoint, f"acknowledged {answered_left} for a payment that leaves {change_value}")
        state = ChannelState.parse(self.data[keys.STATE + outpoint])
        if state.payment.change_value > change_value:
            self.breach(outpoint, "acknowledged a payment that is not on disk")
        if self.chain.median_time_past >= account.terms.exp_time - self.settlement_period + CLOCK_SLACK_SECONDS:
            self.breach(outpoint, "took a payment within the settlement period, by the chain's own clock")
        if self.exposure is not None and not self.exposure.may_take:
            self.breach(outpoint, "took a payment though too much was unsettled")
        account.opened = True
        account.lowest = min(account.lowest, change_value)

    # --- what is written ---

    def see_writes(self, writes: Mapping[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            prefix, outpoint = key[:1], key[1:]
            if prefix == keys.TERMS and value is not None:
                self._see_terms(ChannelTerms.parse(outpoint, value))
            elif prefix == keys.SETTLEMENT and value is not None:
                self._see_settlement(outpoint, value)
        for key, value in writes.items():
            if key[:1] == keys.STATE:
                assert value is not None, "a state is never deleted"
                self._see_state(key[1:], ChannelState.parse(value))

    def _see_terms(self, terms: ChannelTerms) -> None:
        account = self.accounts.get(terms.outpoint)
        if account is None:
            self.breach(terms.outpoint, "a channel on no funding output")
        elif terms.funding_value != account.terms.funding_value:
            self.breach(terms.outpoint, f"opened with {terms.funding_value} satoshi, the chain has {account.terms.funding_value}")
        if keys.TERMS + terms.outpoint in self.data:
            self.breach(terms.outpoint, "its terms were written twice")

    def _see_settlement(self, outpoint: bytes, raw: bytes) -> None:
        account, tx = self.accounts[outpoint], CTransaction.deserialize(raw)
        fee = account.terms.funding_value - sum(output.nValue for output in tx.vout)
        if bytes(tx.vout[-1].scriptPubKey) != self.destination:
            self.breach(outpoint, "a settlement to another destination")
        if fee <= account.fee:
            self.breach(outpoint, f"signed with {account.fee} satoshi of fee, then with {fee}")
        if account.fee >= 0:
            account.bumps += 1
        account.fee = fee

    def _see_state(self, outpoint: bytes, state: ChannelState) -> None:
        account, old = self.accounts[outpoint], self.data.get(keys.STATE + outpoint)
        if old is not None:
            before = ChannelState.parse(old)
            if state.phase < before.phase:
                self.breach(outpoint, f"went back from {before.phase.name} to {state.phase.name}")
            if state.payment.change_value > before.payment.change_value:
                self.breach(outpoint, "its change value rose")
        if state.phase != Phase.OPEN and not account.closing_at:
            left = account.terms.exp_time - self.settlement_period - self.chain.median_time_past
            may_close = account.may_close or not state.payment.change_value
            received = account.terms.funding_value - state.payment.change_value
            if left > EARLY_SECONDS and not may_close and received <= self.exposure_max:
                if self.exposure is None:
                    self.breach(outpoint, f"was settled {left} seconds before its settlement period, and nobody had asked")
                else:
                    self.exposure.settled_early(outpoint, received)
            account.closing_at = self.chain.median_time_past
        if state.phase == Phase.SETTLED and self.chain.depths.get(outpoint, 0) < self.confirmations:
            depth = self.chain.depths.get(outpoint, 0)
            self.breach(outpoint, f"counts as settled, but its spend was never deeper than {depth} blocks")
        account.phase = state.phase
        if self.exposure is not None:
            self.exposure.see(outpoint, state.phase, account.terms.funding_value - state.payment.change_value)

    # --- the end ---

    def judge(self) -> None:
        """Look at every channel after its time."""
        for outpoint, what in self.exposure.breaches() if self.exposure is not None else ():
            self.breach(outpoint, what)
        for outpoint, account in self.accounts.items():
            if account.phase == ABSENT:
                if account.opened:
                    self.breach(outpoint, "was acknowledged, and is not on disk")
                continue
            spender = self.chain.spender(outpoint)
            if account.phase != Phase.SETTLED:
                self.breach(outpoint, f"is stuck in phase {Phase(account.phase).name}")
            elif spender is None:
                self.breach(outpoint, "counts as settled, and nothing spends it")
            if spender is not None:
                self._judge_spend(outpoint, account, CTransaction.deserialize(spender.raw))

    def _judge_spend(self, outpoint: bytes, account: Account, tx: CTransaction) -> None:
        payment = payment_in(tx)
        if payment is None:
            account.settled_by = b"refund"
            if self.must_settle(account):
                self.breach(outpoint, f"lost {self.received(account)} satoshi to the refund")
            elif format_outpoint(outpoint) not in self.uneconomic_logged:
                self.breach(outpoint, "lapsed without a word in the log")
            return
        account.settled_by = b"settlement"
        if format_outpoint(outpoint) in self.lost_logged:
            self.breach(outpoint, "was told as a loss, and a settlement is on the chain")
        if payment.change_value > account.lowest:
            self.breach(outpoint, f"settled with a change of {payment.change_value}, acknowledged was {account.lowest}")
        if bytes(tx.vout[-1].scriptPubKey) != self.destination:
            self.breach(outpoint, "settled to another destination")

    def received(self, account: Account) -> int:
        state = ChannelState.parse(self.data[keys.STATE + account.terms.outpoint])
        return account.terms.funding_value - state.payment.change_value

    def must_settle(self, account: Account) -> bool:
        """Whether the channel is worth more than its fee: it could have paid for most of the blocks of its settlement period, in
        the form that the miners had of it, and for what hung on it."""
        start, end = account.terms.exp_time - self.settlement_period, account.terms.exp_time
        prices = sorted(block.asked for block in self.chain.blocks if start <= block.time <= end)
        price = prices[len(prices) // 2] if prices else 1.0
        received = self.received(account)
        affordable = min(received * self.share_worth_percent // 100, received - DUST_LIMIT)
        size = INFLATED_SIZE if self.has_copies else SETTLEMENT_SIZE
        return price <= self.fee_rate_max and affordable >= price * size + account.pinned
