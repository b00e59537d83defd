"""Known ways in which the metrics would be wrong, or do harm; rows of table.py. Threats Y1 to Y7 and W5 of docs/THREATS.md."""

from .kinds import Break

FILE, PROCESS, COUNTS = "paychan/metrics/file.py", "tests/process/test_metrics.py", "tests/unit/metrics/test_counts_file.py"

METRICS = (
    Break(
        ("Y1",),
        "refusals are not counted",
        "paychan/_fast/intake.pyx",
        "        self._intake._tally.count(self.door(), reply.outcome)\n",
        "",
        (f"{PROCESS}::test_each_door_and_outcome_is_counted_as_the_client_counts_it",),
    ),
    Break(
        ("Y1",),
        "what is sold is not counted",
        "paychan/_fast/sale.pyx",
        "        self._intake._tally.count(self.door(), AGAIN if self._is_repeated else self._status)\n",
        "",
        (f"{PROCESS}::test_what_is_sold_is_counted_as_the_seller_is_told",),
    ),
    Break(
        ("Y2",),
        "what a worker has counted is lost when it ends",
        FILE,
        "    counts = Tally(cells)\n",
        "    cells[:] = bytes(SLOT_SIZE)\n    counts = Tally(cells)\n",
        (
            f"{COUNTS}::test_the_next_process_goes_on_where_a_killed_one_stopped",
            f"{PROCESS}::test_totals_never_fall_while_workers_are_killed_and_replaced",
        ),
    ),
    Break(
        ("Y3",),
        "two processes write one slot, and lose each other's counts",
        FILE,
        "fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_WRLCK",
        "fcntl.F_OFD_SETLK, _LOCK.pack(fcntl.F_UNLCK",
        (f"{COUNTS}::test_processes_at_once_have_a_slot_each_and_none_loses_a_count",),
    ),
    Break(
        ("Y4",),
        "a label's value depends on what a stranger asks for",
        "paychan/server/app.py",
        "            self._tally.answered(REQUESTS, reply.outcome)\n        if method",
        "            self._tally.answered(REQUESTS, sum(path.encode()) % 160)\n        if method",
        (f"{PROCESS}::test_nothing_that_a_stranger_sends_makes_a_series",),
    ),
    Break(
        ("Y5",),
        "a file of counts is trusted whatever layout it has",
        FILE,
        "os.pread(handle, _HEAD.size, 0) == _head()",
        "os.pread(handle, _HEAD.size, 0)",
        (f"{COUNTS}::test_a_file_that_is_not_such_a_file_is_replaced_and_not_trusted",),
    ),
    Break(
        ("W5",),
        "everybody on the machine reads what a store with a user of its own counts",
        FILE,
        "return 0o640 if self.is_shared",
        "return 0o644 if self.is_shared",
        (f"{COUNTS}::test_a_store_with_a_user_of_its_own_lets_its_group_read_and_nobody_else",),
    ),
    Break(
        ("W5",),
        "a file that somebody else put beside the store's socket is shown as the store's counts",
        FILE,
        "(os.geteuid() if self.owner is None else self.owner)",
        "(os.geteuid() if self.owner is None else state.st_uid)",
        (f"{COUNTS}::test_the_stores_counts_are_believed_of_the_stores_user_alone",),
    ),
    Break(
        ("E9", "Y6"),
        "whoever reaches this machine reads how much is unsettled",
        "paychan/settings/metrics.py",
        "if not hosts.is_near(address.host) and not is_public:",
        "if False:",
        ("tests/unit/settings/test_metrics_section.py::test_an_address_of_the_open_network_takes_a_word_of_consent",),
    ),
    Break(
        ("Y7",),
        "an alert never fires",
        "deploy/prometheus/alerts.yml",
        "paychan_store_up == 0",
        "paychan_store_up > 1",
        (
            "tests/process/test_prometheus.py::test_no_alert_fires_while_nothing_is_wrong_and_real_faults_are_told",
            "tests/unit/metrics/test_alerts.py::test_each_alert_fires_on_what_it_is_for_and_not_on_what_is_well",
        ),
    ),
)
