"""Aim: what would lose money or a key does not start. Method: a table of changes to complete configurations for real money, each
run
by the real command's `main` in a process of its own, which must end with status 2 and one line that names file and key. Each row
says what would be lost.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bitcoin.base58 import CBase58Data
from bitcoin.segwit_addr import CHARSET, bech32_hrp_expand, bech32_polymod, convertbits
from coincurve import PrivateKey

from paychan.settings.dangers import PUBLISHED_PUBKEYS, hash160
from paychan.settings.load import load_server_config, load_signer_config, load_store_config
from tests.hostile.forked import run_rows
from tests.unit.settings.test_config import LIVE_ADDRESS, SAMPLE_KEYS, TEST_ADDRESS, changed

OWN_KEY = "11" * 32
SAMPLE_PUBKEY = bytes.fromhex(min(PUBLISHED_PUBKEYS))
COMMANDS = {"server": "paychan.server", "store": "store", "signer": "signer"}
ESPLORA = {"chain.backend": "esplora", "bitcoind": None}


@dataclass(frozen=True)
class Danger:
    """`why`: what is lost. `changes`: of the complete live configuration, by dotted key. files: name (below the state directory) to
    (text, mode)."""

    process: str
    key: str
    changes: dict[str, object]
    why: str
    env: dict[str, str] = field(default_factory=dict)
    files: dict[str, tuple[str, int]] = field(default_factory=dict)


def address_of(pubkey: bytes) -> str:
    return str(CBase58Data.from_bytes(hash160(pubkey), 0))


def segwit_of(program: bytes, version: int) -> str:
    """Return a live network's address of a witness program."""
    values = [version, *convertbits(program, 8, 5)]
    left = bech32_polymod(bech32_hrp_expand("bc") + values + [0] * 6) ^ (0x2BC830A3 if version else 1)
    return "bc1" + "".join(CHARSET[value] for value in [*values, *(left >> 5 * (5 - place) & 31 for place in range(6))])


def server(key: str, value: object, why: str, **others: object) -> Danger:
    """A row that changes one key of the server's."""
    return Danger("server", key, {key: value, **{name.replace("__", "."): given for name, given in others.items()}}, why)


def signer(key: str, value: object, why: str) -> Danger:
    return Danger("signer", key, {key: value}, why)


def esplora(key: str, why: str, urls: list[str], **changes: object) -> Danger:
    return Danger("server", key, {**ESPLORA, "esplora.urls": urls, **{f"esplora.{k}": v for k, v in changes.items()}}, why)


