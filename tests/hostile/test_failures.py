"""Aim: junk for one channel costs little, and does not keep its payer out for long. Method: the channel table under bad signatures,
second by second; then a channel of a real server."""

import base64
import random
import resource
import time
from dataclasses import replace

import pytest

from paychan._fast.channel import FAILING_PER_MILLE, FAILURES_MAX, ChannelTable
from paychan._fast.status import Status
from paychan.server.channels.payments import REFUSALS_BY_FORM
from tests.differential.channels import NOW, SETTLEMENT_PERIOD, SHARD_COUNT, make_sample, own_all
from tests.reference import Paid
from tests.system import running

BYTES_PER_CHANNEL_MAX = 400


def query_of(paid):
    return "payment=" + base64.urlsafe_b64encode(paid.raw).decode()


@pytest.fixture
def table():
    """One whose worker has time for failures without end; each channel has its own bound."""
    return own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD, 1000))


@pytest.fixture
def sample(table):
    sample = make_sample("failures")
    sample.load(table)
    return sample


def junk_of(sample):
    """A payment with a signature for another value: right in form, so it takes a verification."""
    return Paid(8_000_000, sample.sign(8_500_000).signature, 0x83)


def spend(table, sample, now=NOW):
    """Use up the budget of a second."""
    query = query_of(junk_of(sample))
    assert [table.pay(sample.path, query, now) for _ in range(FAILURES_MAX)] == [Status.BAD_SIGNATURE] * FAILURES_MAX


def test_beyond_the_budget_nothing_is_verified_until_the_next_second(table, sample):
    spend(table, sample)
    junk, good = query_of(junk_of(sample)), query_of(sample.sign(9_000_000))
    assert table.pay(sample.path, junk, NOW) == Status.TOO_MANY_FAILURES
    assert table.pay(sample.path, good, NOW) == Status.TOO_MANY_FAILURES
    assert table.newest_payment(sample.terms.outpoint) == sample.opening.raw
    assert table.pay(sample.path, good, NOW + 1) == Status.ACCEPTED
    spend(table, sample, NOW + 1)  # the new second's budget is whole


def test_without_verification_it_is_much_cheaper(table, sample):
    junk = query_of(junk_of(sample))
    started = time.process_time()
    spend(table, sample)
    verified = time.process_time() - started
    started = time.process_time()
    assert all(table.pay(sample.path, junk, NOW) == Status.TOO_MANY_FAILURES for _ in range(FAILURES_MAX))
    assert time.process_time() - started < verified / 4


def test_the_newest_payment_sent_again_is_answered_all_the_same(table, sample):
    newest = sample.sign(9_000_000)
    assert table.pay(sample.path, query_of(newest), NOW) == Status.ACCEPTED
    spend(table, sample)
    assert table.pay(sample.path, query_of(newest), NOW) == Status.REPLAYED
    assert table.value_received == 0


def test_what_needs_no_verification_is_answered_as_always(table, sample):
    assert table.pay(sample.path, query_of(sample.sign(9_000_000)), NOW) == Status.ACCEPTED
    spend(table, sample)
    assert table.pay(sample.path, query_of(sample.sign(9_000_000)), NOW) == Status.REPLAYED
    assert table.pay(sample.path, "payment=", NOW) == Status.INVALID_PAYMENT


@pytest.mark.parametrize("seconds", [0, 1, 10])
def test_all_channels_together_have_a_budget_of_time(seconds):
    """Forty channels, and as much junk as goes in: what is spent on it stays within the share and what is there at once."""
    table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD, FAILING_PER_MILLE))
    samples = [make_sample(f"failures, all {number}") for number in range(40)]
    for sample in samples:
        sample.load(table)
    junk = [(sample.path, query_of(junk_of(sample))) for sample in samples]
    verified, began = 0, time.monotonic()
    for second in range(seconds + 1):
        verified += sum(table.pay(*junk[number % 40], NOW + second) == Status.BAD_SIGNATURE for number in range(4000))
    # What was there at once, what the time that passed brought, one that began when little was left. One takes 10 us anywhere.
    assert FAILING_PER_MILLE == 40
    assert 0 < verified * 10e-6 < 0.040 + 0.040 * (time.monotonic() - began) + 0.00025


