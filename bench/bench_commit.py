"""Claim: what surrounds a verification in a worker, from the request to its answer, costs a microsecond or two: intake, commit
queue, batch. The group's answer is given at once here; disk and network are not in it."""

import struct

from bench.one_payment import measure
from bench.samples import COUNT, PAYMENTS, QUERIES, SAMPLE, loaded_table
from paychan._fast.batch import Batch
from paychan._fast.commit import CommitQueue
from paychan._fast.intake import FutureRequest, Intake
from paychan._fast.sale import SaleBatch
from paychan.core.units import MAX_MONEY
from paychan.rpc.store_messages import ENTRIES_MAX
from paychan.server.channels.payments import REFUSALS_BY_FORM
from paychan.server.protocol.replies import Reply
from tests.differential.channels import NOW


class Rules:
    """The rules of a worker that is well, and whose channels are all loaded."""

    def look(self):
        return None, NOW

    def time(self):
        return NOW

    def paid(self, body):
        return Reply(200, body)


class Answers(list):
    """Stands for the futures of all requests."""

    def done(self):
        return False

    set_result = list.append


def make_intake():
    table = loaded_table()
    queue = CommitQueue(table, lambda: None, print, ENTRIES_MAX)
    return Intake(table, queue, Rules(), REFUSALS_BY_FORM, MAX_MONEY), queue


def commit(queue):
    """Have the store say yes to all that waits."""
    while (group := queue.take()) is not None:
        queue.seal(group)
        queue.complete(group, bytes(group.size))


def test_intake_and_commit(benchmark):
    """One channel: all its payments share one write."""

    def run(intake, queue):
        answers = Answers()
        for query in QUERIES:
            intake.submit(FutureRequest(intake, SAMPLE.path, query, answers))
        commit(queue)
        return answers

    answers = measure(benchmark, "a worker's whole work on a payment, without HTTP and disk", run, make_intake)
    assert [reply.status for reply in answers] == [200] * COUNT


def test_batch_and_commit(benchmark):
    body = b"".join(SAMPLE.terms.outpoint + bytes((len(paid.raw),)) + paid.raw for paid in PAYMENTS)

    def run(intake, queue):
        answers = []
        Batch(body, str, answers.append, lambda call: call()).submit(intake)
        commit(queue)
        return answers

    (answer,) = measure(benchmark, "the same for a payment of a batch", run, make_intake)
    assert answer.count(b'"channel_status":"open"') == COUNT and answer[:2] == (200).to_bytes(2, "little")


def test_sale_and_commit(benchmark):
    """Each payment comes with a charge of what it pays: payment and purchase are one update."""
    table, kind, before, sales = loaded_table(), 1, None, []
    received = table.received(SAMPLE.terms.outpoint)
    for number, paid in enumerate(PAYMENTS):
        left = paid.change_value
        amount = (SAMPLE.terms.funding_value - received if before is None else before) - left
        before = left
        head = struct.pack("<B36s16sQQII", kind, SAMPLE.terms.outpoint, number.to_bytes(16, "little"), amount, 0, 0, 0)
        sales.append(head + paid.raw)

    def run(intake, queue):
        answers = []
        SaleBatch(sales, answers.append, lambda call: call()).submit(intake)
        commit(queue)
        return answers

    (answers,) = measure(benchmark, "the same for a payment that comes with a charge, of a batch", run, make_intake)
    assert sum(b'"status":200' in answer for answer in answers) == COUNT
