"""The short form of the campaign against events and webhooks, and that its judges see what they are there for.
PAYCHAN_EVENTS_KILLS sets how many kills; `python -m tests.campaign.events` tells more."""

import os

import pytest

from paychan.core.channel import ChannelState, Phase
from paychan.core.payment import SIGHASH_CHANGE, Payment
from tests.campaign import events
from tests.postgres import embedded_only

KILLS = int(os.environ.get("PAYCHAN_EVENTS_KILLS", "5"))


@embedded_only
def test_kills_lose_no_event_and_invent_none(tmp_path):
    assert events.run(tmp_path, KILLS, 7, print) == []


TOLD = [{"id": number, "type": kind, "outpoint": "a/0"} for number, kind in enumerate(("channel.opened", "channel.closing"), 1)]
CLOSING = {"a/0": ChannelState(Phase.CLOSING, Payment(1, b"s" * 70, SIGHASH_CHANGE))}


@pytest.mark.parametrize(
    ("taken", "is_good"),
    [
        (TOLD, True),
        ([TOLD[0], *TOLD], True),
        ([*TOLD, TOLD[0]], True),
        (TOLD[:1], False),
        (TOLD[::-1], False),
        ([*TOLD, {**TOLD[0], "id": 3}], False),
        ([*TOLD, {**TOLD[0], "type": "channel.lost"}], False),
    ],
)
def test_the_judge_of_deliveries(taken, is_good):
    assert (not events.judge_deliveries(TOLD, taken)) is is_good


@pytest.mark.parametrize(
    ("told", "states", "opened", "is_good"),
    [
        (TOLD, CLOSING, {"a/0": 1}, True),
        (TOLD[:1], CLOSING, {}, False),
        ([TOLD[0], *TOLD], CLOSING, {}, False),
        (TOLD, {}, {}, False),
        (TOLD, CLOSING, {"b/0": 1}, False),
        ([*TOLD, {"id": 3, "type": "channel.settled", "outpoint": "a/0"}], CLOSING, {}, False),
    ],
)
def test_the_judge_of_the_stream(told, states, opened, is_good):
    assert (not events.judge_stream(told, states, opened)) is is_good
