"""Claim: path, query, base64url, strict DER and low S cost about a microsecond together, calls from Python included."""

from bench.one_payment import measure
from bench.samples import COUNT, PAYMENTS, QUERIES, SAMPLE
from paychan._fast.channel import read_channel_request
from paychan._fast.payment import split_payment


def test_parse_request(benchmark):
    def run():
        return [read_channel_request(SAMPLE.path, query) for query in QUERIES]

    results = measure(benchmark, "parse path, query and base64", run)
    assert [raw for status, _, raw in results if status == 0] == [paid.raw for paid in PAYMENTS]


def test_strict_der_and_low_s(benchmark):
    raws = [paid.raw for paid in PAYMENTS]

    def run():
        return [split_payment(raw) for raw in raws]

    results = measure(benchmark, "strict DER and low S", run)
    assert [result[0] for result in results] == [0] * COUNT


def test_parse_in_plain_python(benchmark):
    from tests.reference import decode_base64url, read_path, read_payment, read_query, unescape

    path, queries = SAMPLE.path.encode(), [query.encode() for query in QUERIES]

    def run():
        found = []
        for query in queries:
            read_path(path)
            found.append(read_payment(decode_base64url(unescape(read_query(query)[0]))))
        return found

    assert measure(benchmark, "path, query, base64, DER and low S in plain Python", run, rounds=5) == PAYMENTS
