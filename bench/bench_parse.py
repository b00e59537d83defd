"""Claim: path, query, base64url, strict DER and low S cost about a microsecond together, calls from Python included."""

from bench.bench_samples import COUNT, PAYMENTS, QUERIES, SAMPLE, report_each
from paychan._fast.channel import read_channel_request
from paychan._fast.payment import split_payment


def test_request_compiled(benchmark):
    def run():
        return [read_channel_request(SAMPLE.path, query) for query in QUERIES]

    results = benchmark.pedantic(run, rounds=50, warmup_rounds=2)
    assert [raw for status, _, raw in results if status == 0] == [paid.raw for paid in PAYMENTS]
    report_each(benchmark)


def test_payment_compiled(benchmark):
    raws = [paid.raw for paid in PAYMENTS]

    def run():
        return [split_payment(raw) for raw in raws]

    results = benchmark.pedantic(run, rounds=50, warmup_rounds=2)
    assert [result[0] for result in results] == [0] * COUNT
    report_each(benchmark)


def test_request_and_payment_judge(benchmark):
    from tests.reference import decode_base64url, read_path, read_payment, read_query, unescape

    path, queries = SAMPLE.path.encode(), [query.encode() for query in QUERIES]

    def run():
        found = []
        for query in queries:
            read_path(path)
            found.append(read_payment(decode_base64url(unescape(read_query(query)[0]))))
        return found

    assert benchmark.pedantic(run, rounds=5, warmup_rounds=1) == PAYMENTS
    report_each(benchmark)
