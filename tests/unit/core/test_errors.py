"""Aim: the table of public codes holds together and stays as it was published. Method: structure by rule, content by a
frozen copy: a code that clients match on cannot be renamed, renumbered or get another status by accident."""

import pytest

from paychan.core import errors
from paychan.core.errors import BY_CODE, BY_NUMBER, OPERATORS_FROM, PaychanError, Rejection, Unavailable

PUBLISHED = {
    "missing_parameter": (20, 400),
    "repeated_parameter": (21, 400),
    "request_too_large": (22, 400),
    "body_not_allowed": (23, 400),
    "invalid_txid": (24, 400),
    "invalid_vout": (25, 400),
    "invalid_pubkey": (26, 400),
    "pubkey_is_servers": (27, 400),
    "invalid_exp_time": (28, 400),
    "exp_time_too_soon": (29, 400),
    "exp_time_too_far": (30, 400),
    "invalid_change_address": (31, 400),
    "invalid_base64": (32, 400),
    "invalid_payment": (33, 400),
    "invalid_der": (34, 400),
    "high_s": (35, 400),
    "invalid_sighash_type": (36, 400),
    "change_value_not_zero": (37, 400),
    "dust_change": (38, 400),
    "change_value_range": (39, 400),
    "out_of_order": (50, 400),
    "bad_signature": (51, 400),
    "open_price_short": (52, 400),
    "not_newest_payment": (53, 400),
    "funding_not_found": (54, 400),
    "funding_unconfirmed": (55, 400),
    "no_such_channel": (60, 404),
    "no_such_payment": (61, 404),
    "no_such_route": (62, 404),
    "channel_exists": (63, 409),
    "channel_settled": (64, 409),
    "channel_closing": (65, 410),
    "channel_expiring": (66, 410),
    "store_unavailable": (80, 503),
    "signer_unavailable": (81, 503),
    "chain_unavailable": (82, 503),
    "owner_moved": (83, 503),
    "settlement_uneconomic": (84, 503),
    "settlement_refused": (85, 503),
    "overloaded": (86, 503),
    "funding_disappeared": (87, 503),
    "too_many_failures": (88, 503),
    "shard_stopped": (89, 503),
    "clock_doubtful": (90, 503),
    "too_much_unsettled": (91, 503),
    "opens_frozen": (92, 503),
    "machine_drained": (93, 503),
}


@pytest.mark.parametrize("code", PUBLISHED)
def test_published_codes_stay(code):
    row = BY_CODE[code]
    assert (row.number, row.status) == PUBLISHED[code]
    assert BY_NUMBER[row.number] is row


def test_codes_and_numbers_are_unique():
    assert len(BY_CODE) == len(BY_NUMBER) == len(errors._TABLE)
    assert list(BY_NUMBER) == sorted(BY_NUMBER)


@pytest.mark.parametrize("row", BY_CODE.values(), ids=lambda row: row.code)
def test_rows_are_well_formed(row):
    assert row.code == row.code.lower() and row.code.replace("_", "").isalnum()
    of_http = 70 <= row.number < 80
    of_address = 95 <= row.number < 100
    of_sales = row.number >= 100
    ours = (400, 401, 402, 403, 404, 409, 410, 429, 503)
    assert row.status in ((400, 408, 411, 413, 414, 417, 431, 501, 505) if of_http else ours)
    assert (row.status == 429) == of_address
    assert of_sales or row.status not in (401, 402, 403)
    assert row.number >= OPERATORS_FROM or (row.status == 503) == (80 <= row.number < 95)
    assert of_http or of_sales or (row.status == 400) == (row.number < 60)
    assert row.title and not row.title.endswith(".")


def test_an_error_carries_its_row():
    error = Rejection("bad_signature", parameter="payment")
    assert (error.code, error.row.status, error.parameter) == ("bad_signature", 400, "payment")
    assert error.detail == BY_CODE["bad_signature"].title
    assert Unavailable("owner_moved", "why").detail == "why"
    assert isinstance(error, PaychanError) and not isinstance(error, Unavailable)


def test_an_unknown_code_is_a_bug():
    with pytest.raises(KeyError):
        Rejection("no_such_code")
