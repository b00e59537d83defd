"""Known ways in which the operator's API would do harm; rows of table.py. Threats H1 to H6 of docs/THREATS.md."""

from .kinds import Break

SERVING, ROUTES, STEERING = "paychan/operator/serving.py", "paychan/operator/routes.py", "paychan/settings/steering.py"
STEERED, PROCESS = "paychan/server/steered.py", "tests/process/test_operator_api.py"
SCOPES, UNIT = "tests/unit/operator/test_operator_scopes.py", "tests/unit"

OPERATING = (
    Break(
        ("H1",),
        "any operator's token may do everything",
        SERVING,
        "SCOPES.get(found.scope, Scope.NONE) < least",
        "found.scope not in SCOPES",
        (f"{SCOPES}::test_a_token_of_each_scope_reaches_what_it_may_and_nothing_else",),
    ),
    Break(
        ("H1",),
        "a token that only watches settles channels",
        ROUTES,
        "Scope.SETTLE, commands.settle",
        "Scope.WATCH, commands.settle",
        (
            f"{SCOPES}::test_what_changes_something_takes_more_than_a_watching_token",
            f"{UNIT}/operator/test_operator_description.py::test_every_route_is_described_with_its_scope_and_no_other",
        ),
    ),
    Break(
        ("H2",),
        "a limit at run time loosens what server.toml has",
        STEERING,
        "if not limit.is_looser(value, limit.of(config)):",
        "if True:",
        (f"{UNIT}/settings/test_steering.py::test_the_stricter_of_file_and_configuration_holds",),
    ),
    Break(
        ("H3",),
        "a freeze is forgotten with the power",
        "paychan/durable.py",
        "            os.fsync(file.fileno())\n",
        "",
        (f"{UNIT}/settings/test_steering.py::test_a_change_is_whole_synced_and_has_a_higher_revision",),
    ),
    Break(
        ("H4",),
        "a worker says that it obeys before it does",
        STEERED,
        "        self.look()\n        if payload",
        "        self._file.look()\n        if payload",
        (f"{UNIT}/server/test_steered.py::test_it_obeys_before_it_says_so",),
    ),
    Break(
        ("H4",),
        "a worker that was not told goes on opening channels",
        STEERED,
        "        self.look()\n        if self.is_frozen:",
        "        if self.is_frozen:",
        (f"{UNIT}/server/test_steered.py::test_no_channel_opens_from_the_change_on_though_nobody_was_told",),
    ),
    Break(
        ("H4",),
        "an opening on another machine goes by what the store told last",
        STEERED,
        "        await self._ask()\n        self.check_opens()",
        "        self.check_opens()",
        (
            f"{UNIT}/server/test_steered.py::test_the_store_is_asked_before_each_opening_though_it_has_told_nothing",
            f"{UNIT}/server/test_steered.py::test_no_channel_opens_while_the_store_does_not_say_whether_one_may",
        ),
    ),
    Break(
        ("H4",),
        "a freeze that comes while an opening is under way is not seen by it",
        "paychan/server/channels/life.py",
        "        await self._ask_opens()",
        "        await _nobody_asks()",
        (f"{UNIT}/server/channels/test_life.py::test_a_freeze_that_comes_while_an_opening_is_under_way_holds_for_it",),
    ),
    Break(
        ("H5",),
        "a worker that was started a moment ago leaves, and granian ends the server",
        STEERED,
        "time.monotonic() - self._began < YOUNG_SECONDS",
        "False",
        (f"{UNIT}/server/test_steered.py::test_a_young_worker_does_not_leave_and_an_old_one_does_once",),
    ),
    Break(
        ("H6",),
        "an operator's token opens the sellers' door",
        "paychan/server/doors/sell.py",
        "if found.scope not in SELLERS_SCOPES:",
        "if False:",
        (f"{PROCESS}::test_operators_tokens_are_worth_nothing_at_the_sellers_door",),
    ),
    Break(
        ("H6",),
        "the operator's API is served to a network in plain text",
        "paychan/settings/operator.py",
        "if address.port and not hosts.is_loopback(address.host) and key is None:",
        "if False:",
        (f"{UNIT}/settings/test_operator_section.py::test_what_is_not_this_machine_alone_takes_tls",),
    ),
)
