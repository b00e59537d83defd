"""Aim: frames and messages mean the same at both ends, and garbage is refused. Method: golden bytes, feeding byte by byte and
whole, Hypothesis round trips of every message, damage that may raise MessageError and nothing else."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan._fast.frame import ERROR, HEAD_SIZE, REPLY, FrameError, FrameReader, encode_frame
from paychan.core.channel import ChannelTerms
from paychan.core.funding import STRIPPED_SIZE_MAX
from paychan.core.payment import Payment
from paychan.rpc import signer_messages, store_messages
from paychan.rpc.signer_messages import Refusal, RefusalCode, SettleRequest, SignerMessage
from paychan.rpc.store_messages import (
    ENTRIES_MAX,
    LOAD_MAX,
    RECEIVED_MAX,
    SCAN_LIMIT_MAX,
    Entry,
    EntryStatus,
    Hello,
    MessageError,
    OwnerTable,
    Scan,
    Stored,
    StoreMessage,
    Unsettled,
    Welcome,
    decode_commit,
    decode_found,
    decode_heartbeat_reply,
    decode_load,
    decode_load_reply,
    decode_received,
    encode_commit,
    encode_found,
    encode_heartbeat_reply,
    encode_load,
    encode_load_reply,
    encode_received,
)
from tests.differential.channels import make_sample

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
OUTPOINTS = st.binary(min_size=36, max_size=36)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
FRAMES = st.lists(st.tuples(U8, U32, st.binary(max_size=200)), max_size=8)

# --- frames -----------------------------------------------------------------------------------------------------------


def test_a_frame_never_changes():
    assert encode_frame(3, 0x01020304, b"abc").hex() == "03000000" + "01" + "03" + "0000" + "04030201" + "616263"
    assert (HEAD_SIZE, REPLY, ERROR) == (12, 128, 255)


def test_message_numbers_never_change():
    names = {message.name: int(message) for message in StoreMessage}
    assert names == {
        "HELLO": 1,
        "OWNERS": 2,
        "COMMIT": 3,
        "LOAD": 4,
        "SCAN_EXPIRING": 5,
        "SCAN_UNFINISHED": 6,
        "HEARTBEAT": 7,
        "KEEP_FUNDING": 8,
        "LOAD_FUNDING": 9,
        "SCAN_RECEIVED": 10,
        "HIGHEST": 11,
        "EVENTS": 12,
        "NOTE": 13,
        "NOTES": 14,
        "SCAN_SETTLED": 16,
        "STORES": 17,
    }
    assert {message.name: int(message) for message in SignerMessage} == {"PUBLIC_KEY": 1, "SETTLE": 2, "NOTE": 3, "JUDGE": 4}
    assert [int(status) for status in EntryStatus] == [0, 1, 2, 3, 4]
    assert all(int(message) + REPLY < ERROR for message in (*StoreMessage, *SignerMessage))


@given(FRAMES, st.data())
def test_frames_arrive_whole_however_the_stream_is_cut(frames, data):
    stream = b"".join(encode_frame(*frame) for frame in frames)
    whole = FrameReader(200)
    assert whole.feed(stream) == frames
    by_byte = FrameReader(200)
    assert [frame for at in range(len(stream)) for frame in by_byte.feed(stream[at : at + 1])] == frames
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    cut = FrameReader(200)
    parts = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [frame for part in parts for frame in cut.feed(part)] == frames


def test_a_frame_too_long_is_refused_by_its_head_alone():
    assert FrameReader(5).feed(encode_frame(1, 1, b"12345")) == [(1, 1, b"12345")]
    with pytest.raises(FrameError):
        FrameReader(5).feed(encode_frame(1, 1, b"123456")[:HEAD_SIZE])
    with pytest.raises(FrameError):
        FrameReader(2**31).feed(struct.pack("<IBBHI", 2**32 - 1, 1, 1, 0, 1))


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_refused(version):
    with pytest.raises(FrameError):
        FrameReader(100).feed(struct.pack("<IBBHI", 0, version, 1, 0, 1))


@pytest.mark.parametrize("zero", [1, 256, 65535])
def test_the_reserved_bytes_must_be_zero(zero):
    with pytest.raises(FrameError):
        FrameReader(100).feed(struct.pack("<IBBHI", 0, 1, 1, zero, 1))


def test_garbage_after_good_frames_is_refused():
    with pytest.raises(FrameError):
        FrameReader(100).feed(encode_frame(1, 1) + b"GET / HTTP/1.1\r\n")


@given(st.binary(max_size=100))
def test_any_bytes_give_frames_or_frame_error(stream):
    try:
        for kind, request_id, payload in FrameReader(1000).feed(stream):
            assert encode_frame(kind, request_id, payload) in stream
    except FrameError:
        pass


# --- messages: round trips --------------------------------------------------------------------------------------------

ENTRIES = st.builds(
    Entry,
    shard=U16,
    epoch=U64,
    outpoint=OUTPOINTS,
    expected_phase=U8,
    expected_change_value=U64,
    state=st.binary(max_size=120),
    extra=st.binary(max_size=120),
    credit=U64,
)


@given(st.builds(Hello, TEXT, st.binary(max_size=40), TEXT))
def test_hello(message):
    assert Hello.decode(message.encode()) == message


@given(st.builds(Welcome, U32, U32, U32))
def test_welcome(message):
    assert Welcome.decode(message.encode()) == message


STOPPED = st.dictionaries(U16, TEXT, max_size=5)


@given(st.builds(OwnerTable, U64, st.dictionaries(U32, TEXT, max_size=5), st.lists(st.tuples(U32, U64), max_size=300), STOPPED))
def test_owner_table(message):
    assert OwnerTable.decode(message.encode()) == message


@given(st.lists(ENTRIES, max_size=10), st.lists(st.tuples(U16, U64, U64), max_size=4))
def test_commit(entries, claims):
    assert decode_commit(encode_commit([entry.encode() for entry in entries], claims)) == entries


def test_an_update_that_credits_nobody_says_what_the_change_values_say():
    state = struct.pack("<BBBBQ", 1, 1, 0x83, 0, 700)
    (entry,) = decode_commit(encode_commit([Entry(0, 1, bytes(36), 1, 1000, state).encode()]))
    assert entry.credit == 300


@given(st.lists(OUTPOINTS, min_size=1, max_size=9))
def test_load(outpoints):
    assert decode_load(encode_load(outpoints)) == outpoints


STORED = st.builds(Stored, st.binary(max_size=100), st.binary(min_size=12, max_size=100), st.binary(max_size=300))


@given(st.lists(st.none() | STORED, max_size=9))
def test_load_reply(found):
    assert decode_load_reply(encode_load_reply(found)) == found


@given(st.builds(Scan, st.integers(1, SCAN_LIMIT_MAX), U32, U32, OUTPOINTS))
def test_scan(message):
    assert Scan.decode(message.encode()) == message


@given(U64, U64)
def test_unsettled(opened, begun):
    unsettled = Unsettled(opened, begun)
    assert decode_heartbeat_reply(encode_heartbeat_reply(unsettled, b"a note")) == (unsettled, b"a note")
    assert unsettled.total == opened + begun


@given(st.lists(st.tuples(U32, U64, OUTPOINTS), max_size=20))
def test_received(found):
    assert decode_received(encode_received(found)) == found


@given(st.lists(st.tuples(U32, OUTPOINTS), max_size=20))
def test_found(found):
    assert decode_found(encode_found(found)) == found


KEYS = st.binary(min_size=33, max_size=33)
TERMS = st.builds(
    ChannelTerms,
    outpoint=OUTPOINTS,
    server_pubkey=KEYS,
    client_pubkey=KEYS,
    exp_time=U32,
    funding_value=U64,
    change_script=st.binary(max_size=25),
    opened_at=U64,
)
OPENING = make_sample("messages").opening
PAYMENT = Payment(OPENING.change_value, OPENING.signature, OPENING.sighash_type)


@given(st.builds(SettleRequest, TERMS, st.just(PAYMENT), U64, st.binary(max_size=300)))
def test_settle_request(message):
    assert SettleRequest.decode(message.encode()) == message


@given(st.builds(Refusal, st.sampled_from(RefusalCode), TEXT))
def test_refusal(message):
    assert Refusal.decode(message.encode()) == message


# --- messages: damage -------------------------------------------------------------------------------------------------

ENTRY = Entry(3, 4, bytes(range(36)), 1, 5000, b"s" * 82, b"e" * 9)
GOOD = {
    "hello": (Hello.decode, Hello("test", b"k" * 33, "unix:/x").encode()),
    "welcome": (Welcome.decode, Welcome(1, 256, 3000).encode()),
    "owners": (OwnerTable.decode, OwnerTable(7, {1: "unix:/a", 2: ""}, [(1, 5), (2, 6), (0, 0)]).encode()),
    "commit": (decode_commit, encode_commit([ENTRY.encode(), ENTRY.encode()])),
    "load": (decode_load, encode_load([bytes(36)])),
    "load reply": (decode_load_reply, encode_load_reply([Stored(b"t" * 99, b"s" * 82, b"x" * 300)])),
    "scan": (Scan.decode, Scan(10, 1, 2).encode()),
    "found": (decode_found, encode_found([(1, bytes(36)), (2, bytes(36))])),
    "settle": (SettleRequest.decode, SettleRequest(make_sample("messages").terms, PAYMENT, 1000, b"f" * 50).encode()),
    "refusal": (Refusal.decode, Refusal(RefusalCode.FEE_FALLS, "why").encode()),
}
OPEN_ENDED = {"settle", "refusal", "found"}  # their last field takes whatever is left


@pytest.mark.parametrize("name", GOOD)
def test_cut_messages_are_refused(name):
    decode, payload = GOOD[name]
    decode(payload)
    for size in range(len(payload)):
        try:
            decode(payload[:size])
        except MessageError:
            continue
        fine = {"load reply": size == 0, "found": size % 40 == 0, "settle": size >= len(payload) - 50, "refusal": size > 0}
        assert fine.get(name), f"{size} bytes of {name} were taken for all of it"


@pytest.mark.parametrize("name", sorted(set(GOOD) - OPEN_ENDED))
def test_trailing_bytes_are_refused(name):
    decode, payload = GOOD[name]
    with pytest.raises(MessageError):
        decode(payload + b"\0")


@pytest.mark.parametrize("name", GOOD)
@given(data=st.data())
def test_garbage_raises_message_error_and_nothing_else(name, data):
    decode, payload = GOOD[name]
    garbage = data.draw(st.binary(max_size=300))
    at = data.draw(st.integers(0, len(payload)))
    for bad in (garbage, payload[:at] + garbage, payload[:at] + garbage + payload[at + len(garbage) :]):
        with contextlib.suppress(MessageError):
            decode(bad)


def test_limits_are_kept():
    with pytest.raises(MessageError):
        decode_commit(encode_commit([ENTRY.encode()] * (ENTRIES_MAX + 1)))
    assert len(decode_commit(encode_commit([ENTRY.encode()] * ENTRIES_MAX))) == ENTRIES_MAX
    for count in (0, LOAD_MAX + 1):
        with pytest.raises(MessageError):
            decode_load(encode_load([bytes(36)] * count))
    with pytest.raises(MessageError):
        encode_load_reply([Stored(b"t", b"s", bytes(60_000))] * 80)
    for limit in (0, SCAN_LIMIT_MAX + 1):
        with pytest.raises(MessageError):
            Scan.decode(Scan(limit).encode())
    assert Scan.decode(Scan(RECEIVED_MAX).encode(), RECEIVED_MAX).limit == RECEIVED_MAX
    with pytest.raises(MessageError):
        Scan.decode(Scan(RECEIVED_MAX + 1).encode(), RECEIVED_MAX)
    assert len(encode_found([(0, bytes(36))] * SCAN_LIMIT_MAX)) < store_messages.PAYLOAD_MAX
    assert signer_messages.PAYLOAD_MAX > STRIPPED_SIZE_MAX


def test_bad_payments_in_a_settle_request_are_message_errors():
    good = SettleRequest(make_sample("messages").terms, PAYMENT, 1000, b"").encode()
    spoiled = good[:-1] + b"\x81"
    with pytest.raises(MessageError):
        SettleRequest.decode(spoiled)
