"""Planted faults of stores on PostgreSQL, in memory only, for `..breaks`: Q10 to Q19.

FIRST has the number of a world that has seen each. What a function of the schema forbids is taken away in the model, which
test_tables.py holds against the schema.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from paychan import database as nodes
from store.engines.postgres import engine, opening, sharing
from store.sequencer import Sequencer

from . import database, driver, stage, tables

BREAKS: dict[str, Callable[[], Any]] = {}

FIRST = {
    "a group is answered before a standby has it": 0,
    "a cancelled wait counts as confirmed": 21,
    "the mark is ignored": 100,
    "a living store is taken for silent": 1,
    "two stores share a name": 267,
    "nobody waits for a standby": 267,
    "nobody hears that a store has found less": 16,
}


def _break(make: Callable[[], Any]) -> Callable[[], Any]:
    BREAKS[make.__name__.removeprefix("_").replace("_", " ")] = contextmanager(make)
    return make


@_break
def _a_group_is_answered_before_a_standby_has_it() -> Iterator[None]:
    """Q10."""
    put = engine.Postgres.put

    async def early(self: engine.Postgres, writes: engine.Writes) -> None:
        self.run(put(self, writes))

    with patch.object(engine.Postgres, "put", early):
        yield


@_break
def _neither_the_fence_nor_what_is_stored_is_looked_at() -> Iterator[None]:
    """Q11. Nor the number of the group. With the fence alone gone, the condition of each update still refuses what comes late."""
    pass_ = tables.pass_

    def careless(tx: tables.Transaction, store: str, fence: int, groups: int, *sums: int) -> None:
        row = tx.get("store", store)
        pass_(tx, store, row.fence, row.groups + 1, *sums)

    def blind(tx: tables.Transaction, rows: list[tuple[Any, ...]]) -> int:
        for outpoint, _, _, _, *after in rows:
            tx.put("state", outpoint, tables.StateRow(*after))
        return len(rows)

    with patch.object(tables, "pass_", careless), patch.object(tables, "_put_states", blind):
        yield


@_break
def _a_cancelled_wait_counts_as_confirmed() -> Iterator[None]:
    """Q12."""
    with patch.object(driver.Connection, "add_log_listener", lambda self, heard: None):
        yield


@_break
def _the_mark_is_ignored() -> Iterator[None]:
    """Q13."""
    with patch.object(stage.SimulatedMark, "note", lambda self, sequence: None):
        yield


@_break
def _a_living_store_is_taken_for_silent() -> Iterator[None]:
    """Q14. Nobody looks whether it has moved, and its fence is left as it is."""
    see, take_over = sharing.Watch.see, tables.take_over

    def blind(self: sharing.Watch, rows: Any, asked_ms: int, now_ms: int) -> None:
        see(self, [row for row in rows if row.name not in self._seen], asked_ms, now_ms)

    def gentle(tx: tables.Transaction, *asked: Any) -> int:
        row = tx.get("store", asked[3])
        taken = take_over(tx, *asked[:4], row.fence, row.groups)
        tx.put("store", asked[3], row)
        return taken

    with patch.object(sharing.Watch, "see", blind), patch.object(tables, "take_over", gentle):
        yield


@_break
def _two_stores_share_a_name() -> Iterator[None]:
    """Q15. A name is taken without a look at whose it was."""

    async def hasty(connection: Any, config: Any, instance: bytes, say: Any) -> tuple[int, int]:
        row = await connection.fetchrow(opening.ROW, config.postgres.name)
        return (0, 0) if row is None else (row[1], row[2])

    with patch.object(opening, "_seen_alone", hasty):
        yield


@_break
def _nobody_waits_for_a_standby() -> Iterator[None]:
    """Q16. The names of the standbys are empty, and that is not looked at."""

    def alone(self: Any) -> None:
        """Go on."""

    commit = database.Server.commit

    def at_once(self: database.Server, tx: tables.Transaction) -> database.Waiting:
        waiting = commit(self, tx)
        if not self.world.is_replicated:
            self._show(waiting)
        return waiting

    with patch.object(tables.Transaction, "need_replication", alone), patch.object(database.Server, "commit", at_once):
        yield


@_break
def _the_old_primary_is_gone_on_with() -> Iterator[None]:
    """Q17. The one that answers first counts, whatever its timeline."""
    with patch.object(nodes, "max", lambda found, **_: next((node for node in found if node.timeline), None), create=True):
        yield


@_break
def _what_another_store_wrote_is_not_read_again() -> Iterator[None]:
    """Q18."""

    def remembering(self: Sequencer, epochs: Mapping[int, int]) -> None:
        for lease, epoch in epochs.items():
            self._epochs[lease] = epoch

    with patch.object(Sequencer, "hold", remembering):
        yield


@_break
def _nobody_hears_that_a_store_has_found_less() -> Iterator[None]:
    """Q19."""
    begin_store = tables.begin_store

    def silent(tx: tables.Transaction, *asked: Any) -> tuple[int, int, int]:
        return begin_store(tx, *asked[:6], 0)

    with patch.object(tables, "begin_store", silent):
        yield
