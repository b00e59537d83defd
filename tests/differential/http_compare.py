"""Compare the reader of request heads with the slow judge and with h11, on generated requests, good and spoiled.

    python -m tests.differential.http_compare --count 100000 --seed 1

The judge must give the same verdict and the same fields. h11 is someone else's understanding of the same RFC: what we accept it
must accept with the same method, target, headers and body; what we refuse and it accepts must be one of DIFFERENCES, each of
which is checked on the bytes, without our parser. The first difference is printed with the seed that finds it again.
"""

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable

import h11

from paychan._fast.http import (
    HEAD_SIZE_MAX,
    HEADERS_MAX,
    METHOD_SIZE_MAX,
    REQUEST_LINE_SIZE_MAX,
    TARGET_SIZE_MAX,
    HttpStatus,
    parse_request_head,
)
from tests.differential import http_judge
from tests.differential.http_cases import BAD, BODY_MAX, GOOD

S = HttpStatus
BODY = b"The body, or the next request. " * 3
SYMBOLS = b'\r\n\t :\0,;/?#%\x0b\x0c\x1c\x7f\x80\x85\xa0\xff+-_.0159azAZ[]="@'


class Difference(AssertionError):
    """The two disagree."""


# --- requests ---------------------------------------------------------------------------------------------------------


def request_line(rng: random.Random) -> bytes:
    method = rng.choice([b"GET", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"HEAD"] * 4 + [b"PATCH", b"Get", b"M-SEARCH", b"M" * 17])
    path = b"/" + bytes(rng.choices(b"abcXYZ019/%-_.~!$&'()*+,;=:@", k=rng.choice([0, 1, 5, 20, 90])))
    query = rng.choice([b"", b"?", b"?payment=" + bytes(rng.choices(b"abcXYZ019-_?&", k=rng.randrange(150)))])
    others = [b"*", b"a:80", path + b"#f", b"/" + b"t" * TARGET_SIZE_MAX, *absolute(rng, path, query)]
    target = rng.choice([path + query] * 40 + others)
    version = rng.choice([b"1.1"] * 30 + [b"1.0"] * 3 + [b"2.0", b"1.2", b"0.9", b"1", b"11"])
    return method + b" " + target + b" HTTP/" + version


def absolute(rng: random.Random, path: bytes, query: bytes) -> list[bytes]:
    scheme = rng.choice([b"http", b"https", b"HTTP"] * 3 + [b"ftp", b"httpss"])
    authority = rng.choice([b"a", b"a.example:80", b"[::1]:8000"] * 3 + [b"", b"u@a", b"a:", b"a:x"])
    return [scheme + b"://" + authority + rng.choice([path + query, path, query, b""])] * 3


def header(rng: random.Random) -> bytes:
    name, values = rng.choice(
        [
            (b"Host", [b"a", b"a:80", b"[::1]", b"", b"a b", b"a/b", b"a:", b"\xe4", b"a.example:99999", b"\r\n a"]),
            (
                b"Content-Length",
                [b"0", b"5", b"12", b"4096", b"4097", b"007", b"+5", b"5,5", b"5, 5", b"1" * 20, b"1" * 21, b"\r\n 5"],
            ),
            (b"Transfer-Encoding", [b"chunked", b"CHUNKED", b"identity", b"gzip, chunked", b""]),
            (b"Connection", [b"close", b"keep-alive", b"Close , x", b"Upgrade", b"", b"a b", b'"close"', b"x, ,keep-alive"]),
            (b"Expect", [b"100-continue", b"100-Continue", b"100-continue", b"200-ok", b""]),
            (b"Upgrade", [b"h2c", b"websocket"]),
            (b"User-Agent", [b"curl/8.5.0", b"caf\xc3\xa9", b"caf\xe9", b"\xa0\x85", b"a\tb", b"a\x01b", b"a\x7f"]),
            (b"X", [b"", b"x" * 50, b"x" * rng.choice([60, 9000]), b"y\r\n folded", b"y\r\n\tfolded", b"y\nZ: z"]),
        ]
    )
    name = rng.choice([name, name, name, name.lower(), name.upper()])
    blanks = [b" "] * 8 + [b"", b"\t", b"  \t "]
    return name + b":" + rng.choice(blanks) + rng.choice(values) + rng.choice([b""] * 8 + blanks)


def generate(rng: random.Random) -> bytes:
    """Return a request put together from parts, nearly good."""
    headers = [header(rng) for _ in range(rng.choice([0, 0, 1, 1, 2, 3, 5]))]
    if rng.random() < 0.9:
        headers = [one for one in headers if not one.lower().startswith(b"host")]
        headers.insert(rng.randrange(len(headers) + 1), b"Host: pay.example.org")
    if rng.random() < 0.01:
        headers += [b"X: y"] * HEADERS_MAX
    end = rng.choice([b"\r\n"] * 30 + [b"\n"])
    return end.join([request_line(rng), *headers, b"", b""]) + rng.choice([b"", BODY])


