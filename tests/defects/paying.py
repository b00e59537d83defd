"""Known ways in which a buyer loses money; rows of table.py. Threats P1 to P8 of docs/THREATS.md."""

from .kinds import Break

PURCHASE = "tests/unit/pay/test_purchase.py"
LEDGER = "tests/unit/pay/test_ledger.py"
WALLETS = "tests/unit/pay/test_wallets.py"
TURN, PAYER, PURSE = (f"paychan/pay/{name}.py" for name in ("turn", "payer", "purse"))

CREDIT = f"{PURCHASE}::test_credit_buys_the_same_again_each_time_and_once_where_the_answer_was_lost"

PAYING = (
    Break(
        ("P9",),
        "a purchase out of credit is not told from the one before it: it is answered with the first answer, and not done",
        TURN,
        'return self._payload() if self.is_pending else {**self._payload(), "purchase": self._purchase}',
        "return self._payload()",
        (CREDIT,),
    ),
    Break(
        ("P9",),
        "whatever is told of a channel gives a purchase whose outcome is unknown another name: it is charged twice",
        TURN,
        "int(is_purchase))",
        "1)",
        (f"{PURCHASE}::test_a_stream_that_ends_makes_no_other_purchase_of_one_whose_answer_was_lost",),
    ),
    Break(
        ("P9",),
        "the seller does not look at what a payer calls a purchase",
        "paychan/sell/rules.py",
        "if credential.purchase:",
        "if False:",
        ("tests/unit/sell/test_till_rules.py::test_what_a_payer_calls_another_purchase_is_one_and_the_same_name_is_the_same",),
    ),
    Break(
        ("P1",),
        "a higher payment is signed while the one before may have been taken",
        TURN,
        "if self.is_pending and not self._is_refused:",
        "if False:",
        (f"{PURCHASE}::test_a_dearer_request_presents_the_pending_payment_too",),
    ),
    Break(
        ("P1",),
        "what is signed is reckoned from what was signed, not from what the server has",
        TURN,
        "return self.acknowledged_value + opening + missing",
        "return self.signed_value + opening + missing",
        (f"{PURCHASE}::test_a_refused_payment_may_be_followed_by_the_price_of_today",),
    ),
    Break(
        ("P1",),
        "a receipt for less than was signed is taken for one",
        TURN,
        "if accepted < self.signed_value or self.record.signed is None:",
        "if self.record.signed is None:",
        (f"{PURCHASE}::test_a_receipt_for_less_than_was_signed_leaves_the_payment_pending",),
    ),
    Break(
        ("P2",),
        "a server that takes a payment and says that it has none is paid again",
        PAYER,
        "        if turn.added and accepted - spent < turn.added:\n            return None\n",
        "",
        (f"{PURCHASE}::test_a_liar_that_takes_and_gives_nothing_gets_one_payment",),
    ),
    Break(
        ("P3",),
        "a payment is sent that is in no record on the disk",
        TURN,
        "self.record.phase = PayerPhase.OPENING if self.is_opening else phase\n            self._save()",
        "self.record.phase = PayerPhase.OPENING if self.is_opening else phase",
        (f"{PURCHASE}::test_whoever_sees_a_payment_finds_it_in_the_payers_record_and_ledger",),
    ),
    Break(
        ("P3",),
        "what was entered and never signed is spent for ever",
        TURN,
        "        ledger.take_back(name, self.signed_value)\n",
        "",
        ("tests/unit/pay/test_cut_short.py::test_a_purchase_that_is_cut_short_at_any_line",),
    ),
    Break(
        ("P4",),
        "a snapshot is believed whoever signed its payment",
        TURN,
        " or not verify_payment(terms, payment):",
        ":",
        (f"{PURCHASE}::test_a_snapshot_that_was_not_signed_here_stops_all_signing",),
    ),
    Break(
        ("P5",),
        "no limit of the budget holds",
        "paychan/pay/budget.py",
        "added > 0 and before + added > most",
        "False",
        (
            f"{LEDGER}::test_each_limit_holds_for_its_window_and_no_longer",
            f"{PURCHASE}::test_nothing_is_signed_above_the_budget_and_nothing_is_written",
        ),
    ),
    Break(
        ("P5",),
        "an open price above the budget is told after the money was locked up",
        PURSE,
        '"opening", 0, spent), budget.opening)',
        '"opening", 0, spent), None)',
        (f"{PURCHASE}::test_an_open_price_above_the_budget_locks_up_no_money",),
    ),
    Break(
        ("P6",),
        "whoever answers at an address may ask to pay another key",
        PURSE,
        '            raise TermsRefused(detail, f"other_{what}")\n',
        "            pass\n",
        (f"{PURCHASE}::test_another_key_or_network_than_was_agreed_is_refused_until_the_payer_says_so",),
    ),
    Break(
        ("P6",),
        "real bitcoins are paid over plain http",
        "paychan/pay/terms.py",
        "not server.is_tls and not server.is_loopback:",
        "False:",
        (f"{PURCHASE}::test_real_bitcoins_over_plain_http_are_refused",),
        fails_by="FundingNeeded",
    ),
    Break(
        ("P7",),
        "a rest below the dust limit is given away with a payment",
        TURN,
        "        if left < DUST_LIMIT:",
        "        if left < 0:",
        (f"{PURCHASE}::test_what_is_left_below_the_dust_limit_is_not_given_away",),
    ),
    Break(
        ("P8",),
        "a node's wallet pays a channel's output again when its answer was lost",
        "paychan/pay/node.py",
        "txid = self._ask(lambda rpc: self._paid_before(rpc, agreed))",
        'txid = ""',
        (f"{WALLETS}::test_a_wallet_whose_answer_was_lost_is_not_asked_to_pay_again",),
    ),
)