def test_beyond_it_a_channel_that_was_left_alone_is_judged_as_always():
    table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
    flooded, quiet = make_sample("failures, flooded"), make_sample("failures, quiet")
    flooded.load(table), quiet.load(table)
    junk = query_of(junk_of(flooded))
    answers = [table.pay(flooded.path, junk, NOW) for _ in range(10 * FAILURES_MAX)]
    assert answers[-1] == Status.TOO_MANY_FAILURES
    assert table.pay(quiet.path, query_of(quiet.sign(9_000_000)), NOW) == Status.ACCEPTED


def test_a_strangers_payment_tells_nothing_of_a_channel(table, sample):
    """Whatever state a channel is in, and whatever change value is tried: the answer is the same."""
    own = sample.terms.outpoint
    assert table.pay(sample.path, query_of(sample.sign(9_000_000)), NOW) == Status.ACCEPTED
    signature = sample.sign(1).signature
    probes = [query_of(Paid(value, signature, 0x83)) for value in (700, 8_999_999, 9_000_000, 9_000_001, 21 * 10**14)]

    def told(now=NOW):
        table_before = table.shortfall
        answers = {Status(table.pay(sample.path, probe, now)) for probe in probes}
        assert table.shortfall == table_before
        return answers

    assert told() == {Status.BAD_SIGNATURE}
    assert told(sample.terms.exp_time) == {Status.BAD_SIGNATURE}
    table.chain_generation += 1  # the funding output is to be looked up
    assert told() == {Status.BAD_SIGNATURE}
    table.mark_checked(own, table.chain_generation)
    table.begin_closing(own)
    assert told() == {Status.BAD_SIGNATURE}
    assert table.pay(sample.path, query_of(sample.sign(8_000_000)), NOW) == Status.CHANNEL_CLOSING


def test_another_channel_has_a_budget_of_its_own(table, sample):
    other = make_sample("failures, another")
    other.load(table)
    spend(table, sample)
    assert table.pay(other.path, query_of(other.sign(9_000_000)), NOW) == Status.ACCEPTED


def test_good_payments_take_nothing_from_the_budget(table, sample):
    for value in range(9_000_000, 9_000_000 - 2 * FAILURES_MAX, -1):
        assert table.pay(sample.path, query_of(sample.sign(value)), NOW) == Status.ACCEPTED


def test_a_clock_that_jumps_back_opens_the_budget_and_does_not_close_it(table, sample):
    spend(table, sample, NOW + 6 * 3600)
    assert table.pay(sample.path, query_of(sample.sign(9_000_000)), NOW) == Status.ACCEPTED


def test_against_ten_times_the_budget_a_payer_that_repeats_gets_through(table, sample):
    """The attack's requests are evenly spread; the payer repeats at a random place in each second, as Retry-After says."""
    draw, junk, waited = random.Random(88), query_of(junk_of(sample)), []
    second = NOW
    for value in range(9_000_000, 9_000_000 - 8, -1):
        good, first = query_of(sample.sign(value)), second
        while True:
            second += 1
            place = draw.randrange(10 * FAILURES_MAX)
            for _ in range(min(place, FAILURES_MAX + 1)):
                table.pay(sample.path, junk, second)
            if table.pay(sample.path, good, second) == Status.ACCEPTED:
                break
        waited.append(second - first)
    assert sum(waited) / len(waited) < 20


def test_a_slot_stays_small():
    channels = 20_000
    table = own_all(ChannelTable(SHARD_COUNT, SETTLEMENT_PERIOD))
    sample = make_sample("slot")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(channels):
        outpoint = number.to_bytes(36, "little")
        replace(sample, terms=replace(sample.terms, outpoint=outpoint)).load(table)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < channels * (BYTES_PER_CHANNEL_MAX + 16)  # the index beside the slots


def test_a_server_answers_503_at_once_and_the_payer_goes_on(tmp_path):
    with running(tmp_path) as system:
        payer = system.payer("failures")
        assert payer.open().status == 201
        good = payer.sender.pay(1)
        target = payer.sender.channel_target(good)
        junk = payer.sender.channel_target(type(good)(good.change_value - 5, good.signature, good.sighash_type))
        seen = set()
        for _ in range(4 * FAILURES_MAX):
            answer = payer.client.request("PUT", junk)
            seen.add(answer.code)
            if answer.code == "too_many_failures":
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                break
        assert seen <= {"bad_signature", "too_many_failures"}  # a slow machine may not reach the bound within a second
        answer, _ = payer.client.persist("PUT", target)
        assert answer.json["value_received"] == 1


def test_the_answer_is_made_beforehand():
    assert REFUSALS_BY_FORM[Status.TOO_MANY_FAILURES].status == 503
