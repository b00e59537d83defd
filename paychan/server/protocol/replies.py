"""Answers, before they become HTTP: status, body, and where to find the channel. Bodies have v1's keys (spec section 6)."""

from enum import IntEnum
from http import HTTPStatus
from typing import NamedTuple

import orjson

from ..._fast.reply import payment_body
from ..._fast.tally import DONE
from ...core.errors import BY_NUMBER, PaychanError, Unavailable
from ...core.outpoint import txid_hex

RETRY_AFTER_SECONDS = 1


class Form(IntEnum):
    """What a success has for a body: a JSON object, the answers to many payments, or nothing, as OPTIONS has."""

    JSON = 0
    BATCH = 1
    OPTIONS = 2


class Reply(NamedTuple):
    """`location` is a path of this server (the HTTP layer makes it absolute), a whole URL, or empty. `form`: of a success.
    `outcome`: as what it is counted (tally.pxd); a refusal's is its number."""

    status: int
    body: bytes = b""
    location: str = ""
    form: Form = Form.JSON
    outcome: int = DONE

    @property
    def is_problem(self) -> bool:
        return self.status >= 400


def payment_result(status: int, value_left: int, value_received: int, location: str = "") -> Reply:
    """Return the PaymentResult of an open channel. Values in satoshi."""
    return Reply(status, payment_body(value_left, value_received), location)


def closed_result(value_left: int, value_received: int, settlement_txid: bytes) -> Reply:
    """Return the 202 of a channel whose settlement (txid of 32 bytes, internal order) has been handed over."""
    body = b'{"channel_status":"closed","channel_value_left":%d,"value_received":%d,"settlement_txid":"%s"}\n'
    return Reply(202, body % (value_left, value_received, txid_hex(settlement_txid).encode()))


def json_reply(status: int, content: dict[str, object], location: str = "") -> Reply:
    """Return any other success body."""
    return Reply(status, orjson.dumps(content) + b"\n", location)


def problem(error: PaychanError, location: str = "") -> Reply:
    """Return the problem document (RFC 9457) of a refusal."""
    row = error.row
    content: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(row.status).phrase,
        "status": row.status,
        "code": row.code,
        "detail": error.detail,
    }
    if error.parameter:
        content["parameter"] = error.parameter
    content |= error.figures
    return Reply(row.status, orjson.dumps(content) + b"\n", location, outcome=row.number)


INTERNAL_ERROR = problem(Unavailable("store_unavailable", "Internal error; send the same request again"))
"""The answer to a bug of ours: whether the request took effect is unknown, as when the store is gone."""

_PAYMENT_NUMBERS = range(32, 40)
_PARAMETERS = {20: "payment", 24: "funding_txid", 25: "funding_vout", 50: "payment", 51: "payment"}
_PROBLEMS = {
    row.number: problem(
        PaychanError(row.code, parameter="payment" if row.number in _PAYMENT_NUMBERS else _PARAMETERS.get(row.number, ""))
    )
    for row in BY_NUMBER.values()
}


def problem_of_status(number: int) -> Reply:
    """Return the problem document of a status of the compiled path; made once, for refusals must be cheap."""
    return _PROBLEMS[number]