TABLE = [
    # not for real money
    server("debug.enable", True, "debug mode takes payments for coins that do not exist"),
    Danger("store", "debug.enable", {"debug.enable": True}, "as above"),
    signer("debug.enable", True, "debug mode signs without proof of funding"),
    signer("debug.waive_funding_proof", True, "the signer would sign for amounts that it is told"),
    server("chain.backend", "debug", "every channel would be funded by assertion"),
    Danger(
        "server", "chain.backend", {"chain.backend": "fixture", "chain.fixture_file": "f.json"}, "coins from a file are not coins"
    ),
    Danger(
        "server",
        "debug.enable",
        {},
        "a clock that starts elsewhere reopens expired channels",
        {"PAYCHAN_CLOCK_START": "1500000000"},
    ),
    Danger("signer", "debug.enable", {}, "as above", {"PAYCHAN_CLOCK_START": "1500000000"}),
    # channels on sand
    server("open.funding_tx_min_conf", 0, "an unconfirmed funding output can be spent again at no cost"),
    server("open.confirmations_from", [], "large outputs for one block are worth a miner's double spend"),
    server("open.confirmations_from", [[1000000, 6], [5000000, 3]], "the larger would need fewer blocks than meant"),
    server("open.confirmations_from", [[5000000, 6], [1000000, 7]], "rows out of order are a slip, and which holds is not plain"),
    server(
        "open.base_price",
        700,
        "an opening that does not pay for its own settlement is a gift",
        settlement__fee_per_byte=500,
        open__price="fixed",
        open__price_add_settlement_fee=False,
    ),
    server("open.funding_value_max", None, "without a bound one channel can hold everything"),
    server("open.funding_value_max", 1000, "no channel can be opened: a limit that was misread as bitcoins"),
    server("open.duration_hours_min", 0, "channels would be settled before they are paid on, at our cost"),
    server("open.duration_hours_max", 876000, "what is received stays unsettled for a century, on one key and one disk"),
    server("open.duration_hours_max", 24, "must exceed the minimum, or nothing can be opened"),
    # settlements that do not come in time
    server("settlement.period_hours", 1, "a settlement that waits for a block misses the expiry, and the payer takes all back"),
    server("settlement.period_hours", 3, "as above: six blocks can take 2.8 h, and clocks of blocks drift by 2 h"),
    server("settlement.confirmations", 1, "a reorganisation undoes a settlement that nobody looks at any more"),
    server("settlement.fee_per_byte_max", 5, "settlements would be stuck in every rise of fees"),
    server("settlement.fee_per_byte_max", 1, "the ceiling is below the floor"),
    server("settlement.fee_per_byte_min", 100, "channels could be opened that never pay for their settlement"),
    server("settlement.fee_per_byte", 0, "channels could be opened that never pay for their settlement"),
    signer("policy.fee_per_byte_max", 1, "no settlement would be signed in time"),
    signer("policy.fee_per_byte_max", 50000, "a broken-into server could burn nearly everything as fees"),
    signer("policy.fee_share_percent_max", 100, "a broken-into server could burn everything as fees"),
    signer("policy.versions_max", 1, "no fee could ever be raised"),
    signer("policy.settlement_period_hours", 73, "a broken-into server could burn nearly everything, days before it is urgent"),
    signer("policy.fee_sum_per_day_max", 1000, "no settlement would be signed before it is urgent"),
    # exposure
    server("exposure.channel_value_max", None, "what can be lost on one channel is not bounded"),
    server("exposure.total_value_max", None, "what can be lost at once is not bounded"),
    server("exposure.channel_value_max", 2100000000000000, "a bound above the largest funding output bounds nothing"),
    server("exposure.channel_value_max", 0, "each channel would be settled at its opening, at our cost"),
    server("exposure.unsettled_value_max", 51999999, "payments would stop each time that channels settle"),
    server("exposure.total_value_max", 1000000, "one channel may hold more than all together: a slip of units"),
    # keys and destinations
    signer("policy.funds_destination_address", TEST_ADDRESS, "an address of another network pays nobody"),
    signer("policy.funds_destination_address", "BC1SW50QGDZ25J", "a witness version that nobody has: anybody may spend it"),
    signer("policy.funds_destination_address", segwit_of(hash160(SAMPLE_PUBKEY), 0), "its key is published: anybody can spend it"),
    signer("policy.funds_destination_address", segwit_of(SAMPLE_PUBKEY[1:], 1), "its key is published: anybody can spend it"),
    signer("policy.funds_destination_address", "1BitcoinEaterAddressDontSendf59kuE", "nobody has that key"),
    signer("policy.funds_destination_address", "1111111111111111111114oLvT2", "nobody has that key"),
    signer(
        "policy.funds_destination_address", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "a sample from a guide belongs to somebody else"
    ),
    *(
        signer("policy.funds_destination_address", address_of(bytes.fromhex(pubkey)), "its key is published: anybody can spend it")
        for pubkey in sorted(PUBLISHED_PUBKEYS)
    ),
    Danger(
        "signer",
        "policy.funds_destination_address",
        {"policy.funds_destination_address": address_of(PrivateKey(bytes.fromhex(OWN_KEY)).public_key.format())},
        "what is settled would lie on the machine that faces the network",
    ),
    *(
        Danger("signer", "signer.key_file", {}, "a published key: anybody could sign", files={"signer.key": (key + "\n", 0o600)})
        for key in SAMPLE_KEYS
    ),
    Danger("signer", "signer.key_file", {}, "a key that others can read is theirs", files={"signer.key": (OWN_KEY + "\n", 0o644)}),
    Danger("signer", "signer.key_file", {}, "as above, for the group", files={"signer.key": (OWN_KEY + "\n", 0o640)}),
    signer("signer.key_file", "missing.key", "a new key would settle nothing of what is open"),
    signer("signer.key_file", "../../key", "a way upwards ends where nobody meant"),
    signer("signer.public_key_file", "signer.key", "the secret key would be overwritten by the public one"),
    Danger("store", "store.server_pubkey_file", {"store.server_pubkey_file": "../signer.pub"}, "a way upwards, as above"),
    # who may connect, and who listens on the way
    server("processes.store", "tcp:127.0.0.1:17000", "every user of the machine could write to the store, or be it"),
    server("processes.signer", "tcp:127.0.0.1:17001", "every user of the machine could ask for signatures"),
    server("processes.store", "tcp:0.0.0.0:17000", "everybody could"),
    server("processes.signer", "unix:/tmp/signer.sock", "whoever makes that file first is the signer"),
    server("processes.store", "unix:../store.sock", "a way upwards, as above"),
    Danger("store", "store.address", {"store.address": "tcp:127.0.0.1:17000"}, "every user of the machine could write"),
    Danger("store", "store.address", {"store.address": "tcp:0.0.0.0:17000"}, "everybody could write"),
    Danger("store", "store.address", {"store.address": "unix:/tmp/store.sock"}, "outside the directory that only we may enter"),
    signer("signer.address", "tcp:127.0.0.1:17001", "every user of the machine could ask for signatures"),
    signer("signer.address", "tcp:0.0.0.0:17001", "everybody could ask for signatures"),
    server("http.host", "0.0.0.0", "plain HTTP for everybody: who reads a payment on the way can close its channel"),
    server("http.host", "::", "as above"),
    server("http.host", "8.8.8.8", "as above"),
    server("http.host", "::ffff:0.0.0.0", "as above: all of IPv4, written as IPv6"),
    server("http.host", "*", "no address; all of them, as meant, would be as above"),
    server("http.host", "[::1]", "no address: the server would end in a traceback, for ever"),
    server("http.host", "pay.example.com", "as above"),
    server("http.public_url", "http://pay.example.com", "as above"),
    server("http.public_url", "HTTP://pay.example.com", "as above, in capitals"),
    server("http.public_url", "https://user:secret@pay.example.com", "the password would be in every Location header"),
    server("http.public_url", "https://pay.example.com/?a=b", "Locations would be no URLs of ours: payers could not pay"),
    server("http.public_url", "https://[", "as above"),
    server("direct.public_host", "pay.example.com", "own ports speak plain HTTP, as above", direct__base_port=8001),
    server("direct.public_host", "127.0.0.1", "payers would be sent to a port that nobody listens on"),
    server("direct.public_host", "a\r\nx: y", "a header of somebody else's choice", direct__base_port=8001),
    server("direct.base_port", 8000, "two doors on one port: which one answers is a matter of luck"),
    # the chain
    server("chain.tip_age_minutes_max", 100000, "a node that is stuck would be believed, and refunds go unseen"),
    server("chain.lookups_per_second", 10000, "a flood of opens would keep the node from telling us of blocks"),
    server("bitcoind.host", "10.0.0.7", "RPC is not encrypted: password and answers could be read and changed on the way"),
    server("bitcoind.host", "::ffff:10.0.0.7", "as above, written as IPv6"),
    server("bitcoind.host", "127.0.0.1:8332", "no host: no node is ever found, and no block seen"),
    server("bitcoind.host", "http://127.0.0.1", "as above"),
    server("bitcoind.port", 18332, "the node of another network sees no coins of ours"),
    server("bitcoind.port", 18443, "as above; on regtest anybody makes blocks"),
    Danger(
        "server",
        "bitcoind.password_file",
        {"bitcoind.cookie_file": None, "bitcoind.user": "paychan", "bitcoind.password_file": "password"},
        "others could use the node, and its wallets",
        files={"password": ("a-good-one-6a1f", 0o644)},
    ),
    Danger(
        "server",
        "bitcoind.password_file",
        {"bitcoind.cookie_file": None, "bitcoind.user": "paychan", "bitcoind.password_file": "password"},
        "the password of every guide is everybody's",
        files={"password": ("rpcpassword\n", 0o600)},
    ),
    Danger(
        "server",
        "bitcoind.cookie_file",
        {"bitcoind.cookie_file": ".cookie"},
        "others could use the node",
        files={".cookie": ("__cookie__:x", 0o644)},
    ),
    server("bitcoind.cookie_file", None, "without credentials there is no node, and no block is seen"),
    Danger(
        "server",
        "bitcoind.cookie_file",
        {"bitcoind.user": "u", "bitcoind.password_file": "p"},
        "two credentials: which holds is luck",
    ),
    esplora("esplora.agree", "one server could invent coins, or hide refunds", ["https://a.example", "https://b.example"], agree=1),
    esplora("esplora.agree", "the only server could invent coins", ["https://a.example"]),
    esplora("esplora.urls", "whoever is on the way could be all of them", ["http://a.example", "https://b.example"]),
    esplora("esplora.urls", "a server that agrees with itself", ["https://a.example", "https://a.example/api"]),
    esplora("esplora.urls", "as above, with a dot", ["https://a.example", "https://a.example./api"]),
    esplora("esplora.urls", "no server of that name is ever found", ["https://a..example", "https://b.example"]),
    esplora("esplora.urls", "another network's coins", ["https://a.example/testnet/api", "https://b.example"]),
    esplora("esplora.urls", "credentials would be in the log", ["https://u:p@a.example", "https://b.example"]),
    esplora("esplora.urls", "no server, no chain", ["https://[", "https://b.example"]),
    # where the state is
    server("state_dir", "/dev/shm/paychan", "the key and all payments are gone after a restart of the machine"),
    Danger("store", "state_dir", {"state_dir": "/run/paychan"}, "as above"),
    signer("state_dir", "/", "the root directory is open to all"),
    Danger("store", "state_dir", {"state_dir": "state/../../elsewhere"}, "a way upwards ends where nobody meant"),
    signer("state_dir", "a\0b", "no file can have that name"),
    # slips
    server("exposure.chanel_value_max", 1000, "a misspelt limit is no limit"),
    signer("policy.fee_per_bytes_max", 100, "as above"),
    Danger("store", "store.lease", {"store.lease": 3000}, "as above"),
    signer("network", "mainnet", "a network that nobody knows"),
]
COMPLETE: dict[str, dict[str, object]] = {
    "server": {"bitcoind.cookie_file": "/node/.cookie"},
    "store": {},
    "signer": {"policy.funds_destination_address": LIVE_ADDRESS},
}


