"""Aim: a state file is refused when it is read if a value has another type than ours. Method: each value, exchanged for each."""

import dataclasses
import json

import pytest

from paychan.client import ChannelRecord, PayerPhase, StateError, parse_record
from paychan.client.record import Hold
from paychan.core.sender import sign_payment
from tests.client.test_refund_and_settlement import AGREEMENT, FUNDING, KEY

STRANGE = ["text", 7, 7.5, True, [], ["text"], {}, {"text": 7}]


def record() -> ChannelRecord:
    agreed = dataclasses.replace(AGREEMENT, planned_value=9_000_000, confirmations_needed=3, open_before=AGREEMENT.exp_time)
    made = ChannelRecord(agreed, "my.key", PayerPhase.OPEN, FUNDING, hold=Hold("server_misbehaved", "it lied"))
    made.signed = made.acknowledged = sign_payment(made.terms, 9_000_000, KEY)
    return made


MAY_BE_NULL = ("planned_value", "confirmations_needed", "open_before")
CONTENT = json.loads(record().serialize())
PLACES = [(name,) for name in CONTENT] + [
    (name, inner) for name, part in CONTENT.items() if isinstance(part, dict) for inner in part
]


def test_what_was_written_is_read():
    assert parse_record(record().serialize()) == record()


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_value_of_another_type_is_refused(place):
    content = json.loads(record().serialize())
    *outer, name = place
    part = content[outer[0]] if outer else content
    right = part[name]
    for strange in STRANGE:
        if type(strange) is not type(right):
            part[name] = strange
            with pytest.raises(StateError):
                parse_record(json.dumps(content).encode())
    if not isinstance(right, dict) and name not in MAY_BE_NULL:
        part[name] = None
        with pytest.raises(StateError):
            parse_record(json.dumps(content).encode())


@pytest.mark.parametrize("content", [*STRANGE, None])
def test_a_file_that_is_no_state_is_refused(content):
    with pytest.raises(StateError):
        parse_record(json.dumps(content).encode())
