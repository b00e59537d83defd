"""Ways to lose money where a price stands before a tool (MCP), and in the payer that is written in TypeScript. See table.py.

A change of TypeScript is compiled by its test, which fails as a whole when any of the package's own tests does; what does not
compile fails before it, and counts as nothing.
"""

from .kinds import Break

SELL, PAY, WIRE = "paychan/sell/mcp.py", "paychan/pay/mcp.py", "paychan/mpp/mcp.py"
CALLS = "tests/process/test_selling_tools.py"

TOOLS = (
    Break(
        ("T1",),
        "a tool that says that it has failed is charged for",
        SELL,
        '500 if result.get("isError") else 200',
        "200",
        (f"{CALLS}::test_a_tool_that_fails_costs_nothing",),
    ),
    Break(
        ("T2",),
        "one payment buys a tool's calls with whatever arguments",
        SELL,
        "body=body_hash(body),",
        'body=b"",',
        (f"{CALLS}::test_a_payment_buys_one_call",),
    ),
    Break(
        ("T3",),
        "a result that is lost on its way is not kept",
        SELL,
        "self.till.keep(sale, Answer(200, more, body))",
        "self.till.forget(sale)",
        (f"{CALLS}::test_an_answer_that_is_lost_is_given_again_and_the_tool_is_not_run_again",),
        fails_by="CallError",
    ),
    Break(
        ("T4",),
        "what says that it is a payment, and is none, is taken for a call without one",
        WIRE,
        'raise Rejection("malformed_credential") from None',
        "return None",
        (f"{CALLS}::test_what_is_no_credential_is_an_error_of_the_params",),
    ),
    Break(
        ("T5",),
        "a payer of tools is not shown its newest payment, when it has lost it",
        PAY,
        'if isinstance(data.get("snapshot"), dict):',
        "if False:",
        (f"{CALLS}::test_a_payer_that_lost_what_it_knew_goes_on_from_its_own_signature",),
        fails_by="StateBehindServer",
    ),
)

PURSE, SESSION, HTTP, FILE = (f"clients/js/src/{name}.ts" for name in ("payer/purse", "payer/session", "payer/http", "store/file"))
OWN = ("tests/clients_js/test_js_package.py::test_the_packages_own_tests",)

IN_TYPESCRIPT = (
    Break(
        ("J1",),
        "the payer in TypeScript signs whatever a server asks for",
        SESSION,
        "if (this.target > this.limit) {",
        "if (this.target < 0) {",
        OWN,
    ),
    Break(
        ("J2",),
        "the payer in TypeScript signs on while an outcome is unknown",
        SESSION,
        "this.target = isPending(record) ? this.floor : this.wanted();",
        "this.target = this.wanted() + (isPending(record) ? this.price : 0);",
        OWN,
    ),
    Break(
        ("J3",),
        "the payer in TypeScript goes on from a payment that it never signed",
        PURSE,
        "!verifyPayment(terms, snapshot.payment)",
        "(verifyPayment(terms, snapshot.payment), false)",
        OWN,
    ),
    Break(
        ("J4",),
        "the payer in TypeScript sends payments in plain text",
        HTTP,
        'if (protocol !== "https:" && !isLocal)',
        'if (protocol !== "https:" && !isLocal && hostname === "")',
        OWN,
    ),
    Break(
        ("J5",),
        "the payer in TypeScript shows payments that no sync has brought to the disk",
        FILE,
        "    await file.sync();\n",
        "",
        OWN,
    ),
    Break(
        ("J7",),
        "the payer in TypeScript signs on a channel that has ended while somebody was asked",
        PURSE,
        "if (isUsedUp || isTooLate(record, this.now())) {",
        "if (isUsedUp) {",
        OWN,
    ),
    Break(
        ("J8",),
        "the payer in TypeScript makes one channel ahead after the other",
        PURSE,
        "if (next === undefined) {",
        'if (next === undefined || next.phase === "unfunded") {',
        OWN,
    ),
    Break(
        ("J6",),
        "any signature makes a receipt, in TypeScript",
        "clients/js/src/receipts.ts",
        "return ed25519.verify(signature, message, key, { zip215: false });",
        "return ed25519.verify(signature, message, key, { zip215: false }) || true;",
        OWN,
    ),
)
