"""Known ways in which several signers of one key, or a store that is moved, lose money; rows of table.py. Threats Q1 to Q9 of
docs/THREATS.md."""

from .kinds import Break

SHARED, MOVING = "signer/shared.py", "store/moving.py"
SIGNER_SQL, CLUSTER_SQL = (f"store/engines/postgres/{name}.sql" for name in ("signer", "cluster"))
TWO, MOVED = "tests/process/test_signer_postgres.py", "tests/process/test_store_migrate.py"
STORE = "tests/process/test_store_postgres.py"

SIGNERS = (
    Break(
        ("Q1",),
        "a signer goes by its own ledger alone",
        SHARED,
        "return stricter(self._own.get(outpoint, now), self._there)",
        "return self._own.get(outpoint, now)",
        (f"{TWO}::test_what_one_signed_the_other_knows",),
    ),
    Break(
        ("Q1",),
        "a signer goes by the database alone",
        SHARED,
        "return stricter(self._own.get(outpoint, now), self._there)",
        "return self._there",
        (f"{TWO}::test_a_database_that_was_set_back_makes_no_signer_forget_what_it_signed",),
    ),
    Break(
        ("Q1",),
        "a database that was set back is not given what was signed since",
        SHARED,
        "elif writes < self._writes:",
        "elif False:",
        (f"{TWO}::test_a_database_that_was_set_back_makes_no_signer_forget_what_it_signed",),
    ),
    Break(
        ("Q2",),
        "a signature leaves before the database has confirmed it",
        SHARED,
        "number, is_done = self._database.ask(_PUT, self._instance, *row, *seen, _since(now), now)",
        "asking = self._database._fetch(_PUT, self._instance, *row, *seen, _since(now), now)\n"
        "        asyncio.run_coroutine_threadsafe(asking, self._database._loop)\n"
        "        number, is_done = self._writes, True",
        (f"{TWO}::test_no_signature_leaves_before_a_standby_has_it",),
    ),
    Break(
        ("Q3",),
        "two signers that are asked at once both sign",
        SIGNER_SQL,
        "WHERE s.versions = _seen_versions AND excluded.change_value <= s.change_value AND excluded.versions > s.versions;",
        "WHERE true;",
        (f"{TWO}::test_of_two_that_are_asked_at_once_one_signs",),
    ),
    Break(
        ("Q3",),
        "each signer spends the day's fees again",
        SIGNER_SQL,
        "fees := signer_fees(_outpoint, _since, _now);",
        "fees := 0;",
        (f"{TWO}::test_the_fees_of_the_day_are_counted_for_all",),
    ),
    Break(
        ("Q4",),
        "a signer goes on with a database that is not the one its ledger belongs to",
        SHARED,
        "if self._ledger not in (None, ledger) and not adopt:",
        "if False:",
        (f"{TWO}::test_another_database_is_refused_until_its_operator_says_so",),
    ),
    Break(
        ("Q5",),
        "a signer's role may write what it likes",
        SIGNER_SQL,
        "GRANT USAGE ON SCHEMA paychan TO @SIGNER@;",
        "GRANT USAGE ON SCHEMA paychan TO @SIGNER@;\nGRANT ALL ON ALL TABLES IN SCHEMA paychan TO @SIGNER@;",
        (f"{TWO}::test_its_role_calls_functions_and_sees_no_table_and_the_stores_neither",),
    ),
    Break(
        ("Q5",),
        "a thread that was there before the signer's filter goes on without it",
        "signer/seccomp.py",
        'if len(os.listdir("/proc/self/task")) > 1:',
        "if False:",
        ("tests/unit/signer/test_signer_hardening.py::test_beside_another_thread_there_is_no_filter",),
    ),
    Break(
        ("Q6",),
        "a store that was moved can still be started where it was",
        MOVING,
        "    source.set_mark(Moved(TO, target.name))\n",
        "",
        (f"{MOVED}::test_a_store_is_moved_to_postgresql_and_back",),
    ),
    Break(
        ("Q6",),
        "a store on another machine goes on writing to a database that its store was moved away from",
        CLUSTER_SQL,
        "    UPDATE store SET fence = fence + 1;\n",
        "",
        (f"{MOVED}::test_a_store_that_runs_elsewhere_writes_nothing_more_once_the_move_has_begun",),
    ),
    Break(
        ("Q7",),
        "what arrives is not held against what was sent",
        MOVING,
        "if (found := next(theirs, None)) != pair:",
        "if (found := next(theirs, pair)) is None:",
        (f"{MOVED}::test_what_differs_is_found",),
    ),
    Break(
        ("Q8",),
        "a store that was moved on is brought back from where it was first",
        MOVING,
        "if at_target not in (None, Moved(FROM, source.name), Moved(TO, source.name)):",
        "if False:",
        (f"{MOVED}::test_a_store_that_was_moved_on_is_not_brought_back_from_its_first_place",),
    ),
    Break(
        ("Q9",),
        "a machine whose clock is far ahead settles everybody's channels",
        CLUSTER_SQL,
        " AND _seconds <= extract(epoch FROM clock_timestamp()) + 600",
        "",
        (f"{STORE}::test_the_highest_time_of_all_machines_is_told_and_one_from_far_ahead_is_not_believed",),
    ),
)