def text_of(danger: Danger) -> str:
    """Return the configuration. `changed` writes texts as TOML takes them literally, which NUL cannot be."""
    changes = {**COMPLETE[danger.process], **danger.changes}
    if "bitcoind" in changes:
        del changes["bitcoind.cookie_file"]
    return changed("live", danger.process, changes).replace("'a\\x00b'", '"a\\u0000b"')


def prepare(danger: Danger, directory: Path) -> dict:
    """Write the row's files; return the row as forked.py takes it."""
    state = directory / "state"
    state.mkdir(parents=True, mode=0o700)
    for name, (content, mode) in {"signer.key": (OWN_KEY + "\n", 0o600), **danger.files}.items():
        (state / name).touch(mode=0o600)
        (state / name).write_text(content)
        (state / name).chmod(mode)
    file = directory / f"{danger.process}.toml"
    file.write_text(text_of(danger))
    own_state = {} if "state_dir" in danger.changes else {"PAYCHAN_STATE_DIR": str(state)}
    return {"arguments": [str(file)], "env": {**own_state, **danger.env}, "output": str(directory / "out")}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """(exit status, stdout, stderr) of every row's command."""
    base = tmp_path_factory.mktemp("dangers")

    def attempt(process: str) -> dict[int, tuple[int, str, str]]:
        rows = {number: prepare(danger, base / str(number)) for number, danger in enumerate(TABLE) if danger.process == process}
        done = run_rows(COMMANDS[process], list(rows.values()))
        return {number: (one.returncode, one.stdout, one.stderr) for number, one in zip(rows, done, strict=True)}

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(attempt, COMMANDS))
    return {number: outcome for part in found for number, outcome in part.items()}


@pytest.mark.parametrize("number", range(len(TABLE)), ids=lambda number: f"{number}-{TABLE[number].process}-{TABLE[number].key}")
def test_a_dangerous_configuration_does_not_start(outcomes, number):
    danger = TABLE[number]
    status, stdout, stderr = outcomes[number]
    assert status == 2, (danger.why, stderr[-500:])
    assert stdout == ""
    (line,) = stderr.splitlines()
    start = f"{danger.process}.toml: {danger.key}: "
    assert start in line, line
    assert not any(key in line for key in (*SAMPLE_KEYS, OWN_KEY))
    assert danger.why


def test_the_table_is_long_enough_and_the_complete_configurations_load(tmp_path):
    assert len(TABLE) >= 40
    for process, load in (("server", load_server_config), ("store", load_store_config), ("signer", load_signer_config)):
        file = tmp_path / f"{process}.toml"
        file.write_text(changed("live", process, COMPLETE[process]))
        load(file, {})
