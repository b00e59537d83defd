"""Aim: what must not run does not start: it exits with status 2, and one line names the file and the key.

Method: the shipped configurations with one fault each, through the real commands; then real systems on a state directory, a
port or a key that is another's. The table's commands are forked off a process that has loaded them, since each would only take
the time of starting Python.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests import postgres
from tests.hostile.forked import run_rows
from tests.ports import free_port
from tests.system import ROOT, make_config, running

LIVE_ADDRESS = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
TEST_ADDRESS = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"
SAMPLE_KEYS = [
    "9b4b4cf8f8796ca8a3a8a3da5c73deeb7c558a89e3752b896349ec58c010879d",
    "456af7395529404380edc4fa35a161e096aa510610b98d3d219dc178dc58c1d7",
    "e6639c6c909c1cf6a915476103ac802f175e25577e0090ffb32936d9da301efe",
]
OTHER_KEY = "11" * 32
SECONDS_MAX = 120
COMMANDS = {"run": "paychan", "paychan.server": "paychan.server", "store": "store", "signer": "signer"}
"""The module of each command of the table."""


@dataclass
class Refusal:
    """One faulty configuration. `edits`: file to (line's beginning, new line); `key`: what the line must name."""

    name: str
    key: str
    edits: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    kind: str = "debug"
    env: dict[str, str] = field(default_factory=dict)
    command: str = "run"
    removed: str = ""
    file: str = "server.toml"
    signer_key: str = ""


def server(*edits: tuple[str, str]) -> dict[str, list[tuple[str, str]]]:
    return {"server.toml": list(edits)}


TABLE = [
    Refusal("unknown key", "surprise", server(("network", 'network = "test"\nsurprise = 1'))),
    Refusal("unknown key in a table", "open.bas_price", server(("base_price", "base_price = 70000\nbas_price = 1"))),
    Refusal("unknown table", "extra", server(("[debug]", "[extra]\na = 1\n[debug]"))),
    Refusal("misspelt switch", "debug.enabled", server(("enable", "enable = true\nenabled = true"))),
    Refusal("text for a number", "open.base_price", server(("base_price", 'base_price = "70000"'))),
    Refusal("fraction for a number", "open.base_price", server(("base_price", "base_price = 70000.0"))),
    Refusal("boolean for a number", "open.base_price", server(("base_price", "base_price = true"))),
    Refusal("number for a boolean", "debug.enable", server(("enable", "enable = 1"))),
    Refusal("number for a text", "network", server(("network", "network = 1"))),
    Refusal("value for a table", "http", server(("[http]", "[http_]"), ("network", 'network = "test"\nhttp = 1'))),
    Refusal("negative money", "open.base_price", server(("base_price", "base_price = -1"))),
    Refusal("more than 21M BTC", "open.base_price", server(("base_price", "base_price = 2100000000000001"))),
    Refusal("missing key", "open.base_price", server(("base_price", ""))),
    Refusal("missing network", "network", server(("network", ""))),
    Refusal("unknown network", "network", server(("network", 'network = "testnet3"'))),
    Refusal("unknown backend", "chain.backend", server(("backend", 'backend = "chain.so"'))),
    Refusal("fixture without its file", "chain.fixture_file", server(("backend", 'backend = "fixture"'))),
    Refusal("port 0", "http.port", server(("port", "port = 0"))),
    Refusal("port 65536", "http.port", server(("port", "port = 65536"))),
    Refusal("no workers", "http.workers", server(("workers", "workers = 0"))),
    Refusal("public_url without scheme", "http.public_url", server(("public_url", 'public_url = "pay.example.com"'))),
    Refusal("durations that exclude all", "open.duration_hours_max", server(("duration_hours_max", "duration_hours_max = 1"))),
    Refusal("no settlement period", "settlement.period_hours", server(("period_hours", "period_hours = 0"))),
    Refusal("no fee", "settlement.fee_per_byte", server(("fee_per_byte", "fee_per_byte = 0"))),
    Refusal("bad address of the store", "processes.store", server(("store", 'store = "elsewhere"'))),
    Refusal("another store than the store's", "processes.store", server(("store", 'store = "unix:run/other.sock"'))),
    Refusal(
        "a public key that the signer does not write",
        "store.server_pubkey_file",
        {"store.toml": [("server_pubkey_file", 'server_pubkey_file = "other.pub"')]},
        file="store.toml",
    ),
    Refusal(
        "a signer that refuses what settlements cost",
        "policy.fee_per_byte_max",
        {"signer.toml": [("fee_per_byte_max", "fee_per_byte_max = 39")]},
        file="signer.toml",
    ),
    Refusal(
        "a node's password that is not there",
        "bitcoind.password_file",
        server(("cookie_file", 'user = "u"\npassword_file = "none"')),
        kind="regtest",
        command="paychan.server",
    ),
    Refusal("another signer than the signer's", "processes.signer", server(("signer", 'signer = "unix:run/other.sock"'))),
    Refusal("no TOML", "is no TOML", server(("network", "network = test"))),
    Refusal("PORT is a word", "PORT", env={"PORT": "http"}),
    Refusal("PORT is 0", "PORT", env={"PORT": "0"}),
    Refusal("PAYCHAN_WORKERS is 0", "PAYCHAN_WORKERS", env={"PAYCHAN_WORKERS": "0"}),
    Refusal("clock is a word", "PAYCHAN_CLOCK_START", env={"PAYCHAN_CLOCK_START": "now"}),
    Refusal("clock outside debug mode", "debug.enable", kind="test", env={"PAYCHAN_CLOCK_START": "1900000000"}),
    Refusal("server.toml is missing", "cannot be read", removed="server.toml"),
    Refusal("store.toml is missing", "cannot be read", removed="store.toml", file="store.toml"),
    Refusal("signer.toml is missing", "cannot be read", removed="signer.toml", file="signer.toml"),
    Refusal("store on another network", "network", {"store.toml": [("network", 'network = "regtest"')]}, file="store.toml"),
    Refusal("store not in debug mode", "debug.enable", {"store.toml": [("enable", "enable = false")]}, file="store.toml"),
    Refusal("shard count 0", "store.shard_count", {"store.toml": [("shard_count", "shard_count = 0")]}, file="store.toml"),
    Refusal(
        "server key is no key",
        "store.server_pubkey",
        {"store.toml": [("server_pubkey_file", 'server_pubkey = "04"')]},
        file="store.toml",
    ),
    Refusal(
        "destination of another network",
        "policy.funds_destination_address",
        {"signer.toml": [("funds_destination_address", f'funds_destination_address = "{LIVE_ADDRESS}"')]},
        file="signer.toml",
    ),
    Refusal(
        "unproven funding outside debug mode",
        "debug.waive_funding_proof",
        {
            "server.toml": [("cookie_file", 'cookie_file = "/node/.cookie"')],
            "signer.toml": [("enable", "enable = false\nwaive_funding_proof = true")],
        },
        kind="test",
        file="signer.toml",
    ),
    Refusal("live as shipped", "bitcoind.cookie_file", kind="live"),
    Refusal("test as shipped", "bitcoind.cookie_file", kind="test"),
    Refusal("debug mode on live", "debug.enable", server(("enable", "enable = true")), kind="live"),
    Refusal("debug coins on live", "chain.backend", server(("backend", 'backend = "debug"')), kind="live"),
    Refusal(
        "fixture coins on live",
        "chain.backend",
        server(("backend", 'backend = "fixture"\nfixture_file = "funding.json"')),
        kind="live",
    ),
    Refusal("debug coins outside debug mode", "chain.backend", server(("backend", 'backend = "debug"')), kind="test"),
    Refusal(
        "open price below the fee",
        "open.base_price",
        server(
            ("price", 'price = "fixed"\nbase_price = 0\nprice_add_settlement_fee = true'),
            ("cookie_file", 'cookie_file = "/node/.cookie"'),
        ),
        kind="test",
    ),
    Refusal("the server alone", "open.base_price", server(("base_price", "base_price = 1.5")), command="paychan.server"),
    Refusal("the server alone, no file", "cannot be read", removed="server.toml", command="paychan.server"),
    Refusal(
        "the store alone",
        "store.lease_ms",
        {"store.toml": [("lease_ms", "lease_ms = 1")]},
        file="store.toml",
        command="store",
    ),
    Refusal("the store alone, no file", "cannot be read", removed="store.toml", file="store.toml", command="store"),
    Refusal(
        "the signer alone",
        "policy.fee_per_byte_max",
        {"signer.toml": [("fee_per_byte_max", "fee_per_byte_max = 0")]},
        file="signer.toml",
        command="signer",
    ),
    Refusal("the signer alone, no file", "cannot be read", removed="signer.toml", file="signer.toml", command="signer"),
    Refusal(
        "no signer key outside debug mode",
        "signer.key_file",
        {"signer.toml": [("funds_destination_address", f'funds_destination_address = "{TEST_ADDRESS}"')]},
        kind="test",
        file="signer.toml",
        command="signer",
    ),
    *(
        Refusal(
            f"published key {key[:8]} on live",
            "signer.key_file",
            {"signer.toml": [("funds_destination_address", f'funds_destination_address = "{LIVE_ADDRESS}"')]},
            kind="live",
            file="signer.toml",
            command="signer",
            signer_key=key,
        )
        for key in SAMPLE_KEYS
    ),
]


def prepare(case: Refusal, directory: Path) -> Path:
    """Make the case's configuration in a new directory; return where it is."""
    directory.mkdir()
    configs = directory / "config"
    shutil.copytree(ROOT / "config" / case.kind, configs)
    for file, edits in case.edits.items():
        text = (configs / file).read_text()
        for beginning, line in edits:
            text, count = re.subn(rf"(?m)^{re.escape(beginning)}(?![\w]).*$", lambda _, line=line: line, text)
            assert count == 1, f"{case.name}: {beginning}"
        (configs / file).write_text(text)
    if case.removed:
        (configs / case.removed).unlink()
    if case.signer_key:
        write_key(directory / "state", case.signer_key)
    return configs


def write_key(state_dir: Path, key: str) -> None:
    state_dir.mkdir(mode=0o700, exist_ok=True)
    file = state_dir / "signer.key"
    file.unlink(missing_ok=True)
    file.touch(mode=0o600)
    file.write_text(key + "\n")


def started(arguments: list[str], state_dir: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start one of our commands."""
    clean = {name: value for name, value in os.environ.items() if name != "PORT" and not name.startswith("PAYCHAN_")}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=clean | {"PAYCHAN_STATE_DIR": str(state_dir), "PORT": str(free_port())} | (env or {}),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait until a command has ended by itself; one that goes on running is killed, which shows in its status."""
    try:
        stdout, stderr = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def attempt(arguments: list[str], state_dir: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return ended(started(arguments, state_dir, env))


@pytest.fixture(scope="module", autouse=True)
def waits_for_port(tmp_path_factory):
    """A system on a port that is taken. It waits some seconds for the port, so it is started first and asked last."""
    directory = tmp_path_factory.mktemp("port")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        configs = make_config(directory / "config")
        process = started(["paychan", "run", str(configs)], directory / "state", {"PORT": str(port)})
        yield process, port
        if process.poll() is None:
            process.terminate()
            process.wait(30)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every row's process, ended."""

    base = tmp_path_factory.mktemp("refused")

    def row(case: Refusal) -> dict:
        directory = base / str(TABLE.index(case))
        configs = prepare(case, directory)
        arguments = ["run", str(configs)] if case.command == "run" else [str(configs / case.file)]
        env = {"PAYCHAN_STATE_DIR": str(directory / "state"), "PORT": str(free_port()), **case.env}
        return {"arguments": arguments, "env": env, "output": str(directory / "out")}

    found = {}
    for command, module in COMMANDS.items():
        cases = [case for case in TABLE if case.command == command]
        done = run_rows(module, [row(case) for case in cases], SECONDS_MAX * len(cases))
        found.update(zip((case.name for case in cases), done, strict=True))
    return found


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_a_bad_configuration_exits_with_2_and_one_line(outcomes, case):
    outcome = outcomes[case.name]
    assert outcome.returncode == 2, outcome.stderr
    assert outcome.stdout == ""
    (line,) = outcome.stderr.splitlines()
    command = "paychan" if case.command == "run" else f"paychan-{case.command.removeprefix('paychan.')}"
    assert re.match(rf"{command}: \S+/{re.escape(case.file)}: ", line)
    named = line.split(f"{case.file}: ", 1)[1]
    assert named.startswith(case.key), line
    assert named.removeprefix(case.key)[:1] in (":", " "), line
    assert not any(key in outcome.stderr for key in SAMPLE_KEYS)


@pytest.mark.parametrize(
    "arguments", [["paychan"], ["paychan", "run"], ["paychan", "walk"], ["paychan.server"], ["store"], ["signer"]]
)
def test_a_wrong_command_line_exits_with_2_and_the_usage(tmp_path, arguments):
    outcome = attempt(arguments, tmp_path)
    assert outcome.returncode == 2
    assert "usage" in outcome.stderr.lower()


# --- what is another's ---


def complaints(outcome: subprocess.CompletedProcess[str]) -> list[str]:
    """Check that a command refused to start; return what it said, without the processes' log lines."""
    assert outcome.returncode == 2, outcome.stderr
    assert "ready http" not in outcome.stdout
    assert "Traceback" not in outcome.stderr
    return [line for line in outcome.stderr.splitlines() if line.startswith("paychan")]


def refusal_on(system_dir: Path, changes: dict[str, dict[str, str]] | None = None) -> list[str]:
    """Try to start a system on `system_dir`/state; it must end with status 2. Return its complaints."""
    configs = make_config(system_dir / "config2", changes)
    lines = complaints(attempt(["paychan", "run", str(configs)], system_dir / "state"))
    shutil.rmtree(configs)
    return lines


def test_a_second_system_on_the_same_state_and_the_first_goes_on(tmp_path):
    with running(tmp_path) as system:
        payer = system.payer("second system")
        assert payer.open().status == 201
        second = started(["paychan", "run", str(system.config_dir)], system.state_dir)
        alone = {
            name: complaints(attempt([name, str(system.config_dir / f"{name}.toml")], system.state_dir))
            for name in ("store", "signer")
        }
        for name, (line,) in alone.items():
            assert re.match(rf"paychan-{name}: \S+/{name}\.toml: state_dir: another ", line)
        (line,) = complaints(ended(second))
        assert re.match(r"paychan: \S+/server\.toml: state_dir: another ", line)
        payer.client = system.client()  # the first connection was idle for too long
        assert payer.pay(1).json["value_received"] == 1
        assert "restarting" not in "".join(system.output)


@postgres.embedded_only
def test_a_state_of_another_key_network_or_shard_count(tmp_path):
    """The signer's memory refuses first; without it, the store does."""
    with running(tmp_path) as system:
        assert system.payer("moved").open().status == 201
    state = tmp_path / "state"
    own_key = (state / "signer.key").read_text().strip()
    regtest = {
        "server.toml": {"network": 'network = "regtest"', "backend": 'backend = "fixture"\nfixture_file = "none.json"'},
        "store.toml": {"network": 'network = "regtest"'},
        "signer.toml": {"network": 'network = "regtest"'},
    }

    write_key(state, OTHER_KEY)
    assert re.match(r"paychan-signer: \S+/signer\.toml: ", refusal_on(tmp_path)[0])
    write_key(state, own_key)
    assert re.match(r"paychan-signer: \S+/signer\.toml: ", refusal_on(tmp_path, regtest)[0])

    def refusal_of_the_store(changes: dict[str, dict[str, str]] | None = None) -> str:
        shutil.rmtree(state / "signer")
        lines = refusal_on(tmp_path, changes)
        assert lines[-1] == "paychan: store did not start"
        return lines[0]

    assert re.match(r"paychan-store: \S+/store\.toml: network: .* for network test$", refusal_of_the_store(regtest))
    shards = {"store.toml": {"shard_count": "shard_count = 128"}}
    assert re.match(r"paychan-store: \S+/store\.toml: store\.shard_count: .* 256 shards$", refusal_of_the_store(shards))
    write_key(state, OTHER_KEY)
    assert re.match(r"paychan-store: \S+/store\.toml: store\.server_pubkey: .* another server key$", refusal_of_the_store())


def test_a_key_file_that_others_can_read(tmp_path):
    write_key(tmp_path / "state", OTHER_KEY)
    (tmp_path / "state" / "signer.key").chmod(0o640)
    lines = refusal_on(tmp_path)
    assert re.match(r"paychan-signer: \S+/signer\.toml: signer\.key_file: \S+: is open to group or others", lines[0])
    assert OTHER_KEY not in "".join(lines)


def test_a_port_that_is_taken(waits_for_port):
    process, port = waits_for_port
    lines = complaints(ended(process))
    assert re.match(rf"paychan-server: \S+/server\.toml: http\.port: 127\.0\.0\.1:{port}: ", lines[0])
    assert lines[-1] == "paychan: server did not start"
