"""The slow judge of request heads: the same rules as paychan/_fast/http.pyx, written again as regular expressions."""

import re

from paychan._fast.http import HttpStatus as S
from paychan._fast.http import Method

REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([^\n]+) ([^\n]{8})\r\Z")
HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t -~\x80-\xff]*)\r\Z")
HOST = re.compile(rb"([0-9A-Za-z._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?\Z")
PLAIN = re.compile(rb"[!-\"$-~]+\Z")
ABSOLUTE = re.compile(rb"(?i:https?)://([^/?]*)(.*)\Z")
LENGTH = re.compile(rb"(0|[1-9][0-9]*)\Z")
OPTION = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]*\Z")
METHODS = {method.name.encode(): int(method) for method in Method if method is not Method.OTHER}


class Verdict(Exception):  # noqa: N818
    """What ends the reading early."""


def first_line(data: bytes, size_max: int, unended: S) -> bytes:
    """Return the bytes before the first LF, which must be among the first `size_max`."""
    text, end, _ = data[:size_max].partition(b"\n")
    if not end:
        raise Verdict(S.INCOMPLETE if len(data) < size_max else unended)
    return text


def read_request_line(text: bytes) -> tuple[bytes, bytes, bytes]:
    parts = REQUEST_LINE.match(text)
    if not parts:
        raise Verdict(S.MALFORMED_REQUEST_LINE)
    method, target, version = parts.groups()
    if len(target) > 4096:
        raise Verdict(S.TARGET_TOO_LONG)
    read_target(target)
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise Verdict(S.UNSUPPORTED_VERSION if re.match(rb"HTTP/[0-9]\.[0-9]\Z", version) else S.MALFORMED_REQUEST_LINE)
    return method, target, version


def read_target(target: bytes) -> tuple[bytes | None, bytes, bytes]:
    """Return authority, if there is one, path and query."""
    authority, rest = None, target
    if absolute := ABSOLUTE.match(target):
        authority, rest = absolute.groups()
        rest = rest if rest.startswith(b"/") else b"/" + rest
    if not PLAIN.match(target) or (authority is not None and not HOST.match(authority)):
        raise Verdict(S.MALFORMED_REQUEST_LINE)
    if not rest.startswith(b"/") and rest != b"*":
        raise Verdict(S.MALFORMED_REQUEST_LINE)
    path, _, query = rest.partition(b"?")
    return authority, path, query


def read_header(found: dict[bytes, bytes], name: bytes, value: bytes, body_max: int) -> None:
    if name == b"transfer-encoding":
        raise Verdict(S.HAS_TRANSFER_ENCODING)
    if name in (b"host", b"content-length", b"expect") and name in found:
        raise Verdict(S.REPEATED_HEADER)
    if name == b"host" and not HOST.match(value):
        raise Verdict(S.INVALID_HOST)
    if name == b"expect" and value.lower() != b"100-continue":
        raise Verdict(S.UNKNOWN_EXPECTATION)
    if name == b"content-length":
        if not LENGTH.match(value):
            raise Verdict(S.INVALID_CONTENT_LENGTH)
        if len(value) > 18 or int(value) > body_max:
            raise Verdict(S.BODY_TOO_LARGE)
    if name == b"authorization" and name in found:
        value = None  # which of them counts, nobody knows
    if name == b"connection":
        if not all(OPTION.match(option.strip(b" \t")) for option in value.split(b",")):
            raise Verdict(S.INVALID_CONNECTION)
        value = found.get(name, b"") + b"," + value
    found[name] = value


def read(data: bytes, body_max: int) -> dict[str, object]:
    if data and not b"A" <= data[:1] <= b"Z":
        raise Verdict(S.MALFORMED_REQUEST_LINE)
    text = first_line(data, 4124, S.TARGET_TOO_LONG)
    method, target, version = read_request_line(text)
    start, count = len(text) + 1, 0
    found: dict[bytes, bytes] = {}
    while (text := first_line(data[start:], 8192 - start, S.HEAD_TOO_LARGE)) != b"\r":
        count += text.endswith(b"\r")
        if count > 64:
            raise Verdict(S.TOO_MANY_HEADERS)
        parts = HEADER.match(text)
        if not parts:
            raise Verdict(S.MALFORMED_HEADER)
        read_header(found, parts[1].lower(), parts[2].strip(b" \t"), body_max)
        start += len(text) + 1
    is_1_1 = version == b"HTTP/1.1"
    if is_1_1 and b"host" not in found:
        raise Verdict(S.INVALID_HOST)
    authority, path, query = read_target(target)
    closes = b"close" in [option.strip(b" \t").lower() for option in found.get(b"connection", b"").split(b",")]
    return {
        "method": METHODS.get(method, int(Method.OTHER)),
        "path": path,
        "query": query,
        "host": found.get(b"host") if authority is None else authority,
        "content_length": int(found.get(b"content-length", 0)),
        "head_size": start + 2,
        "keep_alive": is_1_1 and not closes,
        "expects_continue": is_1_1 and b"expect" in found,
        "has_escapes": b"%" in path,
        "authorization": found.get(b"authorization"),
    }


def judge(data: bytes, body_max: int) -> tuple[int, dict[str, object] | None]:
    """Return what `parse_request_head` must."""
    try:
        return int(S.COMPLETE), read(data, body_max)
    except Verdict as verdict:
        return int(verdict.args[0]), None
