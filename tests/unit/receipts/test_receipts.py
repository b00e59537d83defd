"""Aim: a seller's receipts are chains that hold over processes, restarts and kills, and a verifier finds whatever was done to them.
Method: the vectors; an issuer in several processes at once; the command as a shell would use it.
"""

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paychan.client.errors import StateError
from paychan.mpp.receipt import Receipt, parse_receipt
from paychan.receipts.claims import RECEIPT_CHARACTERS_MAX, Bought, read_claims
from paychan.receipts.issuer import KEPT, Issuer
from paychan.receipts.keys import make_key, public_set, read_key, read_public
from paychan.receipts.verify import examine, read_receipt
from tests.receipt_vectors import CHANNEL, cases, purchases, sign, vectors
from tests.system import ROOT

VECTORS = json.loads((ROOT / "tests" / "vectors" / "receipts.json").read_text())


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "receipts.key"
    make_key(path)
    return path


def bought(number: int, channel: str = CHANNEL, amount: int = 5) -> Bought:
    paid = 1000 + amount * number
    return Bought(channel, number, "GET", "https://shop.example/", amount, paid, paid, payment=b"payment")


def keys_of(key_file: Path, tmp_path: Path):
    public = tmp_path / "public.json"
    public.write_text(json.dumps(public_set(read_key(key_file))))
    return read_public(public)


# --- the form ---


def test_the_vectors_are_what_the_code_makes():
    assert vectors() == VECTORS


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["case"])
def test_each_vector_is_judged_right(case, tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps(VECTORS["keys"]))
    verdict = examine(case["lines"], read_public(tmp_path / "keys.json"))
    assert (verdict.is_good, verdict.receipts, verdict.amount) == (case["good"], case["receipts"], case["amount"])
    assert verdict.word == case["verdict"] and case["good"] == (verdict.word == "good")


def test_there_are_good_and_bad_vectors():
    assert [case["case"] for case in VECTORS["cases"] if case["verdict"] == "incomplete"] == ["one is missing in the middle"]
    assert sorted(case["good"] for case in VECTORS["cases"]).count(True) >= 8 and len(cases()) == len(VECTORS["cases"]) >= 29


def test_what_is_said_comes_back(tmp_path):
    (tmp_path / "keys.json").write_text(json.dumps(VECTORS["keys"]))
    keys = read_public(tmp_path / "keys.json")
    for claims in purchases(3):
        assert read_receipt(sign(claims), keys)[1] == claims
        assert read_claims(json.loads(claims.encode())) == claims
    with pytest.raises(ValueError, match="compact"):
        read_receipt("A" * (RECEIPT_CHARACTERS_MAX + 1), keys)


def test_a_payment_receipt_carries_it(tmp_path):
    told = Receipt(
        outpoint=bytes(36), challenge_id="abc", timestamp=1_790_000_000, accepted=7, spent=5, deposit=9, jws=sign(purchases(1)[0])
    )
    assert parse_receipt(told.encode()) == told and told.as_object()["jws"] == told.jws


# --- issuing ---


def test_a_chain_holds_over_restarts_and_the_same_purchase_has_one_receipt(key_file, tmp_path):
    lines = []
    for number in range(1, 7):
        issuer = Issuer(key_file)
        lines.append(issuer.issue(bought(number)))
        assert issuer.issue(bought(number)) == lines[-1]
        issuer.close()
    verdict = examine(lines, keys_of(key_file, tmp_path))
    assert verdict.is_good and verdict.chains[0].is_whole and verdict.chains[0].remarks == []
    assert (verdict.receipts, verdict.amount) == (6, 30)
    assert stat.S_IMODE(os.stat(f"{key_file}.db").st_mode) == 0o600


def test_no_more_is_kept_than_is_asked_for_again(key_file):
    issuer = Issuer(key_file)
    for number in range(1, KEPT + 20):
        issuer.issue(bought(number))
    with issuer._file.reading() as db:
        rows = db.execute("SELECT count(*) FROM receipts").fetchone()[0]
    issuer.close()
    assert rows == KEPT


def test_a_process_that_was_forked_off_goes_on_with_the_chain(key_file):
    """Servers fork once the application is there."""
    issuer = Issuer(key_file)
    issuer.issue(bought(1))
    pid = os.fork()
    if not pid:
        try:
            issuer.issue(bought(2))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    issuer.issue(bought(3))
    with issuer._file.reading() as db:
        assert db.execute("SELECT number FROM receipts ORDER BY id").fetchall() == [(1,), (2,), (3,)]
    issuer.close()


def test_the_time_never_falls(key_file, tmp_path):
    now = [1_790_000_100.0]
    issuer = Issuer(key_file, clock=lambda: now[0])
    lines = [issuer.issue(bought(1))]
    now[0] -= 50
    lines.append(issuer.issue(bought(2)))
    issuer.close()
    assert examine(lines, keys_of(key_file, tmp_path)).is_good


def test_what_makes_no_sense_is_not_signed_and_not_chained(key_file, tmp_path):
    issuer = Issuer(key_file)
    lines = [issuer.issue(bought(1))]
    for wrong in (
        Bought(CHANNEL, 0, "GET", "x", 5, 10, 10),
        Bought(CHANNEL, 2, "get", "x", 5, 10, 10),
        Bought(CHANNEL, 2, "GET", "", 5, 10, 10),
        Bought(CHANNEL, 2, "GET", "x", 11, 10, 10),
        Bought(CHANNEL, 2, "GET", "x", -1, 10, 10),
        Bought(CHANNEL.upper(), 2, "GET", "x", 5, 10, 10),
        Bought(CHANNEL, 2, "GET", "x", 5, 10, 10, body="sha-256=abc"),
    ):
        with pytest.raises(ValueError):
            issuer.issue(wrong)
    lines.append(issuer.issue(bought(2)))
    issuer.close()
    assert examine(lines, keys_of(key_file, tmp_path)).is_good


