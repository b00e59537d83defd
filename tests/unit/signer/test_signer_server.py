"""Aim: each frame gets its answer, no exception and no secret leaves. Method: frames into the handler."""

import dataclasses
import logging
import os

import pytest

from paychan._fast.frame import ERROR, REPLY
from paychan.rpc.signer_messages import Refusal, RefusalCode, SignerMessage
from signer import policy as policy_module
from signer import server as server_module
from signer.ledger import Ledger, LedgerError
from signer.server import SignerServer
from tests.unit.signer.test_signer_policy import GOOD, POLICY, SERVER, make_request, oracle

NOW = 1_700_000_000


class Peer:
    """Stands for a connection: keeps what is sent."""

    def __init__(self, uid: int | None = os.geteuid()) -> None:
        self.sent, self.closed, self.uid, self.unsent_bytes = [], False, uid, 0

    def reply(self, kind, request_id, payload=b""):
        self.sent.append((kind + REPLY, request_id, payload))

    def refuse(self, request_id, payload):
        self.sent.append((ERROR, request_id, payload))

    def close(self):
        self.closed = True

    def peer_uid(self):
        return self.uid


class Ended(Exception):
    """What the test's `fatal` raises instead of ending the process."""


def fatal():
    raise Ended


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path, "test", POLICY.pubkey, "signer.toml")
    yield ledger
    ledger.close()


@pytest.fixture
def server(ledger):
    return SignerServer(POLICY, ledger, lambda: NOW, fatal)


def let_in(server) -> Peer:
    peer = Peer()
    server.check_peer(peer)
    return peer


def ask(server, kind, payload=b""):
    peer = let_in(server)
    server.on_frame(peer, kind, 7, payload)
    if peer.closed:
        return None
    ((answer, request_id, data),) = peer.sent
    assert request_id == 7
    return Refusal.decode(data) if answer == ERROR else (answer, data)


def test_the_public_key_is_told(server):
    assert ask(server, SignerMessage.PUBLIC_KEY) == (SignerMessage.PUBLIC_KEY + REPLY, POLICY.pubkey)


def test_a_settlement_is_signed_and_remembered(server, ledger):
    kind, raw = ask(server, SignerMessage.SETTLE, GOOD.encode())
    assert kind == SignerMessage.SETTLE + REPLY
    oracle(raw, GOOD)
    assert ledger.get(GOOD.terms.outpoint, NOW).signed.change_value == GOOD.payment.change_value
    assert ask(server, SignerMessage.SETTLE, GOOD.encode()) == (kind, raw)
    assert ledger.get(GOOD.terms.outpoint, NOW).signed.versions == 1


def test_the_ledger_decides_the_next_request(server):
    ask(server, SignerMessage.SETTLE, GOOD.encode())
    assert ask(server, SignerMessage.SETTLE, make_request(9_000_001).encode()).code == RefusalCode.GIVES_PAYER_MORE


def test_a_judgement_signs_and_records_nothing(server, ledger, monkeypatch):
    def fails(*_):
        raise AssertionError("it was signed")

    monkeypatch.setattr(policy_module, "sign_settlement", fails)
    assert ask(server, SignerMessage.JUDGE, GOOD.encode()) == (SignerMessage.JUDGE + REPLY, b"")
    assert ask(server, SignerMessage.JUDGE, make_request(fee=10**9).encode()).code == RefusalCode.UNECONOMIC
    assert ledger.get(GOOD.terms.outpoint, NOW).signed is None


def test_a_judgement_knows_what_was_signed_before(server):
    ask(server, SignerMessage.SETTLE, GOOD.encode())
    assert ask(server, SignerMessage.JUDGE, make_request(9_000_001).encode()).code == RefusalCode.GIVES_PAYER_MORE


@pytest.mark.parametrize("kind", [SignerMessage.SETTLE, SignerMessage.JUDGE])
@pytest.mark.parametrize("payload", [b"", b"x", GOOD.encode()[:60], GOOD.encode()[:200], b"\xff" * 1000])
def test_a_malformed_payload_is_refused(server, payload, kind):
    assert ask(server, kind, payload).code == RefusalCode.MALFORMED


@pytest.mark.parametrize("kind", [0, 5, 127])
def test_an_unknown_type_closes_the_connection(server, kind):
    assert ask(server, kind) is None


def test_a_failing_handler_answers_and_tells_nothing(server, monkeypatch, caplog):
    def fails(*_):
        raise RuntimeError(SERVER.secret.hex())

    monkeypatch.setattr(server_module, "judge", fails)
    with caplog.at_level(logging.DEBUG):
        answer = ask(server, SignerMessage.SETTLE, GOOD.encode())
    assert answer.code == RefusalCode.MALFORMED
    assert "RuntimeError" in caplog.text
    assert SERVER.secret.hex() not in caplog.text + answer.detail