def mutate(rng: random.Random, request: bytes) -> bytes:
    """Return a request with a few bytes or lines changed."""
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        at = rng.randrange(len(request) + 1)
        kind = rng.randrange(8)
        symbol = bytes([rng.choice(SYMBOLS)]) if rng.random() < 0.8 else bytes([rng.randrange(256)])
        if kind <= 1:
            request = request[:at] + symbol + request[at + 1 :]
        elif kind == 2:
            request = request[:at] + symbol + request[at:]
        elif kind == 3:
            request = request[:at] + request[at + rng.choice([1, 1, 2, 8]) :]
        elif kind == 4:
            parts = request.split(b"\r\n")
            parts.insert(rng.randrange(len(parts)), rng.choice(parts))
            request = b"\r\n".join(parts)
        elif kind == 5:
            request = request[:at] + request[at : at + 1].swapcase() + request[at + 1 :]
        elif kind == 6:
            request = request[:at]
        else:
            request = request.replace(b"\r\n", rng.choice([b"\n", b"\r", b"\r\r\n", b"\r\n "]), 1)
    return request


TABLE = [request for request, _ in (*GOOD.values(), *BAD.values())]


def pick(rng: random.Random) -> bytes:
    request = rng.choice(TABLE) if rng.random() < 0.25 else generate(rng)
    return mutate(rng, request) if rng.random() < 0.5 else request


# --- h11 --------------------------------------------------------------------------------------------------------------


def ask_h11(data: bytes) -> dict[str, object] | None:
    """Return what h11 understands; None if it refuses or waits for more."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            return None
        waits = connection.they_are_waiting_for_100_continue
        body = 0
        while isinstance(event := connection.next_event(), h11.Data):
            body += len(event.data)
    except h11.RemoteProtocolError:
        return None
    ended = isinstance(event, h11.EndOfMessage)
    return {
        "method": request.method,
        "target": request.target,
        "headers": list(request.headers),
        "version": request.http_version,
        "waits": waits,
        "body": body,
        "ended": ended,
        "trailing": connection.trailing_data[0],
        "kept": {h11.DONE: True, h11.MUST_CLOSE: False}.get(connection.their_state),  # None: not ended, or may be upgraded
    }


def origin_form(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query, and the authority before them, if there is one: h11 leaves telling them apart to its users."""
    if target.startswith((b"/", b"*")):
        return target, b""
    rest = target.partition(b"://")[2]
    size = min(rest.find(end) % (len(rest) + 1) for end in (b"/", b"?"))  # -1: to the end
    return (b"" if rest[size : size + 1] == b"/" else b"/") + rest[size:], rest[:size]


def compare_accepted(data: bytes, head: dict[str, object], seen: dict[str, object] | None) -> None:
    """Raise Difference unless h11 reads an accepted request as we do, and finds the same end of it."""
    if seen is None:
        raise Difference("we accept, h11 does not")
    rest = data[head["head_size"] :]
    target = head["path"] + (b"?" + head["query"] if head["query"] else b"")
    theirs, authority = origin_form(seen["target"])
    pairs = [
        (http_judge.METHODS.get(seen["method"], 6), head["method"]),
        (theirs.removesuffix(b"?") if not head["query"] else theirs, target),
        ([authority] if authority else values(seen, b"host"), [head["host"]] if head["host"] is not None else []),
        (seen["waits"], head["expects_continue"]),
        (seen["body"], min(len(rest), head["content_length"])),
        (seen["ended"], len(rest) >= head["content_length"]),
        (seen["trailing"], rest[head["content_length"] :]),
    ]
    if seen["kept"] is not None:
        pairs.append((seen["kept"], head["keep_alive"]))
    for theirs, ours in pairs:
        if theirs != ours:
            raise Difference(f"h11 reads {theirs!r}, we {ours!r}")


def values(seen: dict[str, object], name: bytes) -> list[bytes]:
    return [value for key, value in seen["headers"] if key == name]


def spoiled_lines(data: bytes, pattern: bytes) -> bool:
    """Whether the head, as h11 bounds it, matches."""
    return re.search(pattern, re.split(rb"\n\r?\n", data, maxsplit=1)[0] + b"\r\n") is not None


def has_odd_host_or_none(target: bytes) -> bool:
    parts = http_judge.ABSOLUTE.match(target)
    return parts is None or http_judge.HOST.match(parts[1]) is None


def is_repeated(seen: dict[str, object]) -> bool:
    return any(len(values(seen, name)) > 1 for name in (b"host", b"expect"))


