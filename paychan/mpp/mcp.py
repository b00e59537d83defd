"""The scheme in JSON-RPC of the Model Context Protocol: where challenge, credential and receipt stand (section 2.11)."""

from typing import Any

from ..core.errors import Rejection
from .challenge import Challenge, read_challenge
from .credential import Credential, read_payload
from .receipt import Receipt
from .request import read_request
from .text import decode_json

PAYMENT_REQUIRED = -32042
VERIFICATION_FAILED = -32043
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
"""Codes: no credential; one that is refused, which another may mend; one that is none; and where no credential helps."""

CREDENTIAL = "org.paymentauth/credential"
RECEIPT = "org.paymentauth/receipt"
"""Names in `_meta`: of the request's params, and of the result."""


def error(challenges: list[Challenge], problem: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON-RPC error object of a refusal. problem: the document of what was wrong. Without challenges it is no matter
    of payment: the outcome is unknown, or the purchase was served before."""
    refused = problem.get("code") != "payment_required"
    data = {"httpStatus": problem["status"], "challenges": [_challenge_object(row) for row in challenges], "problem": problem}
    code = INTERNAL_ERROR if not challenges else VERIFICATION_FAILED if refused else PAYMENT_REQUIRED
    return {"code": code, "message": str(problem.get("title", "Payment required")), "data": data}


def _challenge_object(challenge: Challenge) -> dict[str, Any]:
    """A challenge as an object has `request` as an object too."""
    return {**challenge.params(), "request": challenge.session().as_object()}


def read_challenges(error_object: dict[str, Any]) -> list[Challenge]:
    """Return the challenges in a JSON-RPC error; those that make no sense are left out."""
    data = error_object.get("data")
    rows = data.get("challenges") if isinstance(data, dict) else None
    found = []
    for row in rows if isinstance(rows, list) else []:
        try:
            request = row["request"]
            text = request if isinstance(request, str) else read_request(request).encode()
            found.append(read_challenge({**row, "request": text}))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def credential_meta(credential: Credential) -> dict[str, Any]:
    """Return what goes into the `_meta` of a request's params."""
    content = decode_json(credential.encode())
    content["challenge"]["request"] = credential.challenge.session().as_object()
    return {CREDENTIAL: content}


def read_credential(meta: dict[str, Any]) -> Credential | None:
    """Return the credential in a `_meta`, None if there is none. Raises Rejection as `parse_credential` does."""
    content = meta.get(CREDENTIAL)
    if content is None:
        return None
    try:
        params, payload = content["challenge"], content["payload"]
        request = params["request"]
        text = request if isinstance(request, str) else read_request(request).encode()
        challenge = read_challenge({**params, "request": text})
        if not isinstance(payload, dict):
            raise ValueError("no payload")
    except (ValueError, KeyError, TypeError):
        raise Rejection("malformed_credential") from None
    if not challenge.is_ours:
        raise Rejection("method_unsupported")
    return read_payload(challenge, payload)


def receipt_meta(receipt: Receipt) -> dict[str, Any]:
    """Return what goes into the `_meta` of a result."""
    return {RECEIPT: receipt.as_object()}