def issue_many(key_file: Path, out: Path, first: int, count: int, step: int) -> None:
    issuer = Issuer(key_file)
    for number in range(first, first + count * step, step):
        text = issuer.issue(bought(number))
        with open(out, "a") as file:  # after it is durable: what is in the file was shown
            file.write(f"{text}\n")


def in_chain_order(texts: list[str], keys) -> list[str]:
    """Return receipts in the order of their chain."""
    from paychan.receipts.claims import receipt_hash

    following = {read_receipt(text, keys)[1].previous: text for text in texts}
    assert len(following) == len(texts), "two receipts follow the same one"
    ordered, at = [], ""
    while at in following:
        ordered.append(following[at])
        at = receipt_hash(ordered[-1])
    return ordered


def test_several_processes_at_once_make_one_chain(key_file, tmp_path):
    context = multiprocessing.get_context("spawn")
    outs = [tmp_path / f"out{number}" for number in range(4)]
    workers = [context.Process(target=issue_many, args=(key_file, outs[n], n + 1, 25, 4)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    keys = keys_of(key_file, tmp_path)
    texts = [text for out in outs for text in out.read_text().split()]
    ordered = in_chain_order(texts, keys)
    assert len(ordered) == 100 and examine(ordered, keys).is_good


def test_killed_while_it_signs_the_chain_goes_on(key_file, tmp_path):
    """What was shown is in the chain; what was not shown may be: then the chain names one that nobody has, and only then."""
    context = multiprocessing.get_context("spawn")
    out, first = tmp_path / "out", 1
    out.touch()
    for _ in range(4):
        before = len(out.read_text().split())
        worker = context.Process(target=issue_many, args=(key_file, out, first, 10_000, 1))
        worker.start()
        deadline = time.monotonic() + 20
        while len(out.read_text().split()) < before + 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
        first = len(out.read_text().split()) + 1
    keys = keys_of(key_file, tmp_path)
    texts = out.read_text().split()
    assert len(texts) >= 12 and in_chain_order(texts, keys) == texts  # the one that nobody saw was asked for again
    assert examine(texts, keys).is_good


def test_what_was_not_shown_can_be_withdrawn_and_what_others_follow_cannot(key_file, tmp_path):
    issuer = Issuer(key_file)
    lines = [issuer.issue(bought(1))]
    issuer.issue(bought(2))
    assert issuer.withdraw(CHANNEL, 2) and issuer.withdraw(CHANNEL, 2)  # the second time there is nothing to withdraw
    lines.append(issuer.issue(bought(3)))
    lines.append(issuer.issue(bought(4)))
    assert not issuer.withdraw(CHANNEL, 3)
    issuer.close()
    verdict = examine(lines, keys_of(key_file, tmp_path))
    assert verdict.is_good and verdict.receipts == 3


# --- keys ---


def test_a_key_is_secret_and_never_overwritten(key_file, tmp_path):
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    with pytest.raises(StateError, match="never overwritten"):
        make_key(key_file)
    assert "d" not in public_set(read_key(key_file))["keys"][0]
    os.chmod(key_file, 0o640)
    with pytest.raises(StateError, match="0600"):
        Issuer(key_file)
    os.chmod(key_file, 0o600)
    secret = json.loads(key_file.read_text())
    for content in ("", "[]", "{}", json.dumps({**secret, "crv": "X25519"}), json.dumps({**secret, "x": "AAAA"}), "\x00" * 70_000):
        key_file.write_text(content)
        with pytest.raises(StateError):
            read_key(key_file)
    key_file.write_text(json.dumps({name: value for name, value in secret.items() if name != "d"}))
    with pytest.raises(StateError, match="public"):
        read_key(key_file)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paychan", "receipts", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_command_makes_publishes_and_verifies(tmp_path):
    key_file, keys, receipts = tmp_path / "k", tmp_path / "keys.json", tmp_path / "receipts"
    made = run("key", key_file)
    assert made.returncode == 0 and "d" not in json.loads(made.stdout) and stat.S_IMODE(key_file.stat().st_mode) == 0o600
    again = run("key", key_file)
    assert again.returncode == 9 and "Traceback" not in again.stderr
    public = run("public", key_file)
    keys.write_text(public.stdout)
    assert json.loads(public.stdout)["keys"] == [json.loads(made.stdout)]
    issuer = Issuer(key_file)
    lines = [issuer.issue(bought(number)) for number in range(1, 4)]
    issuer.close()
    receipts.write_text("\n".join(lines) + "\n")
    good = run("verify", receipts, "--keys", keys)
    assert good.returncode == 0 and good.stdout.splitlines()[-1] == "3 receipts, 15 satoshi: good"
    receipts.write_text("\n".join([lines[0], lines[2]]) + "\n")
    bad = run("verify", receipts, "--keys", keys, "--json")
    assert bad.returncode == 1 and json.loads(bad.stdout)["verdict"] == "incomplete"
    assert "missing" in json.loads(bad.stdout)["chains"][0]["gaps"][0]
    for arguments in (
        ("verify", tmp_path / "none", "--keys", keys),
        ("verify", receipts, "--keys", receipts),
        ("verify", receipts),
    ):
        failed = run(*arguments)
        assert failed.returncode in (1, 2, 9) and failed.stderr and "Traceback" not in failed.stderr
