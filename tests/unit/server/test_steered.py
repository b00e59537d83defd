"""Aim: a worker obeys what the operator has changed before it says so, and leaves only when that ends nothing else. Method: the
part that obeys, with a file, and an end that is noted instead of made."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from paychan.core.errors import Unavailable
from paychan.rpc.connection import ConnectionGone
from paychan.server import steered
from paychan.settings.load import load_server_config
from paychan.settings.steering import FREEZE_NOTE, Freeze, change_steering
from tests.system import ROOT


class Rig:
    def __init__(self, directory):
        self.directory = directory
        self.config = load_server_config(ROOT / "config" / "debug" / "server.toml", {"PAYCHAN_STATE_DIR": str(directory)})
        self.heard, self.ends = [], []
        self.part = steered.Steered(self.config, self.heard.append, lambda: {"is_drained": False}, lambda: self.ends.append(1))

    def change(self, **changes):
        return change_steering(self.directory, lambda before: replace(before, **changes))

    def control(self, word):
        return orjson.loads(asyncio.run(self._control(word)))

    async def _control(self, word):
        answer = await self.part.control(word)
        await asyncio.sleep(0.1)
        return answer


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_it_obeys_before_it_says_so(rig):
    made = rig.change(limits={"funding_value_max_satoshi": 7})
    assert rig.control(b"look")["revision"] == made.revision
    assert [config.funding_value_max for config in rig.heard] == [7] == [rig.part.config.funding_value_max]


def test_no_channel_opens_from_the_change_on_though_nobody_was_told(rig):
    rig.part.check_opens()
    rig.change(frozen_at=1)
    with pytest.raises(Unavailable, match="opens_frozen"):
        rig.part.check_opens()
    rig.change(frozen_at=None)
    rig.part.check_opens()


def test_a_young_worker_does_not_leave_and_an_old_one_does_once(rig, monkeypatch):
    assert not rig.control(b"drain")["is_leaving"] and not rig.ends
    monkeypatch.setattr(steered, "YOUNG_SECONDS", 0.0)
    assert rig.control(b"drain")["is_leaving"] and rig.ends == [1]
    assert rig.control(b"drain")["is_leaving"] and rig.ends == [1]


def test_what_it_is_asked_and_does_not_know_only_has_it_look(rig):
    assert set(rig.control(b"anything")) == {"pid", "revision", "freeze", "is_drained"} and not rig.ends


# --- a freeze of all machines ---


class Store:
    """Where the note is, None: it is away."""

    def __init__(self):
        self.said = {}

    async def notes(self, prefix):
        if self.said is None:
            raise ConnectionGone()
        return {name: note for name, note in self.said.items() if name.startswith(prefix)}

    def freeze(self, *what):
        self.said[FREEZE_NOTE] = Freeze(*what).encode()


@pytest.fixture
def shared(rig):
    store = Store()
    rig.part.follow(store)
    return store


def test_the_store_is_asked_before_each_opening_though_it_has_told_nothing(rig, shared):
    asyncio.run(rig.part.ask_opens())
    shared.freeze(1, 5)
    rig.part.check_opens()
    with pytest.raises(Unavailable, match="opens_frozen"):
        asyncio.run(rig.part.ask_opens())
    with pytest.raises(Unavailable, match="opens_frozen"):
        rig.part.check_opens()
    shared.freeze(2)
    asyncio.run(rig.part.ask_opens())
    rig.part.check_opens()


def test_no_channel_opens_while_the_store_does_not_say_whether_one_may(rig, shared):
    shared.said = None
    with pytest.raises(Unavailable, match="store_unavailable"):
        asyncio.run(rig.part.ask_opens())


def test_this_machine_may_be_frozen_alone(rig, shared):
    shared.freeze(2)
    rig.change(frozen_at=1)
    with pytest.raises(Unavailable, match="opens_frozen"):
        asyncio.run(rig.part.ask_opens())


def test_what_the_store_told_earlier_and_comes_later_changes_nothing(rig):
    rig.part.hear(Freeze(2, 5).encode())
    rig.part.hear(Freeze(1).encode())
    rig.part.hear(b"")
    assert rig.part.is_frozen
    rig.part.hear(Freeze(3).encode())
    assert not rig.part.is_frozen
    rig.part.hear(b"damaged")
    assert rig.part.is_frozen
    rig.part.hear(Freeze(4).encode())
    assert not rig.part.is_frozen


def test_a_store_that_was_restored_is_believed_when_it_is_back(rig):
    rig.part.hear(Freeze(9, 5).encode())
    rig.part.forget_revision()
    assert rig.part.is_frozen, "it is not known to have ended"
    rig.part.hear(Freeze(3).encode())
    assert not rig.part.is_frozen


def test_it_asks_the_store_before_it_says_that_it_obeys_the_freeze_of_all_machines(rig, shared):
    shared.freeze(4, 5, "a trial")
    assert rig.control(b"look")["freeze"] == {"revision": 0, "frozen_at": None, "why": ""}
    assert rig.control(b"ask")["freeze"] == {"revision": 4, "frozen_at": 5, "why": "a trial"}
    assert rig.part.is_frozen
    shared.said = None
    assert rig.control(b"ask")["freeze"]["revision"] == 4
