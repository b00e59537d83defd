"""The check finds no fault in any content that groups make, and finds every single record that is missing, damaged or out of
place. With recorded lives' channels in a dictionary, and in a real RocksDB."""

import random

import pytest

from paychan._fast.group import StateCache
from paychan.core.channel import ABSENT, ChannelState, ChannelTerms, Phase
from paychan.core.funding import txid_without_witness
from paychan.core.outcome import Outcome
from paychan.core.payment import Payment
from paychan.core.sales import Purchase, Sales
from paychan.core.settlement import verify_payment
from paychan.rpc.store_messages import LEASE_COUNT, Unsettled, encode_commit
from store import keys
from store.check import PROBLEMS_SHOWN_MAX, check_records, check_store
from store.engines.rocksdb import RocksDB
from store.group import Group
from store.identity import Identity
from store.mark import path_of
from tests.differential.channels import make_sample
from tests.power.history import PUBKEY, SHARDS, Channel, Shape


class Kept(dict):
    """Records in a dictionary, in the engine's place too."""

    def walk(self, prefix):
        return iter(sorted((key, value) for key, value in self.items() if key.startswith(prefix)))

    def get(self, names):
        return [dict.get(self, name) for name in names]

    def states(self, outpoints):
        return self.get([keys.STATE + outpoint for outpoint in outpoints])

    def terms(self, outpoints):
        return self.get([keys.TERMS + outpoint for outpoint in outpoints])


def grown(channels=40, rounds=160, seed=1):
    """Return the content of a store with channels in all phases, by way of real groups; and the channels."""
    rng, shape = random.Random(seed), Shape(size=100, steps=0.4)
    kept = Kept({keys.IDENTITY: Identity("test", PUBKEY, SHARDS, bytes(16)).encode(), keys.epoch_key(0): keys.encode_epoch(0)})
    made = [Channel(number) for number in range(channels)]
    epochs, unsettled = [0] * (SHARDS + LEASE_COUNT), Unsettled()
    for turn in range(rounds):
        channel = made[turn] if turn < channels else rng.choice(made)
        if channel.phase == Phase.SETTLED:
            continue
        group = Group(kept, StateCache(0), epochs, SHARDS, unsettled)
        assert not any(group.judge(encode_commit([channel.next(rng, shape, 0).encode()])))
        unsettled = group.unsettled
        for key, record in {**group.writes, keys.UNSETTLED: keys.encode_unsettled(unsettled)}.items():
            if record is None:
                del kept[key]
            else:
                kept[key] = record
    return kept, made


@pytest.fixture(scope="module")
def content():
    return grown()


def test_what_groups_wrote_has_no_problems(content):
    kept, made = content
    report = check_records(kept)
    assert report.problems == []
    assert {phase for phase in Phase if report.phases[phase]} == set(Phase)
    assert sum(report.phases.values()) == sum(channel.phase != ABSENT for channel in made)
    assert list(report.lines())[-1] == "no problems"


def test_any_missing_record_is_found(content):
    kept, made = content
    settled = {keys.SETTLEMENT + channel.outpoint for channel in made if channel.phase == Phase.SETTLED}
    settled |= {key for key in kept if key[:1] == keys.DONE}
    for key in kept:
        if key[:1] == keys.EPOCH or key in settled:
            continue  # a lease that never had an owner, a channel that lost, and one of an earlier version have none
        assert check_records(Kept({k: v for k, v in kept.items() if k != key})).problem_count, key


def test_any_record_cut_short_is_found(content):
    kept, _ = content
    for key, value in kept.items():
        if value and key[:1] != keys.SETTLEMENT:
            assert check_records(Kept({**kept, key: value[:-1]})).problem_count, key


