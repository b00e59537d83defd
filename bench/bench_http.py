"""Claim: reading a payment's request head costs some 0.2 µs, call from Python included; h11, the strict reader in plain Python,
takes some two hundred times that."""

import h11

from bench.one_payment import measure
from bench.samples import COUNT, QUERIES, SAMPLE
from paychan._fast.http import parse_request_head

HEADS = [
    f"PUT {SAMPLE.path}?{query} HTTP/1.1\r\nHost: localhost:8000\r\nAccept: */*\r\nContent-Length: 0\r\n\r\n".encode()
    for query in QUERIES
]


def test_request_head(benchmark):
    results = measure(benchmark, "read the request's head", lambda: [parse_request_head(head, 0) for head in HEADS])
    assert [found["path"] + b"?" + found["query"] for _, found in results] == [head.split()[1] for head in HEADS]


def test_request_head_by_h11(benchmark):
    def run():
        targets = []
        for head in HEADS:
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(head)
            targets.append(connection.next_event().target)
        return targets

    targets = measure(benchmark, "read the request's head in plain Python (h11)", run, rounds=5)
    assert targets == [head.split()[1] for head in HEADS] and len(targets) == COUNT
