"""Known ways in which a store on PostgreSQL loses money; rows of table.py. Threats K1 to K10 of docs/THREATS.md."""

from .kinds import Break

ENGINE, OPENING = (f"store/engines/postgres/{name}.py" for name in ("engine", "opening"))
HOSTS = "paychan/database.py"
SCHEMA = "store/engines/postgres/schema.sql"
TESTS = "tests/process/test_store_postgres.py"

CLUSTER = (
    Break(
        ("K1",),
        "a group is answered before a standby has it",
        "store/sequencer.py",
        "                await self._engine.put(writes)\n",
        "                self._engine.run(self._engine.put(writes))\n",
        (f"{TESTS}::test_a_group_is_answered_when_a_standby_has_it_and_not_before",),
    ),
    Break(
        ("K2",),
        "a store that was fenced off goes on writing",
        SCHEMA,
        "WHERE name = _store AND fence = _fence AND groups = _groups - 1;",
        "WHERE name = _store;",
        (f"{TESTS}::test_a_store_whose_fence_was_raised_writes_nothing_more_and_ends",),
    ),
    Break(
        ("K2",),
        "what is stored is written over, whatever it is by now",
        SCHEMA,
        " AND c.phase = v.phase_before AND c.value = v.value_before AND c.revision = v.revision_before\n",
        "\n",
        (f"{TESTS}::test_what_is_stored_must_be_what_was_judged",),
    ),
    Break(
        ("K3",),
        "a cancelled wait for the standby is taken for a success",
        HOSTS,
        "    connection.add_log_listener(warned)\n",
        "",
        (f"{TESTS}::test_a_cancelled_wait_for_the_standby_is_no_success",),
    ),
    Break(
        ("K4",),
        "a database that has lost what was answered is served from",
        OPENING,
        "if place.groups < mark.sequence:",
        "if False:",
        (f"{TESTS}::test_a_database_that_has_lost_what_was_answered_is_refused",),
    ),
    Break(
        ("K4",),
        "who takes over asks nobody whether the other's groups are all there",
        OPENING,
        "if groups < marks.of(name).sequence:",
        "if False:",
        (f"{TESTS}::test_who_takes_over_refuses_a_database_that_has_lost_what_it_has_seen_of_the_other",),
    ),
    Break(
        ("K4",),
        "a store starts on another database than its own",
        OPENING,
        "if pinned.system is not None and (",
        "if False and (",
        (f"{TESTS}::test_another_database_is_refused",),
    ),
    Break(
        ("K5",),
        "a second store of the same name starts beside the first",
        OPENING,
        "if tuple(again) != tuple(row):",
        "if False:",
        (f"{TESTS}::test_two_stores_of_one_name_do_not_both_run",),
    ),
    Break(
        ("K5",),
        "a name is taken from a store that has moved since it was looked at",
        SCHEMA,
        "WHERE store.instance = _instance OR (store.fence = _seen_fence AND store.groups = _seen_groups)",
        "",
        (f"{TESTS}::test_a_name_is_not_taken_from_a_store_that_has_moved",),
    ),
    Break(
        ("K6",),
        "a living store's shards are taken over",
        SCHEMA,
        "WHERE name = _from AND fence = _from_fence AND groups = _from_groups INTO moved;",
        "WHERE name = _from INTO moved;",
        (f"{TESTS}::test_shards_are_not_taken_from_a_store_that_has_moved",),
    ),
    Break(
        ("K7",),
        "a database without a synchronous standby is written to",
        SCHEMA,
        "current_setting('synchronous_standby_names') = '' OR current_setting('fsync')",
        "current_setting('fsync')",
        (f"{TESTS}::test_without_names_of_standbys_nothing_is_written",),
    ),
    Break(
        ("K8",),
        "the primary that was cut off is gone on with",
        HOSTS,
        "best = max(nodes, key=lambda node: node.timeline, default=None)",
        "best = next((node for node in nodes if node.timeline), None)",
        (f"{TESTS}::test_of_two_primaries_the_one_that_was_promoted_last_is_taken",),
    ),
    Break(
        ("K9",),
        "a store that hears nothing from its database goes on for ever",
        ENGINE,
        "if silent_ms > self._lease_ms:",
        "if False:",
        (f"{TESTS}::test_a_database_that_confirms_nothing_ends_the_store_within_a_lease",),
    ),
    Break(
        ("K10",),
        "a store's role may write what it likes",
        SCHEMA,
        "GRANT SELECT ON ALL TABLES IN SCHEMA paychan TO @ROLE@;",
        "GRANT ALL ON ALL TABLES IN SCHEMA paychan TO @ROLE@;",
        (f"{TESTS}::test_a_stores_role_may_call_the_functions_and_write_nothing_by_itself",),
    ),
)