def wrong(kept, made, phase):
    """Return the key and value of a record that does not belong, one kind after the other, around a channel in `phase`."""
    outpoint = next(channel.outpoint for channel in made if channel.phase == phase)
    state, stranger = kept[keys.STATE + outpoint], bytes(36)
    if phase != Phase.OPEN:
        yield keys.expiring_key(1_800_000_000, outpoint), b""
    else:
        yield keys.expiring_key(5, outpoint), b""
        yield keys.SETTLEMENT + outpoint, b"tx"
    yield keys.UNFINISHED + outpoint, bytes((7,))
    outcome = Outcome(99, 7, 5).serialize()
    yield keys.done_key(98, outpoint), outcome
    if phase != Phase.SETTLED:
        yield keys.done_key(99, outpoint), outcome
    yield keys.STATE + outpoint, state[:4] + (1 << 40).to_bytes(8, "little") + state[12:]
    yield keys.STATE + outpoint, state[:2] + b"\1" + state[3:]
    yield keys.STATE + outpoint, state[:1] + b"\6" + state[2:]
    if phase in (Phase.SIGNED, Phase.BROADCAST):
        yield keys.SETTLEMENT + outpoint, b"another transaction"
    terms = kept[keys.TERMS + outpoint]
    yield keys.TERMS + outpoint, terms[:22] + b"\3" + terms[23:]
    for prefix in (keys.TERMS, keys.STATE, keys.SETTLEMENT, keys.UNFINISHED, keys.expiring_key(9), keys.done_key(9)):
        yield prefix + stranger, state if prefix == keys.STATE else b""
        yield prefix + outpoint[:-1], state
    told = keys.decode_unsettled(kept[keys.UNSETTLED])
    yield keys.UNSETTLED, keys.encode_unsettled(told._replace(open=told.open + 1))
    yield keys.UNSETTLED, keys.encode_unsettled(told._replace(begun=told.begun - 1))
    yield keys.UNSETTLED, b""
    yield keys.epoch_key(SHARDS + LEASE_COUNT), keys.encode_epoch(1)
    yield keys.RESTORED, b"?"
    yield b"?", b""
    yield keys.IDENTITY, Identity("moon", PUBKEY, SHARDS, bytes(16)).encode()


@pytest.mark.parametrize("phase", Phase)
def test_any_record_out_of_place_is_found(content, phase):
    kept, made = content
    for key, value in wrong(kept, made, phase):
        assert check_records(Kept({**kept, key: value})).problem_count, (phase.name, key, value)


def test_a_store_from_before_the_second_sum_is_sound(content):
    kept, _ = content
    assert not check_records(Kept({**kept, keys.UNSETTLED: kept[keys.UNSETTLED][:8]})).problem_count


def test_a_funding_transaction_that_is_not_the_one_its_key_names_is_found(content):
    kept, _ = content
    for key, value in ((txid_without_witness(b"one"), b"two"), (txid_without_witness(b"one")[:31], b"one"), (b"", b"")):
        assert check_records(Kept({**kept, keys.FUNDING + key: value})).problem_count == 1
    assert check_records(Kept({**kept, keys.FUNDING + txid_without_witness(b"one"): b"one"})).problem_count == 0


def test_unsettled_channels_without_their_funding_transaction_are_counted(content):
    kept, made = content
    unsettled = [channel.outpoint for channel in made if channel.phase != Phase.SETTLED]
    report = check_records(kept)
    assert (report.unproven, report.problem_count) == (len(unsettled), 0)
    told = f"{len(unsettled)} unsettled channels have no funding transaction: only a signer in debug mode settles them"
    assert told in report.lines()
    proven = Kept({**kept, **{keys.FUNDING + outpoint[:32]: b"" for outpoint in unsettled[:-1]}})
    assert check_records(proven).unproven == 1
    proven[keys.FUNDING + unsettled[-1][:32]] = b""
    assert not any("only a signer" in line for line in check_records(proven).lines())


def test_problems_beyond_the_first_are_counted():
    count = PROBLEMS_SHOWN_MAX + 5
    report = check_records(Kept({keys.TERMS + number.to_bytes(36, "big"): b"" for number in range(count)}))
    assert report.problem_count == count + 1
    assert list(report.lines())[-2] == f"and {count + 1 - PROBLEMS_SHOWN_MAX} more"


