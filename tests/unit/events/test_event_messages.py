"""Aim: events, endpoints and their messages are what they say, and any other bytes are refused. Method: Hypothesis, and each
limit."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paychan.events.endpoint import Endpoint, check_types, heard
from paychan.events.event import BODY_SIZE_MAX, NUMBER_MAX, TOLD, Event, Numbered, Type
from paychan.rpc import event_messages as messages
from paychan.rpc.store_messages import MessageError

EVENTS = st.builds(
    Event, st.sampled_from(sorted(Type)), st.dictionaries(st.text(max_size=9), st.integers(0, 10**15), max_size=3),
    st.sampled_from(["", "a/0"]), st.integers(0, 2**40), st.sampled_from(["", "b"]),
)  # fmt: skip
PARTS = st.none() | st.binary(max_size=20)


@given(EVENTS, st.integers(1, NUMBER_MAX))
def test_an_event_is_read_as_it_was_written(event, number):
    assert Event.parse(event.encode()) == event
    assert Numbered(number, event).members() == {"id": number, **json.loads(event.encode())}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"1", b"{}", b"[]", b"\xff", b'{"at":1,"type":"x.y","data":{}}', b'{"at":"1","type":"chain.trusted","data":{}}',
        b'{"at":true,"type":"chain.trusted","data":{}}', b'{"at":1,"type":"chain.trusted","data":{},"more":1}',
        b'{"at":1,"type":"chain.trusted","data":[]}', b'{"at":1,"type":"chain.trusted","data":{"a":"' + b"x" * BODY_SIZE_MAX +
        b'"}}', ],
)  # fmt: skip
def test_other_bytes_are_no_event(body):
    with pytest.raises(ValueError):  # noqa: PT011  # any of its kinds
        Event.parse(body)


@given(st.binary(max_size=60))
def test_no_bytes_make_a_message_fail_otherwise(payload):
    for decode in (
        messages.decode_after, messages.decode_stream, messages.NoteChange.decode, messages.decode_note_reply,
        messages.check_prefix, messages.decode_notes,
    ):  # fmt: skip
        try:
            decode(payload)
        except MessageError:
            continue


@given(st.lists(st.tuples(st.integers(1, NUMBER_MAX), st.binary(max_size=30)), max_size=4), st.booleans())
def test_messages_come_back(rows, is_ours):
    stream = messages.Stream(1, 9, is_ours, rows)
    assert messages.decode_stream(messages.encode_stream(stream)) == stream
    notes = {str(number): body for number, body in rows}
    assert messages.decode_notes(messages.encode_notes(notes)) == notes


@given(PARTS, PARTS, st.lists(EVENTS.filter(lambda event: event.type in TOLD), max_size=3))
def test_a_change_of_a_note_comes_back(expected, value, events):
    change = messages.NoteChange("a/b", expected, value, events)
    assert messages.NoteChange.decode(change.encode()) == change
    assert messages.decode_note_reply(messages.encode_note_reply(True, value)) == (True, value)


@pytest.mark.parametrize("kind", sorted(set(Type) - TOLD))
def test_what_only_the_store_tells_is_refused(kind):
    with pytest.raises(MessageError, match="only the store"):
        messages.NoteChange.decode(messages.NoteChange("a", None, b"", [Event(kind)]).encode())


@pytest.mark.parametrize(
    "change",
    [
        messages.NoteChange("", None, b""), messages.NoteChange("x" * 65, None, b""), messages.NoteChange("x", None, bytes(8193)),
        messages.NoteChange("x", None, b"", [Event(Type.CHAIN_TRUSTED)] * 129),
    ],
)  # fmt: skip
def test_limits_of_a_note(change):
    with pytest.raises(MessageError):
        messages.NoteChange.decode(change.encode())


def test_an_endpoint_comes_back_and_its_secret_is_not_shown():
    endpoint = Endpoint("ep_1", "https://a/", "whsec_x", 5, 7, ("channel.lost",))
    assert Endpoint.parse(endpoint.encode()) == endpoint
    assert "secret" not in endpoint.shown() and "whsec" not in json.dumps(endpoint.shown())
    assert (endpoint.wants("channel.lost"), endpoint.wants("channel.opened")) == (True, False)
    others = {"a": endpoint.encode(), "b": Endpoint("ep_2", "", "", 0, 3, is_enabled=False).encode()}
    assert (heard(others), heard({})) == (7, NUMBER_MAX)
    for wrong in (b"", b"{}", b"[]", endpoint.encode().replace(b":7,", b":-7,")):
        with pytest.raises((ValueError, TypeError)):
            Endpoint.parse(wrong)
    with pytest.raises(ValueError, match="must be of"):
        check_types(["channel.lost", "x"])
