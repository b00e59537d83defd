"""Known ways in which the operator's page would lie or be taken over; rows of table.py. Threats U1 to U5 of docs/THREATS.md."""

from .kinds import Break

BOOKS, FILES = "tests/unit/operator/test_books.py", "tests/unit/operator/test_page_files.py"
ENGINE, SETTLING = "tests/unit/store/test_store_engine.py", "tests/unit/server/settlement/test_settling.py"
ROWS = "paychan/operator/books.py"

OPERATOR_PAGE = (
    Break(
        ("U1",),
        "the page is served without a policy: what gets into it may load and run anything",
        "paychan/operator/views/page.py",
        '    ("content-security-policy", POLICY),\n',
        "",
        (f"{FILES}::test_every_file_comes_with_a_policy_that_allows_nothing_but_our_own_files",),
        fails_by="KeyError",
    ),
    Break(
        ("U2",),
        "texts become markup",
        "paychan/operator/page/dom.js",
        "  element.append(...children.flat(Infinity).filter(",
        '  element.innerHTML += children.flat(Infinity).join("");\n  element.append(...[].filter(',
        (f"{FILES}::test_no_script_makes_text_into_markup",),
    ),
    Break(
        ("U3",),
        "settled channels count as unsettled",
        ROWS,
        "UNSETTLED = (Phase.OPEN, Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST)",
        "UNSETTLED = (Phase.OPEN, Phase.CLOSING, Phase.SIGNED, Phase.BROADCAST, Phase.SETTLED)",
        (f"{BOOKS}::test_what_is_at_risk_is_every_unsettled_satoshi_once",),
    ),
    Break(
        ("U4",),
        "a settlement that is told twice is revenue twice",
        ROWS,
        "        if outpoint in self._is_counted:\n",
        "        if False:\n",
        (f"{BOOKS}::test_days_count_a_channel_once_before_and_after_it_is_settled",),
    ),
    Break(
        ("U5",),
        "a lost channel is written down as revenue",
        "paychan/server/settlement/settling.py",
        "self._outcome(case, is_lost=True)",
        "self._outcome(case)",
        (f"{SETTLING}::test_a_refund_that_won_is_told_as_a_loss",),
    ),
    Break(
        ("U5",),
        "the store takes anything for an outcome",
        "store/table.py",
        "            Outcome.parse(entry.extra)\n",
        "",
        (f"{ENGINE}::test_what_is_no_outcome_settles_nothing",),
        fails_by="ValueError",
    ),
)
