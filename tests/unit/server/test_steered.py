"""Aim: a worker obeys what the operator has changed before it says so, and leaves only when that ends nothing else. Method: the
part that obeys, with a file, and an end that is noted instead of made."""

import asyncio
from dataclasses import replace

import orjson
import pytest

from paychan.core.errors import Unavailable
from paychan.server import steered
from paychan.settings.load import load_server_config
from paychan.settings.steering import change_steering
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
    assert set(rig.control(b"anything")) == {"pid", "revision", "is_drained"} and not rig.ends
