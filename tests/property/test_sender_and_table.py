"""Aim: payer and receiver always agree, the change value never rises, a refused payment changes nothing. Method: Hypothesis
drives one payer and one table through payments, replays, losses, reordering, restarts and time."""

import base64

from coincurve import PrivateKey
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from paychan._fast.channel import ChannelTable
from paychan._fast.status import Status
from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import Payment, parse_payment
from paychan.core.sender import Sender, sign_payment
from paychan.core.settlement import verify_payment
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.reference import Judge

GOOD = (Status.ACCEPTED, Status.EXHAUSTED, Status.REPLAYED)


class SenderAndTable(RuleBasedStateMachine):
    """`signed` holds all payments that the payer ever signed: any of them may arrive at any time, any number of times."""

    @initialize(seed=st.integers(0, 50), funding=st.sampled_from([1400, 2000, 10**6, 21 * 10**14]))
    def open(self, seed, funding):
        self.sample = make_sample(seed, funding_value=funding)
        self.terms = self.sample.terms
        self.outpoint = self.terms.outpoint
        self.sender = Sender(self.terms, self._key(), "unused")
        self.now = NOW
        self.table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
        self.sample.load(self.table)
        self.judge = Judge(SETTLEMENT_PERIOD)
        self.judge.add(self.sample.account)
        self.signed = [self._opening()]
        self.held = [self._opening()]  # what the table took, newest last
        self.credited = 0

    def _key(self):
        return PrivateKey.from_int(self.sample.secret)

    def _opening(self):
        opening = self.sample.opening
        return Payment(opening.change_value, opening.signature, opening.sighash_type)

    # --- what the payer does ---

    @rule(share=st.floats(0, 1), small=st.booleans())
    def sign(self, share, small):
        amount = min(int(self.sender.change_value * share) if not small else int(share * 100), self.sender.change_value)
        before = self.sender.change_value
        payment = self.sender.pay(amount)
        assert payment.change_value <= before - amount
        assert verify_payment(self.terms, payment)
        self.signed.append(payment)
        self._deliver(payment)

    @rule(share=st.floats(0, 1))
    def sign_and_lose(self, share):
        self.signed.append(self.sender.pay(min(int(self.sender.change_value * share), self.sender.change_value)))

    @rule(which=st.integers(0, 10**6))
    def deliver_any_again(self, which):
        self._deliver(self.signed[which % len(self.signed)])

    @rule(more=st.integers(1, 10**6))
    def go_back(self, more):
        """A payer that signs for itself what it has given away already."""
        payment = sign_payment(self.terms, self.table_value + more, self._key())
        if payment.change_value > self.table_value:
            status = self._deliver(payment)
            assert status not in GOOD

    @rule(which=st.integers(0, 10**6), bit=st.integers(0, 10**6))
    def spoil(self, which, bit):
        raw = bytearray(self.signed[which % len(self.signed)].serialize())
        raw[bit // 8 % len(raw)] ^= 1 << bit % 8
        self._deliver_raw(bytes(raw))

    # --- what happens to the receiver ---

    @rule()
    def restart(self):
        """The channel is forgotten and read again as it was last known."""
        newest = parse_payment(self.table.newest_payment(self.outpoint))
        phase = Phase(self.table.phase(self.outpoint))
        self.table.drop(self.outpoint)
        self.table.load(self.terms, ChannelState(phase, newest))
        self.table.mark_checked(self.outpoint, self.table.chain_generation)

    @rule()
    def commit(self):
        self.table.seal(self.outpoint)
        self.table.acknowledge(self.outpoint)
        assert self.table.is_durable(self.outpoint)

    @rule(seconds=st.integers(0, 40 * 24 * 3600))
    @precondition(lambda self: self.now < NOW + 10)
    def wait(self, seconds):
        """Seldom, as it is soon too late for everything."""
        self.now += seconds if seconds % 5 == 0 else seconds % 3

    # --- how it is judged ---

    @property
    def table_value(self):
        return int.from_bytes(self.table.newest_payment(self.outpoint)[:8], "little")

    def _deliver(self, payment):
        status = self._deliver_raw(payment.serialize())
        if status in (Status.ACCEPTED, Status.EXHAUSTED):
            assert self.table.newest_payment(self.outpoint) == payment.serialize()
        return status

    def _deliver_raw(self, raw):
        before = (self.table.newest_payment(self.outpoint), self.table.phase(self.outpoint))
        value_before = self.table_value
        query = "payment=" + base64.urlsafe_b64encode(raw).decode()
        status = Status(self.table.pay(self.sample.path, query, self.now))
        verdict = self.judge.pay(self.sample.path, query, self.now)
        assert status.name.lower() == verdict.code
        after = (self.table.newest_payment(self.outpoint), self.table.phase(self.outpoint))
        if status in GOOD:
            assert self.table.value_received == value_before - self.table_value
            assert self.table.value_left == self.table_value
            self.credited += self.table.value_received
        if status in (Status.ACCEPTED, Status.EXHAUSTED):
            self.held.append(parse_payment(after[0]))
        else:
            assert after == before
        return status

    @invariant()
    def change_value_never_rises(self):
        values = [payment.change_value for payment in self.held]
        assert values == sorted(set(values), reverse=True)

    @invariant()
    def the_credit_is_what_the_payer_gave(self):
        assert self.credited == self.held[0].change_value - self.table_value

    @invariant()
    def the_receiver_holds_a_signature_for_what_it_credited(self):
        newest = parse_payment(self.table.newest_payment(self.outpoint))
        assert newest == self.held[-1]
        assert newest in self.signed or newest.change_value == self.table_value
        assert verify_payment(self.terms, newest)
        assert (self.table.phase(self.outpoint) == Phase.CLOSING) == newest.exhausts


TestSenderAndTable = SenderAndTable.TestCase
TestSenderAndTable.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