# What h11 accepts and we refuse: name, our verdicts, whether the bytes (and what h11 made of them) are such a case.
Test = Callable[[bytes, dict[str, object]], bool]
DIFFERENCES: list[tuple[str, set[HttpStatus], Test]] = [
    ("bare LF ends a line", {S.MALFORMED_REQUEST_LINE, S.MALFORMED_HEADER}, lambda data, seen: b"\n" in data.replace(b"\r\n", b"")),
    ("folded header", {S.MALFORMED_HEADER}, lambda data, seen: spoiled_lines(data, rb"\n[ \t]")),
    (
        "folded header with nothing on its first line",
        {S.INVALID_HOST, S.INVALID_CONTENT_LENGTH, S.UNKNOWN_EXPECTATION},
        lambda data, seen: spoiled_lines(data, rb"(?i)\n(host|content-length|expect):[ \t]*\r?\n[ \t]"),
    ),
    (
        "control character in a value",
        {S.MALFORMED_HEADER},
        lambda data, seen: any(re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value) for _, value in seen["headers"]),
    ),
    (
        "method of other than capital letters, or long",
        {S.MALFORMED_REQUEST_LINE},
        lambda data, seen: not re.fullmatch(rb"[A-Z]{1,%d}" % METHOD_SIZE_MAX, seen["method"]),
    ),
    (
        "neither origin form, nor absolute form of an http URL, nor `*`",
        {S.MALFORMED_REQUEST_LINE},
        lambda data, seen: not re.match(rb"/|\*\Z", seen["target"]) and has_odd_host_or_none(seen["target"]),
    ),
    ("fragment", {S.MALFORMED_REQUEST_LINE}, lambda data, seen: b"#" in seen["target"]),
    (
        "long target, or request line with a long method",
        {S.TARGET_TOO_LONG},
        lambda data, seen: len(seen["target"]) > TARGET_SIZE_MAX or data.find(b"\n") >= REQUEST_LINE_SIZE_MAX,
    ),
    ("other version", {S.UNSUPPORTED_VERSION}, lambda data, seen: seen["version"] not in (b"1.1", b"1.0")),
    ("large head", {S.HEAD_TOO_LARGE}, lambda data, seen: len(data) > HEAD_SIZE_MAX),
    ("many headers", {S.TOO_MANY_HEADERS}, lambda data, seen: len(seen["headers"]) > HEADERS_MAX),
    ("transfer encoding", {S.HAS_TRANSFER_ENCODING}, lambda data, seen: values(seen, b"transfer-encoding") != []),
    ("equal lengths", {S.REPEATED_HEADER}, lambda data, seen: spoiled_lines(data, rb"(?is)\ncontent-length:.*\ncontent-length:")),
    ("list of equal lengths", {S.INVALID_CONTENT_LENGTH}, lambda data, seen: spoiled_lines(data, rb"(?i)\ncontent-length:.*,")),
    (
        "length with leading zeros",
        {S.INVALID_CONTENT_LENGTH},
        lambda data, seen: spoiled_lines(data, rb"(?i)\ncontent-length:\s*0\d"),
    ),
    (
        "body over the bound",
        {S.BODY_TOO_LARGE},
        lambda data, seen: any(int(value) > BODY_MAX for value in values(seen, b"content-length")),
    ),
    ("odd host", {S.INVALID_HOST}, lambda data, seen: not all(map(http_judge.HOST.match, values(seen, b"host")))),
    ("repeated header", {S.REPEATED_HEADER}, lambda data, seen: is_repeated(seen)),
    (
        "other expectation",
        {S.UNKNOWN_EXPECTATION},
        lambda data, seen: any(value.lower() != b"100-continue" for value in values(seen, b"expect")),
    ),
    (
        "connection that is no list of tokens",
        {S.INVALID_CONNECTION},
        lambda data, seen: any(re.search(rb"[^\w!#$%&'*+.^`|~\t ,-]|[\w!#$%&'*+.^`|~-][\t ]+[\w!#$%&'*+.^`|~-]", value)
                               for value in values(seen, b"connection")),
    ),
]  # fmt: skip


def name_difference(data: bytes, status: int, seen: dict[str, object]) -> str:
    for name, statuses, applies in DIFFERENCES:
        if status in statuses and applies(data, seen):
            return name
    raise Difference(f"h11 accepts, we say {HttpStatus(status).name}")


# --- a run ------------------------------------------------------------------------------------------------------------


def compare(data: bytes) -> str:
    """Return how it came out: `accepted`, `both refuse`, `incomplete`, or the name of a difference."""
    status, head = verdict = parse_request_head(data, BODY_MAX)
    judged = http_judge.judge(data, BODY_MAX)
    if judged != verdict:
        raise Difference(f"the judge says {judged}, we {verdict}")
    seen = ask_h11(data)
    if status == HttpStatus.COMPLETE:
        compare_accepted(data, head, seen)
        return "accepted"
    if seen is None:
        return "incomplete" if status == HttpStatus.INCOMPLETE else "both refuse"
    return name_difference(data, status, seen)


def run(count: int, seed: int) -> Counter[str]:
    """Compare `count` requests; return how often each outcome came."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        data = pick(rng)
        try:
            outcomes[compare(data)] += 1
        except Difference as difference:
            raise Difference(f"seed {seed}, request {number}: {difference}\n{data!r}") from None
    return outcomes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    outcomes = run(options.count, options.seed)
    for name, count in outcomes.most_common():
        print(f"{count:10} {name}")
    print(f"{options.count} requests in {time.monotonic() - started:.1f} s, no difference but those")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
