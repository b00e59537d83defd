"""Aim: no payment, key or password in what we write for others to read.

Method: a real system with recognisable secrets lives through good payments, errors at both doors, kills, refused configurations and
commands; then everything that it wrote is searched for them. The payment in a request is the token that closes its channel, in each
of its spellings; the signer's key is the money.
"""

import base64
import http.client
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests import postgres
from tests.ports import free_port
from tests.raw_http import exchange
from tests.system import ROOT, Client, processes, running, wait_until

KEY = "c0ffee" * 10 + "badd"
PASSWORD = "canary-5d2f-password"
STORED = ("store", "signer", "broadcast")
"""Below the state directory: where payments belong."""


def spellings(secret: bytes) -> set[bytes]:
    """Return how bytes may be written, long enough to be no chance find."""
    texts = {secret.hex().encode(), secret.hex().upper().encode(), base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    return {text.rstrip(b"=") for text in texts} | {secret, repr(secret)[2:-1].encode()}


def run(arguments: list[str], **env: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PAYCHAN_")}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, env={**clean, **env}, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """(what was written, by where; the payments in binary form; the state directory; the signer's bound of core files)."""
    directory = tmp_path_factory.mktemp("canaries")
    own_port = free_port()
    written: dict[str, bytes] = {}
    payments: list[bytes] = []
    env = {"PYTHONASYNCIODEBUG": "1", "PAYCHAN_LOG_LEVEL": "DEBUG", "PYTHONFAULTHANDLER": "1"}
    with running(directory, signer_key=KEY, env=env, changes={"server.toml": {"base_port": f"base_port = {own_port}"}}) as system:
        state = {"PAYCHAN_STATE_DIR": str(system.state_dir), "PORT": str(system.port)}
        payer = system.payer("canary")
        assert payer.open().status == 201
        target = payer.sender.channel_target(payer.newest).partition("?")[0]
        for port in (system.port, own_port):
            client = Client(port)
            for _ in range(3):
                payment = payer.sender.pay(10)
                payments.append(payment.serialize())
                text = payer.sender.channel_target(payment).partition("?")[2]
                assert client.request("PUT", f"{target}?{text}").status == 200
                for path, query in (
                    (target, text + "&" + text),  # repeated
                    (target, text[:-3] + "%zz"),
                    (target, text[:-6] + "AAAAAA"),
                    (target + "x", text),
                    ("/v1/channels/" + "ab" * 32 + "/0", text),
                    (target, text + "&change_address=" + text[8:40]),
                    ("/v1/fundingInfo", text + "&client_pubkey=" + text[8:74] + "&exp_time=1"),
                    ("/" + text, text),
                ):
                    for method in ("PUT", "GET", "POST", "DELETE", "OPTIONS"):
                        if method != "DELETE" or text not in query:  # that would close the channel
                            written[f"answer {port} {method} {path[:20]} {len(written)}"] = client.request(
                                method, f"{path}?{query}"
                            ).body
                body = payment.serialize()
                written[f"batch {len(written)}"] = client.request("POST", "/v1/payments", body=body).body
                for head in (
                    f"PUT {target}?{text} HTTP/9.9\r\n\r\n",
                    f"PUT {target}?{text}\r\n",
                    f"PUT / HTTP/1.1\r\nX {text}\r\n\r\n",
                ):
                    written[f"raw {len(written)}"] = exchange(port, head.encode()).body
        # a body that breaks off, and kills in the middle of payments
        connection = http.client.HTTPConnection("127.0.0.1", system.port)
        connection.putrequest("POST", "/v1/payments")
        connection.putheader("Content-Length", "500")
        connection.endheaders(payments[-1])
        time.sleep(0.2)
        connection.close()
        for name in ("store", "signer", "worker"):
            payment = payer.sender.pay(10)
            payments.append(payment.serialize())
            system.kill(name)
            answer, _ = payer.client.persist("PUT", payer.sender.channel_target(payment))
            assert answer.status == 200
        for arguments in (
            ["paychan", "channels", str(system.config_dir)],
            ["paychan", "channel", str(system.config_dir), target.removeprefix("/v1/channels/")],
            ["paychan", "config", "check", str(system.config_dir)],
            ["signer", "--init", str(system.state_dir / "signer.key")],
            ["signer", str(system.config_dir / "signer.toml")],
            ["store", str(system.config_dir / "store.toml")],
        ):
            written[" ".join(arguments)] = run(arguments, **state).encode()
        for process in processes_of(system.process.pid):
            for name in ("environ", "cmdline", "limits"):
                with suppress(PermissionError):  # the signer's is for root alone
                    written[f"/proc/{process} {name}"] = Path(f"/proc/{process}/{name}").read_bytes()
        wait_until(lambda: system.ready_workers() == 1, 20, "being ready")
        signer = system.child_pid("signer")
        core_limit_of_signer = core_limit(signer)
        payment = payer.sender.pay(10)
        payments.append(payment.serialize())
        assert payer.client.persist("PUT", payer.sender.channel_target(payment))[0].status == 200
        payer.newest = payment
        client = system.client()
        assert client.request("DELETE", payer.sender.channel_target(payment)).status == 202
    # refused configurations, with a secret in the wrong place
    broken = directory / "broken"
    broken.mkdir()
    for name, text in (
        ("server", f'network = "live"\n[bitcoind]\npassword = "{PASSWORD}"\n'),
        ("signer", f'network = "test"\n[signer]\nprivate_key = "{KEY}"\nkey_file = "{KEY}"\n'),
        ("store", f'network = "{PASSWORD}"\n'),
    ):
        (broken / f"{name}.toml").write_text(text)
    for module, name in (("paychan.server", "server"), ("signer", "signer"), ("store", "store")):
        written[f"refused {name}"] = run([module, str(broken / f"{name}.toml")], PAYCHAN_STATE_DIR=str(directory / "none")).encode()
    written["output"] = "".join(system.output).encode()
    assert len(written["output"]) > 1000
    for file in directory.rglob("*"):
        inside = file.relative_to(directory).parts
        if file.is_file() and inside[0] != "broken" and not (inside[0] == "state" and inside[1] in (*STORED, "signer.key")):
            written[str(file)] = file.read_bytes()
    return written, payments, system.state_dir, core_limit_of_signer


def processes_of(root: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for pid, parent, _ in processes():
        children.setdefault(parent, []).append(pid)
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def core_limit(pid: int) -> str:
    (line,) = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max core file size")]
    return line.split()[4]


def test_no_payment_is_written(lived):
    written, payments, _, _ = lived
    for payment in payments:
        for needle in spellings(payment) | spellings(payment[8:-1]):
            holders = [place for place, text in written.items() if needle in text]
            assert not holders, (holders, needle)


def test_no_key_and_no_password_is_written(lived):
    written, _, _, _ = lived
    for secret in spellings(bytes.fromhex(KEY)) | {PASSWORD.encode()}:
        holders = [place for place, text in written.items() if secret in text]
        assert not holders, holders


@postgres.embedded_only
def test_payments_are_where_they_belong(lived):
    """The search would find them: the newest payment is in the store's files, its signature in the settlement that was sent."""
    _, payments, state_dir, _ = lived
    stored = b"".join(file.read_bytes() for file in (state_dir / "store").rglob("*") if file.is_file())
    assert payments[-1][8:-1] in stored
    assert (state_dir / "signer.key").read_text().strip() == KEY


def test_the_signer_leaves_no_core(lived):
    """Nor may it be traced: test_signer_hardening.py asks the kernel about that, in the process itself."""
    assert lived[3] == "0"


@pytest.mark.privileged("the signer is not dumpable: the kernel shows its environment to root alone")
def test_the_signers_environment_was_searched(lived):
    environments = [text for place, text in lived[0].items() if place.startswith("/proc/") and place.endswith("environ")]
    assert len(environments) == len([place for place in lived[0] if place.endswith(" cmdline")]) >= 4


def test_what_is_searched_is_what_there_is(lived):
    written, *_ = lived
    places = " ".join(written)
    for part in ("output", "answer", "raw", "/proc/", "refused server", "refused signer", "config check", "signer.pub"):
        assert part in places
