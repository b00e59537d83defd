"""Aim: the compiled statuses, the table of codes and the stub name the same things. Method: the three are read and compared."""

import ast
import re
from pathlib import Path

import paychan
from paychan._fast.status import Status
from paychan.core.errors import BY_CODE, BY_NUMBER

FAST = Path(paychan.__file__).parent / "_fast"
FIRST_REFUSAL = 20


def declared():
    """The names and numbers in status.pxd."""
    return {name: int(number) for name, number in re.findall(r"^    ([A-Z0-9_]+) = (\d+)", (FAST / "status.pxd").read_text(), re.M)}


def test_enum_is_what_the_pxd_declares():
    assert {status.name: status.value for status in Status} == declared()


def test_stub_lists_the_enum():
    (stub,) = ast.parse((FAST / "status.pyi").read_text()).body[1:]
    members = {node.targets[0].id: node.value.value for node in stub.body}
    assert members == declared()


def test_every_refusal_is_a_row_of_the_table():
    for name, number in declared().items():
        if number >= FIRST_REFUSAL:
            assert BY_NUMBER[number].code == name.lower()
        else:
            assert name.lower() not in BY_CODE


def test_outcomes_are_numbered_below_every_code():
    assert min(BY_NUMBER) == FIRST_REFUSAL
    assert sorted(number for number in declared().values() if number < FIRST_REFUSAL) == list(range(8))