def test_a_database_is_checked_and_not_changed(tmp_path, content):
    kept, _ = content
    engine = RocksDB(tmp_path / "db")
    engine.commit(dict(kept))
    engine.close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir() if not path.name.startswith("LOG")}
    assert check_store(tmp_path / "db").problems == []
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "db").iterdir() if not path.name.startswith("LOG")}
    path_of(tmp_path / "db").unlink()
    assert check_store(tmp_path / "db").problem_count == 1
    table = next((tmp_path / "db").glob("*.sst"))
    raw = bytearray(table.read_bytes())
    raw[100] ^= 1
    table.write_bytes(raw)
    with pytest.raises(Exception, match="[Cc]hecksum|[Cc]orruption"):
        check_store(tmp_path / "db")


@pytest.mark.parametrize("bit", [0, 10, 20])
def test_money_that_moves_in_one_record_is_found(content, bit):
    """Less is left on one unsettled channel, or more: the sums of all updates, which are a record of their own, do not say so."""
    kept, made = content
    for channel in made:
        if ABSENT < channel.phase < Phase.SETTLED:
            key = keys.STATE + channel.outpoint
            left = int.from_bytes(kept[key][4:12], "little") ^ 1 << bit
            report = check_records(Kept({**kept, key: kept[key][:4] + left.to_bytes(8, "little") + kept[key][12:]}))
            told = "open value" if channel.phase == Phase.OPEN else "value being settled"
            assert any(told in problem or "gives the payer" in problem for problem in report.problems)


def test_an_audit_finds_a_payment_that_its_payer_has_not_signed():
    sample = make_sample("audit")
    paid = sample.sign(9_000_000)
    key = keys.STATE + sample.terms.outpoint
    identity = Identity("test", sample.terms.server_pubkey, SHARDS, bytes(16))

    def audited(value):
        state = ChannelState(Phase.OPEN, Payment(value, paid.signature, paid.sighash_type)).serialize()
        kept = Kept({keys.IDENTITY: identity.encode(), key: state, keys.TERMS + sample.terms.outpoint: sample.terms.serialize()})
        kept[keys.expiring_key(sample.terms.exp_time, sample.terms.outpoint)] = b""
        kept[keys.UNSETTLED] = keys.encode_unsettled(Unsettled(10_000_000 - value))
        assert check_records(kept).problem_count == 0
        return [problem for problem in check_records(kept, verify_payment).problems if "not signed by its payer" in problem]

    assert audited(9_000_000) == []
    for value in (8_999_999, 9_000_001, 0):
        assert len(audited(value)) == 1


# --- what was sold ---


def sold_content(spent=300, total=None):
    """The content of a store with an open channel that received 1000 satoshi and sold for some of them."""
    kept, made = grown(3, 3)
    channel = next(channel for channel in made if channel.phase == Phase.OPEN)
    key = keys.STATE + channel.outpoint
    state = ChannelState.parse(kept[key])
    sales = Sales(spent, 2, (Purchase(b"k" * 16, 9, 9, 1),))
    kept[key] = ChannelState(state.phase, state.payment, b"", sales).serialize()
    kept[keys.OPEN_SPENT] = keys.encode_spent(spent if total is None else total)
    terms = ChannelTerms.parse(channel.outpoint, kept[keys.TERMS + channel.outpoint])
    return kept, terms.funding_value - state.payment.change_value


def test_what_was_sold_is_summed_and_told():
    kept, received = sold_content(9)
    assert received >= 9
    report = check_records(kept)
    assert (report.problems, report.spent, report.open_spent) == ([], 9, 9)
    assert "9 satoshi of what was received were spent on purchases" in list(report.lines())


def test_more_sold_than_received_is_found():
    _, received = sold_content()
    report = check_records(sold_content(received + 1)[0])
    assert any(f"has sold for {received + 1} satoshi, and received {received}" in problem for problem in report.problems)


@pytest.mark.parametrize("total", [0, 8, 10, 1 << 40])
def test_a_sum_of_what_was_spent_that_differs_is_found(total):
    (problem,) = check_records(sold_content(9, total)[0]).problems
    assert problem == f"the record of the spent value says {total}, the channels 9"