@pytest.mark.parametrize("method", ["get", "put", "note"])
def test_nothing_is_answered_when_the_ledger_fails(server, ledger, monkeypatch, method):
    def fails(*_):
        raise LedgerError("disk I/O error")

    monkeypatch.setattr(ledger, method, fails)
    peer = let_in(server)
    with pytest.raises(Ended):
        if method == "note":
            server.on_frame(peer, SignerMessage.NOTE, 7, NEWER.encode())
        else:
            server.on_frame(peer, SignerMessage.SETTLE, 7, GOOD.encode())
    assert peer.sent == []


def test_the_record_is_written_before_the_answer(server, ledger, monkeypatch):
    peer, seen = let_in(server), []
    put = ledger.put
    monkeypatch.setattr(ledger, "put", lambda *row: (put(*row), seen.append(list(peer.sent))))
    server.on_frame(peer, SignerMessage.SETTLE, 7, GOOD.encode())
    assert seen == [[]]
    assert len(peer.sent) == 1


NEWER = make_request(8_000_000, 0)


def test_a_payment_is_noted_durably_before_the_answer_and_decides_what_is_signed(server, ledger, monkeypatch):
    peer, seen = let_in(server), []
    note = ledger.note
    monkeypatch.setattr(ledger, "note", lambda *row: (note(*row), seen.append(list(peer.sent))))
    server.on_frame(peer, SignerMessage.NOTE, 7, NEWER.encode())
    assert seen == [[]] and peer.sent == [(SignerMessage.NOTE + REPLY, 7, b"")]
    assert ledger.get(NEWER.terms.outpoint, NOW).noted == 8_000_000
    assert ask(server, SignerMessage.SETTLE, GOOD.encode()).code == RefusalCode.GIVES_PAYER_MORE
    assert ask(server, SignerMessage.SETTLE, make_request(8_000_000).encode())[0] == SignerMessage.SETTLE + REPLY


def test_what_is_not_noted_is_refused_and_changes_nothing(server, ledger):
    assert ask(server, SignerMessage.NOTE, GOOD.encode()).code == RefusalCode.MALFORMED
    assert ask(server, SignerMessage.NOTE, b"x").code == RefusalCode.MALFORMED
    assert ledger.get(GOOD.terms.outpoint, NOW).noted is None


def test_the_clock_and_the_days_fees_are_looked_at(ledger, monkeypatch):
    period = POLICY.settlement_period
    now = GOOD.terms.exp_time - 2 * period
    server = SignerServer(dataclasses.replace(POLICY, fee_sum_per_day_max=25_000), ledger, lambda: now, fatal)
    other = make_request(9_000_000, 10_000, exp_time=GOOD.terms.exp_time + 1)
    assert ask(server, SignerMessage.SETTLE, GOOD.encode())[0] == SignerMessage.SETTLE + REPLY
    answer = ask(server, SignerMessage.SETTLE, other.encode())
    assert isinstance(answer, Refusal) and answer.code == RefusalCode.FEES_OF_THE_DAY
    now += period + 1
    assert ask(server, SignerMessage.SETTLE, other.encode())[0] == SignerMessage.SETTLE + REPLY


OTHER = os.geteuid() + 1


@pytest.mark.parametrize(("uid", "closed"), [(0, False), (os.geteuid(), False), (OTHER, True), (None, True)])
def test_other_users_are_turned_away_and_get_no_answer(server, uid, closed):
    peer = Peer(uid)
    server.check_peer(peer)
    assert peer.closed == closed
    server.on_frame(peer, SignerMessage.PUBLIC_KEY, 7, b"")
    assert bool(peer.sent) != closed


def test_only_on_tcp_may_a_peer_be_unknown(ledger):
    server = SignerServer(POLICY, ledger, lambda: NOW, fatal, on_tcp=True)
    for uid, closed in ((None, False), (OTHER, True)):
        peer = Peer(uid)
        server.check_peer(peer)
        assert peer.closed == closed


def test_who_was_not_let_in_gets_no_answer(server):
    peer = Peer()
    server.on_frame(peer, SignerMessage.SETTLE, 7, GOOD.encode())
    assert peer.closed and peer.sent == []


def test_the_number_of_connections_is_bounded(server, monkeypatch):
    monkeypatch.setattr(server_module, "CONNECTIONS_MAX", 2)
    first, second, third = (let_in(server) for _ in range(3))
    assert [peer.closed for peer in (first, second, third)] == [False, False, True]
    server._peers.discard(first)
    assert not let_in(server).closed


def test_who_does_not_take_its_answers_is_cut_off(server):
    peer = let_in(server)
    peer.unsent_bytes = server_module.UNSENT_BYTES_MAX + 1
    server.on_frame(peer, SignerMessage.SETTLE, 7, GOOD.encode())
    assert peer.closed and peer.sent == []


def test_the_log_shows_neither_key_nor_payment(server, caplog):
    with caplog.at_level(logging.DEBUG):
        ask(server, SignerMessage.SETTLE, GOOD.encode())
        ask(server, SignerMessage.SETTLE, make_request(9_000_001).encode())
    assert "signed" in caplog.text and "GIVES_PAYER_MORE" in caplog.text
    for secret in (SERVER.secret.hex(), GOOD.payment.signature.hex(), GOOD.payment.encode()):
        assert secret not in caplog.text
