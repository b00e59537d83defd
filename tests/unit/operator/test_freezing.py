"""Aim: a freeze of all machines is a note that is replaced on condition, and is told of as it holds. Method: the acting part with a
store that keeps notes, and no worker."""

import asyncio
from dataclasses import asdict

import pytest

from paychan.core.errors import Unavailable
from paychan.operator import acting
from paychan.rpc.connection import ConnectionGone
from paychan.settings.load import load_server_config
from paychan.settings.steering import FREEZE_NOTE, Freeze, Steering
from tests.system import ROOT

LEASE_MS = 3000


class Store:
    """others: what somebody else writes, one after the other, between our look and our write."""

    def __init__(self, note=None, others=()):
        self.kept, self.others, self.is_away = note, list(others), False

    async def notes(self, prefix):
        assert prefix == FREEZE_NOTE
        if self.is_away:
            raise ConnectionGone()
        return {} if self.kept is None else {FREEZE_NOTE: self.kept}

    async def note(self, change):
        if self.others:
            self.kept = self.others.pop(0).encode()
        if change.expected != self.kept:
            return False, self.kept
        self.kept = change.value
        return True, self.kept


@pytest.fixture
def config(tmp_path):
    return load_server_config(ROOT / "config" / "debug" / "server.toml", {"PAYCHAN_STATE_DIR": str(tmp_path)})


def freeze(config, store, is_frozen=True, why=""):
    return asyncio.run(acting.freeze_all(config, store, LEASE_MS, is_frozen, why))


def test_a_freeze_is_a_note_and_so_is_a_thaw(config):
    store = Store()
    told = freeze(config, store, why="a trial")
    kept = Freeze.parse(store.kept)
    assert (kept.revision, kept.why) == (1, "a trial")
    assert told["opens"] == {"is_frozen": True, "since_at": kept.frozen_at, "why": "a trial", "holds_for": "all machines"}
    assert (told["holds_for"], told["not_yet"], told["others_within_seconds"]) == ("all machines", [], 4)
    assert freeze(config, store, why="a trial")["revision"] == 1, "said again it changes nothing"
    assert freeze(config, store, False)["opens"] == {"is_frozen": False, "since_at": None, "why": "", "holds_for": ""}
    assert Freeze.parse(store.kept) == Freeze(2)


def test_who_was_faster_is_built_upon(config):
    store = Store(Freeze(4).encode(), [Freeze(5, 77, "theirs"), Freeze(6, 77, "theirs again")])
    assert freeze(config, store, why="ours")["revision"] == 7
    assert Freeze.parse(store.kept) == Freeze(7, 77, "ours"), "it is frozen since they froze it"


def test_a_note_that_does_not_read_is_replaced_by_one_that_every_worker_takes_for_newer(config):
    store = Store(b"damaged")
    assert freeze(config, store, False)["revision"] > 1_700_000_000
    assert Freeze.parse(store.kept).frozen_at is None


def test_without_the_store_nothing_is_said_to_hold(config):
    store = Store()
    store.is_away = True
    with pytest.raises(Unavailable, match="store_unavailable"):
        freeze(config, store)


def test_a_thaw_of_this_machine_says_that_all_machines_are_still_frozen():
    told = [{"freeze": asdict(Freeze(3, 5, "all"))}, {"freeze": asdict(Freeze(2))}, {}]
    assert acting.opens(Steering(), told) == {"is_frozen": True, "since_at": 5, "why": "all", "holds_for": "all machines"}
    assert acting.opens(Steering(frozen_at=9, why="here"), told)["why"] == "all"
    thawed = acting.opens(Steering(frozen_at=9, why="here"), told, Freeze(4))
    assert thawed == {"is_frozen": True, "since_at": 9, "why": "here", "holds_for": "this machine"}
