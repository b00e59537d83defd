"""Aim: what an x402 middleware is told is of its protocol, or 503. Method: the problem documents that the channel server has."""

import pytest

from paychan.core.errors import BY_CODE, PaychanError, Rejection, Unavailable
from paychan.server.doors.x402 import _problem


def told(code):
    """Return what becomes of a refusal."""
    content = {"status": BY_CODE[code].status, "code": code, "detail": BY_CODE[code].title}
    try:
        return _problem(content)
    except PaychanError as error:
        return error


@pytest.mark.parametrize("code", ["bad_signature", "insufficient_credit", "channel_closing"])
def test_a_refusal_of_the_payment_is_told_as_it_is(code):
    found = told(code)
    assert isinstance(found, Rejection) and found.code == code


@pytest.mark.parametrize(("code", "as_code"), [("store_unavailable",) * 2, ("too_many_reservations", "overloaded")])
def test_what_passes_is_no_refusal_of_the_payment(code, as_code):
    """Reservations are the seller's affair: a payer that is told of a code of its own could only give up."""
    found = told(code)
    assert isinstance(found, Unavailable) and found.code == as_code
