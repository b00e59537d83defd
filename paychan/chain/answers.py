"""Reading a Bitcoin node's answers: nothing of another type than Bitcoin Core documents gets past these functions."""

import re
from typing import TypeVar

from .jsonrpc import RpcError, parse_amount, unavailable

REASON_SIZE_MAX = 200
NOT_FOUND = -5

Kind = TypeVar("Kind")


def need(answer: object) -> object:
    """Return a call's result. An RpcError becomes Unavailable, with the node's own words."""
    if isinstance(answer, RpcError):
        raise unavailable(f"The Bitcoin node answers: {clean(answer.message)} ({answer.code})")
    return answer


def need_object(answer: object) -> dict[str, object]:
    found = need(answer)
    if not isinstance(found, dict):
        raise unavailable("The Bitcoin node's answer is not understood: it is no object")
    return found


def need_list(answer: object, name: str) -> list[object]:
    found = need(answer)
    if not isinstance(found, list):
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} gives no list")
    return found


def need_rows(answer: object, count: int) -> list[dict[str, object]]:
    """Return a result that is a list of so many objects."""
    found = need(answer)
    if not isinstance(found, list) or len(found) != count:
        raise unavailable("The Bitcoin node's answer is not understood: it is no list, or of another length than asked")
    return [need_object(row) for row in found]


def need_field(answer: object, name: str, kind: type[Kind]) -> Kind:
    value = need_object(answer).get(name)
    if type(value) is not kind:
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} is missing or malformed")
    return value


def need_amount(answer: object, name: str) -> int:
    try:
        return parse_amount(need_object(answer).get(name))
    except ValueError:
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} is no amount") from None


def need_hash(answer: object, name: str) -> bytes:
    """Return a txid or block hash in internal order."""
    return need_bytes(need_field(answer, name, str), name, 32)[::-1]


def need_bytes(text: object, name: str, size: int = 0) -> bytes:
    try:
        value = bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        value = b""
    if not value or (size and len(value) != size):
        raise unavailable(f"The Bitcoin node's answer is not understood: {name} is not in hexadecimal")
    return value


def clean(message: str) -> str:
    return re.sub(r"[^ -~]", "?", message)[:REASON_SIZE_MAX]


def is_absent(answer: object) -> bool:
    """Return whether the node says that it does not know a transaction. Other errors are raised as Unavailable."""
    if isinstance(answer, RpcError) and answer.code == NOT_FOUND:
        return True
    need(answer)
    return False
