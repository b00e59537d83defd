"""Aim: no payer's command ends in a traceback, or without a word, whatever is typed and whatever lies where its files should be.

Method: each argument of each command in turn becomes some of the odd texts and files, others in each run (all of them with
PAYCHAN_ODD_WORDS=all, two minutes); then the same with a channel's files. The commands run in this process, so an exception that
escapes fails the test.
"""

import json
import os
import random
from pathlib import Path

import pytest

from paychan.cli.output import EXIT_TEXT
from paychan.client import create_key
from tests.client.payer_system import new_channel, type_paychan
from tests.client.scripted_server import ScriptedServer
from tests.ports import free_port

STATUSES = {int(line.split()[0]) for line in EXIT_TEXT.splitlines()[1:] if line[2].isdigit()}

WORDS = ["", " ", "-", "--", "-5", "--nosuch", "0", "1.5", "1e400", "nan", "9" * 30, "9" * 5000, "٣", "ü", "\udcff", "a\n\x1b[31mb"]
PLACES = ["../x", ".", "x" * 5000, "{}", "http://", "http://[", "http://a..b", "http://h:x", "https://.h", "h:1", "::", "%"]
TEXTS = WORDS + PLACES


@pytest.fixture
def server():
    """One of each test's own: what an earlier one has given up waiting for may still come to its server."""
    with ScriptedServer() as found:
        yield found


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory to be in, with odd files; commands may write here only."""
    directory = tmp_path / "here"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    (directory / "empty").touch()
    (directory / "noise").write_bytes(bytes(range(256)) * 4)
    (directory / "hex").write_text("00" * 40)
    (directory / "loop").symlink_to("loop")
    (directory / "dangling").symlink_to("nowhere")
    (directory / "directory").mkdir()
    create_key(directory / "locked")
    (directory / "locked").chmod(0)
    create_key(directory / "open-to-all")
    (directory / "open-to-all").chmod(0o644)
    return directory


FILES = ["empty", "noise", "hex", "loop", "dangling", "directory", "directory/x", "empty/x", "locked", "open-to-all"]
FILES += ["/dev/null", "n" * 300]
TAKE_FILES = ("keygen", "--key", "--cookie", "--funding-tx", "--settlement", "--output", "--purse")


def commands(url: str, closed: str) -> list[tuple[str, ...]]:
    """Return the commands with each of their options. Nobody listens at `closed`."""
    chain = ("--esplora", closed, "--bitcoind", closed, "--cookie", "empty")
    waiting = ("--poll-seconds", "0.01", "--wait-seconds", "0.01")
    patience = ("--deadline", "0.05")
    return [
        ("keygen", "made.key"),
        ("fund", url, "--amount", "5000", "--expires-in", "3", "--network", "test", "--name", "new", *patience),
        ("fund", url, "--btc", "0.001", "--expires-in", "3", "--network", "test", "--key", "open-to-all", *patience),
        ("fund", url, "--debug", "--expires-in", "3", "--change-address", "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY", *patience),
        ("fund", url, "--amount", "5000", "--expires-in", "3", "--network", "test", "--wait", *chain, *waiting, *patience),
        ("open", "unfunded", "--amount", "5000", "--funding-tx", "hex", *patience),
        ("open", "unfunded", "--funding", f"{'ab' * 32}:0:5000", "--resume", *patience),
        ("open", "unfunded", *chain, *waiting, *patience),
        ("pay", "shop", "5", "--yes", "--resume", *patience),
        ("status", "shop", "--resend", *patience),
        ("close", "shop", "--settlement", "hex", *patience),
        ("refund", "shop", "--fee-rate", "5", "--broadcast", *chain),
        ("list",),
        ("completion", "bash"),
        ("get", url, "--header", "a:b", "--output", "got", "--max-price", "5", "--purse", "purse", "--yes", *patience),
        ("get", url, "--method", "PUT", "--wallet", "x", *chain, *patience),
        ("post", url, "--data", "@empty", "--quiet", "--wait", "--esplora", closed, *waiting, *patience),
        ("spending", "--purse", "purse", "--days", "2"),
    ]


def check(done, words) -> None:
    assert done.status in STATUSES, (words, done)
    assert bool(done.err) == (done.status != 0), (words, done)
    *before, last = done.err.splitlines() or [""]
    assert not before or "--wait" in words, (words, done)  # then it says where to pay, and waits
    assert not last or last.startswith("paychan") and last.endswith((")", "tells more")), (words, done)


def some(texts: list[str], count: int = 3) -> list[str]:
    """Return some of the texts, or all where all are asked for."""
    return texts if os.environ.get("PAYCHAN_ODD_WORDS") == "all" else random.sample(texts, count)


COMMANDS = range(len(commands("", "")))


def patient(option: str, text: str) -> bool:
    """Whether the odd text is a right, and long, time to wait."""
    return option in ("--deadline", "--wait-seconds") and text == "1.5"


@pytest.mark.parametrize("number", COMMANDS)
def test_odd_arguments(server, place, tmp_path, number):
    closed = f"http://127.0.0.1:{free_port()}"
    words = commands(f"http://127.0.0.1:{server.port}", closed)[number]
    prepare(tmp_path, server)
    for at in range(1, len(words)):
        if words[at].startswith("--"):
            continue
        for text in some(TEXTS) + (some(FILES) if words[at - 1] in TAKE_FILES else []):
            if not patient(words[at - 1], text):
                odd = (*words[:at], text, *words[at + 1 :])
                check(type_paychan(tmp_path / "state", *odd), odd)
    for at in range(1, len(words) + 1):
        for text in some(["", "--nosuch", "--"], 1):
            odd = (*words[:at], text, *words[at:])
            check(type_paychan(tmp_path / "state", *odd), odd)
        check(type_paychan(tmp_path / "state", *words[:at]), words[:at])
    for directory in (*FILES, "", "x" * 5000, "\udcff"):
        check(type_paychan(Path(directory), *words), (*words, directory))


def prepare(tmp_path: Path, server: ScriptedServer) -> None:
    """Make the two channels that the commands name."""
    state = tmp_path / "state"
    new_channel(state, server.port, "unfunded", is_open=False).release()
    path = state / "unfunded.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "funding": None}))
    new_channel(state, server.port, "shop").release()


ON_CHANNELS = [words for words in commands("", "http://127.0.0.1:1") if words[0] not in ("fund", "keygen", "completion")]


@pytest.mark.parametrize("file", ["shop.json", "unfunded.json", "shop.json.lock", "unfunded.json.lock", "shop.key", "unfunded.key"])
def test_odd_files_in_the_place_of_a_channel_s(server, place, tmp_path, file):
    prepare(tmp_path, server)
    path = tmp_path / "state" / file
    path.rename(tmp_path / "kept")
    for what in (name for name in FILES if "/" not in name and len(name) < 99):
        os.symlink(place / what, path)
        for words in ON_CHANNELS:
            check(type_paychan(tmp_path / "state", *words), (words, what))
        path.unlink()


ODD_VALUES = [None, -1, 10**400, "", "\ud800", {}, {"outpoint": "/", "code": "", "detail": "", "payment": "AA", "value": -1}]
"""Of other types than the right one, tests/client/test_record.py has all."""


def test_odd_contents_of_a_state_file(server, place, tmp_path):
    prepare(tmp_path, server)
    path = tmp_path / "state" / "shop.json"
    whole = json.loads(path.read_text())
    for key in whole:
        for value in ODD_VALUES:
            path.write_text(json.dumps({**whole, key: value}))
            done = type_paychan(tmp_path / "state", "status", "shop")
            if not done.status:
                done = type_paychan(tmp_path / "state", "refund", "shop", "--fee-rate", "5")
            check(done, (key, value))
    for text in ("", "[]", "5", "[" * 60_000, "\x00", "{" * 5, '{"version":1}', " " * 70_000):
        path.write_text(text)
        assert type_paychan(tmp_path / "state", "status", "shop").status == 9
        assert type_paychan(tmp_path / "state", "list").status == 0
