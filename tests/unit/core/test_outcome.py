"""Aim: the record of what became of a channel never changes, and holds only sums that come out. Method: its bytes, written out."""

import pytest

from paychan.core.outcome import Outcome
from paychan.core.units import MAX_MONEY


def test_the_record_of_a_settled_channel():
    outcome = Outcome(settled_at=0x01020304, opened_at=5, received=0x1000, fee=0x10, missing=1)
    record = outcome.serialize()
    assert record.hex() == "01000403020105000000" + "0010000000000000" + "1000000000000000" + "0100000000000000"
    assert Outcome.parse(record) == outcome
    assert outcome.paid_out == 0x1000 - 0x10 - 1


def test_a_lost_channel_paid_nothing():
    lost = Outcome(9, 5, 1000, missing=1000, is_lost=True)
    assert Outcome.parse(lost.serialize()) == lost
    assert lost.paid_out == 0


@pytest.mark.parametrize(
    "amounts", [(MAX_MONEY + 1, 0, 0), (10, 11, 0), (10, 0, 11), (10, 6, 5), (10, -1, 0), (10, 0, -1)], ids=str
)
def test_amounts_that_do_not_add_up_are_refused(amounts):
    with pytest.raises(ValueError, match="amounts"):
        Outcome(9, 5, *amounts)


@pytest.mark.parametrize("times", [(2**32, 5), (-1, 5), (9, 2**32), (9, -1)], ids=str)
def test_times_beyond_32_bits_are_refused(times):
    with pytest.raises(ValueError, match="time"):
        Outcome(*times, 10)


def test_other_bytes_are_refused():
    record = Outcome(9, 5, 10).serialize()
    for wrong in (b"", record[:-1], record + b"x", b"\2" + record[1:], record[:1] + b"\2" + record[2:]):
        with pytest.raises(ValueError, match="outcome"):
            Outcome.parse(wrong)
