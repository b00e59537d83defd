"""Aim: the documents stay true. Method: what they list is compared with the tables in the code that they describe."""

import re
from pathlib import Path

from paychan.core.channel import TRANSITIONS, Event, Phase
from paychan.core.errors import BY_CODE
from paychan.mpp import problems

DOCS = Path(__file__).parent.parent.parent / "docs"


def test_protocol_lists_every_code_with_its_status_and_no_other():
    rows = re.findall(r"(?m)^\| (\d{3}) \| `(\w+)` \| (.+) \|$", (DOCS / "PROTOCOL.md").read_text())
    assert {code: (int(status), title) for status, code, title in rows} == {
        row.code: (row.status, row.title) for row in BY_CODE.values()
    }


def test_architecture_lists_every_transition_and_no_other():
    text = (DOCS / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"(?m)^\| (\(absent\)|[a-z]+) \| ([a-z, ]+?)(?::[^|]*)? \| ([a-z]+) \|$", text)
    listed = {
        (0 if before == "(absent)" else Phase[before.upper()], Event(event.strip()), Phase[after.upper()])
        for before, events, after in rows
        for event in events.split(",")
        if before != "phase"
    }
    assert listed == {(before, event, after) for (before, event), after in TRANSITIONS.items()}


def test_the_payment_schemes_text_lists_every_refusal_as_it_is():
    text = (DOCS / "PAYMENT_SCHEME.md").read_text()
    rows = re.findall(r"(?m)^\| ((?:`\w+`(?:, )?)+) \| (P/[\w/-]+|about:blank)(.*) \| (\d{3}) \|$", text)
    listed = {
        code: (kind.replace("P/", problems.TYPES), int(status), "Retry-After" in more)
        for codes, kind, more, status in rows
        for code in re.findall(r"`(\w+)`", codes)
    }
    assert listed == {code: (kind.type, kind.status, kind.is_passing) for code, kind in problems.BY_OUR_CODE.items()}
