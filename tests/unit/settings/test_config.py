"""Aim: a configuration that must not run does not run, and says why. Method: a table of bad ones, one change each.

Every complaint is one line that names the file and the key.
"""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from coincurve import PrivateKey

from paychan.core.errors import ConfigError
from paychan.core.fees import settlement_price
from paychan.core.settlement import SETTLEMENT_SIZE_MAX
from paychan.core.units import MAX_MONEY
from paychan.settings.load import load_server_config, load_signer_config, load_store_config
from signer.keys import load_key

CONFIGS = Path(__file__).parents[3] / "config"
LOADERS = {"server": load_server_config, "store": load_store_config, "signer": load_signer_config}
LIVE_ADDRESS = "1BoatSLRHtKNngkdXEeobR76b53LETtpyT"
TEST_ADDRESS = "mm9mm96b8bZRBacaAvY5MEeDd6HW46qFcY"
SAMPLE_KEYS = [  # printed in the original's repository and in our vectors
    "9b4b4cf8f8796ca8a3a8a3da5c73deeb7c558a89e3752b896349ec58c010879d",
    "456af7395529404380edc4fa35a161e096aa510610b98d3d219dc178dc58c1d7",
    "e6639c6c909c1cf6a915476103ac802f175e25577e0090ffb32936d9da301efe",
]


def toml(table: dict, name: str = "") -> str:
    """Return a table of texts, numbers, booleans and tables as TOML."""
    rows = [f"{key} = {_value(value)}" for key, value in table.items() if not isinstance(value, dict)]
    parts = [toml(value, key) for key, value in table.items() if isinstance(value, dict)]
    return "\n".join([f"[{name}]"] * bool(name) + rows + parts) + "\n"


def _value(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def changed(kind: str, process: str, changes: dict) -> str:
    """Return a shipped configuration with some values (by dotted key) replaced; None removes one."""
    table = tomllib.loads((CONFIGS / kind / f"{process}.toml").read_text())
    for path, value in changes.items():
        *parents, key = path.split(".")
        place = table
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            del place[key]
        else:
            place[key] = value
    return toml(table)


def complaint(tmp_path: Path, process: str, text: str, env: dict | None = None) -> str:
    path = tmp_path / f"{process}.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        LOADERS[process](path, env or {})
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize("process", LOADERS)
@pytest.mark.parametrize(("kind", "network"), [("debug", "test"), ("regtest", "regtest")])
def test_shipped_configurations_load(kind, network, process):
    config = LOADERS[process](CONFIGS / kind / f"{process}.toml", {})
    assert (config.common.network.name, config.common.debug) == (network, kind == "debug")


@pytest.mark.parametrize("kind", ["live", "test"])
@pytest.mark.parametrize(
    ("process", "key"), [("server", "bitcoind.cookie_file"), ("signer", "policy.funds_destination_address")]
)
def test_a_form_names_what_the_operator_must_fill_in_and_nothing_else(kind, process, key):
    path = CONFIGS / kind / f"{process}.toml"
    with pytest.raises(ConfigError) as caught:
        LOADERS[process](path, {})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}: {key}: ")


@pytest.mark.parametrize(("kind", "address"), [("live", LIVE_ADDRESS), ("test", TEST_ADDRESS)])
def test_a_form_that_is_filled_in_loads(tmp_path, kind, address):
    filled = {"server": {"bitcoind.cookie_file": "/node/.cookie"}, "signer": {"policy.funds_destination_address": address}}
    for process, load in LOADERS.items():
        path = tmp_path / f"{process}.toml"
        path.write_text(changed(kind, process, filled.get(process, {})))
        config = load(path, {})
        assert (config.common.network.name, config.common.debug) == (kind, False)
    server = load_server_config(tmp_path / "server.toml", {})
    assert server.total_exposure_max > server.channel_exposure_max
    assert server.funding_value_max >= server.channel_exposure_max > server.open_price
    assert [server.confirmations_needed(value) for value in (1, 1_000_000, 5_000_000)] == [1, 3, 6]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 2**64 - 1),
        ({"total_value_max": 7_000_000}, 14_000_000),
        ({"total_value_max": 7_000_000, "unsettled_value_max": 9_000_000}, 9_000_000),
        ({"unsettled_value_max": 5}, 5),
    ],
)
def test_what_may_be_unsettled_follows_what_may_be_open_unless_it_is_said(tmp_path, limits, expected):
    path = tmp_path / "server.toml"
    path.write_text(changed("regtest", "server", {f"exposure.{key}": value for key, value in limits.items()}))
    assert load_server_config(path, {}).unsettled_value_max == expected


def test_nothing_sells_unless_it_is_configured(tmp_path):
    def sell(shipped="regtest", **section: object):
        path = tmp_path / "server.toml"
        path.write_text(changed(shipped, "server", {f"sell.{key}": value for key, value in section.items()}))
        return load_server_config(path, {"PAYCHAN_STATE_DIR": str(tmp_path / "state")}).sell

    assert not sell().is_on and sell("debug").is_on
    assert sell(socket="run/sell.sock").socket == tmp_path / "state/run/sell.sock"
    assert sell(port=8443).is_on and sell(port=8443).host == "127.0.0.1"
    over = sell(port=8443, host="0.0.0.0", tls_key="k.pem", tls_certificate="/etc/c.pem")
    assert (over.tls_key, over.tls_certificate) == (tmp_path / "state/k.pem", Path("/etc/c.pem"))


def test_a_key_that_others_may_read_is_refused(tmp_path):
    key = tmp_path / "k.pem"
    key.touch(mode=0o644)
    key.chmod(0o644)
    changes = {"sell.port": 8443, "sell.tls_key": str(key), "sell.tls_certificate": "c.pem"}
    assert complaint(tmp_path, "server", changed("debug", "server", changes)).startswith("sell.tls_key: ")


def test_the_node_s_credentials_are_relative_to_the_state_directory(tmp_path):
    def chain(**bitcoind: object):
        changes = {"bitcoind.cookie_file": None, **{f"bitcoind.{key}": value for key, value in bitcoind.items()}}
        path = tmp_path / "server.toml"
        path.write_text(changed("regtest", "server", changes))
        return load_server_config(path, {"PAYCHAN_STATE_DIR": "/elsewhere"}).chain

    assert chain(cookie_file="node.cookie").bitcoind_cookie_file == Path("/elsewhere/node.cookie")
    assert chain(cookie_file="/node/.cookie").bitcoind_cookie_file == Path("/node/.cookie")
    assert chain(user="u", password_file="password").bitcoind_password_file == Path("/elsewhere/password")


COMMON = [
    ({"network": "mainnet"}, "network"),
    ({"network": None}, "network"),
    ({"network": 1}, "network"),
    ({"network": ""}, "network"),
    ({"network": "live"}, "debug.enable"),
    ({"state_dir": None}, "state_dir"),
    ({"state_dir": ""}, "state_dir"),
    ({"state_dir": 7}, "state_dir"),
    ({"debug.enable": "yes"}, "debug.enable"),
    ({"debug.enable": 1}, "debug.enable"),
    ({"debug.dry_run": True}, "debug.dry_run"),
    ({"debug": 1}, "debug"),
    ({"colour": "red"}, "colour"),
]
SERVER = [
    ({"sell.socket": 7}, "sell.socket"),
    ({"sell.socket": "/tmp/sell.sock"}, "sell.socket"),
    ({"sell.socket": "../sell.sock"}, "sell.socket"),
    ({"sell.port": -1}, "sell.port"),
    ({"sell.port": "8443"}, "sell.port"),
    ({"sell.port": 8443, "sell.host": "0.0.0.0"}, "sell.tls_key"),
    ({"sell.port": 8443, "sell.host": "shop.example.com"}, "sell.host"),
    ({"sell.port": 8443, "sell.tls_key": "key.pem"}, "sell.tls_key"),
    ({"sell.port": 8443, "sell.tls_certificate": "cert.pem"}, "sell.tls_key"),
    ({"sell.host": "127.0.0.1"}, "sell.port"),
    ({"sell.tls_key": "key.pem", "sell.tls_certificate": "cert.pem"}, "sell.port"),
    ({"sell.token": "pct_"}, "sell.token"),
    ({"http.port": 0}, "http.port"),
    ({"http.port": 65536}, "http.port"),
    ({"http.port": "8000"}, "http.port"),
    ({"http.port": True}, "http.port"),
    ({"http.port": 8000.0}, "http.port"),
    ({"http.port": None}, "http.port"),
    ({"http.workers": 0}, "http.workers"),
    ({"http.workers": 257}, "http.workers"),
    ({"http.host": ""}, "http.host"),
    ({"http.prot": 8000}, "http.prot"),
    ({"http.public_url": "pay.example.com"}, "http.public_url"),
    ({"processes.store": None}, "processes.store"),
    ({"processes.store": "unix:"}, "processes.store"),
    ({"processes.store": "run/store.sock"}, "processes.store"),
    ({"processes.store": "tcp:0.0.0.0:17000"}, "processes.store"),
    ({"processes.signer": "tcp:192.168.1.1:17001"}, "processes.signer"),
    ({"processes.signer": "tcp:127.0.0.1:0"}, "processes.signer"),
    ({"processes.signer": "tcp:127.0.0.1:65536"}, "processes.signer"),
    ({"chain.backend": "bitcoin"}, "chain.backend"),
    ({"chain.backend": ""}, "chain.backend"),
    ({"chain.backend": "fixture"}, "chain.fixture_file"),
    ({"debug.enable": False}, "chain.backend"),
    ({"network": "regtest"}, "chain.backend"),
    ({"open.base_price": -1}, "open.base_price"),
    ({"open.base_price": 70000.5}, "open.base_price"),
    ({"open.base_price": 2_100_000_000_000_001}, "open.base_price"),
    ({"open.price_add_settlement_fee": "true"}, "open.price_add_settlement_fee"),
    ({"open.funding_tx_min_conf": -1}, "open.funding_tx_min_conf"),
    ({"open.duration_hours_min": 876000}, "open.duration_hours_max"),
    ({"open.duration_hours_max": 0}, "open.duration_hours_max"),
    ({"settlement.period_hours": 0}, "settlement.period_hours"),
    ({"settlement.fee_per_byte": 0}, "settlement.fee_per_byte"),
    ({"settlement.fee_per_byte": None}, "settlement.fee_per_byte"),
    ({"settlement": 6}, "settlement"),
]
STORE = [
    ({"store.address": None}, "store.address"),
    ({"store.address": "http://127.0.0.1:1"}, "store.address"),
    ({"store.shard_count": 0}, "store.shard_count"),
    ({"store.lease_ms": 199}, "store.lease_ms"),
    ({"store.server_pubkey": "02" * 32}, "store.server_pubkey"),
    ({"store.server_pubkey": "04" + "11" * 32}, "store.server_pubkey"),
    ({"store.server_pubkey": "02" + "gg" * 32}, "store.server_pubkey"),
    ({"store.server_pubkey_file": ""}, "store.server_pubkey_file"),
    ({"store.engine": "lmdb"}, "store.engine"),
]
SIGNER = [
    ({"signer.address": None}, "signer.address"),
    ({"signer.address": "tcp:0.0.0.0:17002"}, "signer.address"),
    ({"signer.key_file": ""}, "signer.key_file"),
    ({"signer.key_file": 5}, "signer.key_file"),
    ({"signer.private_key": "00"}, "signer.private_key"),
    ({"debug.enable": False}, "debug.waive_funding_proof"),
    ({"debug.waive_funding_proof": 1}, "debug.waive_funding_proof"),
    ({"policy.funds_destination_address": None}, "policy.funds_destination_address"),
    ({"policy.funds_destination_address": ""}, "policy.funds_destination_address"),
    ({"policy.funds_destination_address": LIVE_ADDRESS}, "policy.funds_destination_address"),
    ({"policy.funds_destination_address": TEST_ADDRESS[:-1]}, "policy.funds_destination_address"),
    (
        {"policy.funds_destination_address": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"},
        "policy.funds_destination_address",
    ),
    ({"policy.fee_per_byte_max": 0}, "policy.fee_per_byte_max"),
    ({"policy.fee_share_percent_max": 101}, "policy.fee_share_percent_max"),
    ({"policy.fee_share_percent_max": 0}, "policy.fee_share_percent_max"),
    ({"policy.versions_max": 0}, "policy.versions_max"),
    ({"policy.settlement_period_hours": 0}, "policy.settlement_period_hours"),
    ({"policy.fee_sum_per_day_max": -1}, "policy.fee_sum_per_day_max"),
    ({"policy.velocity": 1}, "policy.velocity"),
]
TABLE = [("server", *row) for row in COMMON + SERVER] + [("store", *row) for row in COMMON + STORE]
TABLE += [("signer", *row) for row in COMMON + SIGNER]


@pytest.mark.parametrize(("process", "changes", "key"), TABLE, ids=str)
def test_a_bad_value_is_refused_by_name(tmp_path, process, changes, key):
    assert complaint(tmp_path, process, changed("debug", process, changes)).startswith(f"{key}: ")


LIVE = [
    ("server", {"chain.backend": "debug"}, "chain.backend"),
    ("server", {"chain.backend": "fixture", "chain.fixture_file": "x.json"}, "chain.backend"),
    ("server", {"debug.enable": True}, "debug.enable"),
    ("store", {"debug.enable": True}, "debug.enable"),
    ("signer", {"debug.enable": True}, "debug.enable"),
    ("signer", {"debug.waive_funding_proof": True}, "debug.waive_funding_proof"),
    ("signer", {"policy.funds_destination_address": TEST_ADDRESS}, "policy.funds_destination_address"),
]


@pytest.mark.parametrize(("process", "changes", "key"), LIVE, ids=str)
def test_what_loses_money_is_refused_on_mainnet(tmp_path, process, changes, key):
    assert complaint(tmp_path, process, changed("live", process, changes)).startswith(f"{key}: ")


COOKIE = {"bitcoind.cookie_file": "/node/.cookie"}
FIXED = {**COOKIE, "open.price": "fixed", "open.price_add_settlement_fee": True}


def test_a_base_price_that_does_not_pay_for_the_settlement_is_refused_outside_debug(tmp_path):
    text = changed("test", "server", {**FIXED, "open.base_price": 700})
    assert complaint(tmp_path, "server", text).startswith("open.base_price: ")


@pytest.mark.parametrize("kind", ["live", "test"])
def test_the_price_is_the_settlement_s_where_the_chain_is_many_people_s(tmp_path, kind):
    def load(changes):
        path = tmp_path / "server.toml"
        path.write_text(changed(kind, "server", {**COOKIE, **changes}))
        return load_server_config(path, {})

    for told in ({}, {"open.price": None}):
        config = load(told)
        assert config.price_is_settlement and config.open_price == settlement_price(40, config.fee_bounds, SETTLEMENT_SIZE_MAX)
    assert load({"open.base_price": 5}).open_price == config.open_price + 5
    fixed = load({**FIXED, "open.base_price": 70_000})
    assert not fixed.price_is_settlement and fixed.open_price == 83_240


@pytest.mark.parametrize("kind", ["debug", "regtest"])
def test_the_price_is_the_recorded_one_elsewhere(kind):
    config = load_server_config(CONFIGS / kind / "server.toml", {})
    assert not config.price_is_settlement and config.open_price == {"debug": 83_240, "regtest": 5310}[kind]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"open.price": "cheap"}, "open.price"),
        ({"open.price": 5}, "open.price"),
        ({"open.price": "settlement", "open.price_add_settlement_fee": False}, "open.price_add_settlement_fee"),
        ({"open.price": None, "open.price_add_settlement_fee": True, "open.base_price": 70_000}, "open.price_add_settlement_fee"),
        ({"open.price": "fixed"}, "open.base_price"),
    ],
    ids=str,
)
def test_what_does_not_make_a_price_is_refused(tmp_path, changes, key):
    assert complaint(tmp_path, "server", changed("live", "server", {**COOKIE, **changes})).startswith(f"{key}: ")


ENVIRONMENT = [
    ("server", {"PORT": "0"}, "PORT"),
    ("server", {"PORT": "65536"}, "PORT"),
    ("server", {"PORT": "http"}, "PORT"),
    ("server", {"PORT": "-1"}, "PORT"),
    ("server", {"PORT": "٨٠٠٠"}, "PORT"),
    ("server", {"PAYCHAN_WORKERS": "0"}, "PAYCHAN_WORKERS"),
    ("server", {"PAYCHAN_WORKERS": "1.5"}, "PAYCHAN_WORKERS"),
    ("signer", {"PAYCHAN_CLOCK_START": "now"}, "PAYCHAN_CLOCK_START"),
    ("store", {"PAYCHAN_CLOCK_START": str(2**32)}, "PAYCHAN_CLOCK_START"),
]


@pytest.mark.parametrize(("process", "env", "key"), ENVIRONMENT, ids=str)
def test_a_bad_environment_variable_is_refused_by_name(tmp_path, process, env, key):
    assert complaint(tmp_path, process, changed("debug", process, {}), env).startswith(f"{key}: ")


@pytest.mark.parametrize("process", LOADERS)
@pytest.mark.parametrize("kind", ["test", "live"])
def test_a_clock_that_starts_elsewhere_is_refused_outside_debug(tmp_path, kind, process):
    env = {"PAYCHAN_CLOCK_START": "1466243362"}
    assert complaint(tmp_path, process, changed(kind, process, {}), env).startswith("debug.enable: ")


def test_the_environment_overrides_what_it_may(tmp_path):
    env = {
        "PORT": "8123",
        "PAYCHAN_WORKERS": "3",
        "PAYCHAN_STATE_DIR": str(tmp_path),
        "PAYCHAN_CLOCK_START": "1466243362",
    }
    config = load_server_config(CONFIGS / "debug" / "server.toml", env)
    assert (config.http_port, config.workers, config.common.clock_start) == (8123, 3, 1466243362)
    assert config.store.path == str(tmp_path / "run" / "store.sock")
    assert load_signer_config(CONFIGS / "debug" / "signer.toml", env).key_file == tmp_path / "signer.key"


@pytest.mark.parametrize("process", LOADERS)
def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path, process):
    with pytest.raises(ConfigError, match=r"^/nowhere/x\.toml: cannot be read"):
        LOADERS[process]("/nowhere/x.toml", {})
    assert "no TOML" in complaint(tmp_path, process, "network = \n\n???")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="no TOML"):
        LOADERS[process](tmp_path / "bytes", {})


# --- the signer's key is configuration too ----------------------------------------------------------------------------


def live_signer(tmp_path: Path):
    path = tmp_path / "signer.toml"
    changes = {"policy.funds_destination_address": LIVE_ADDRESS, "state_dir": str(tmp_path)}
    path.write_text(changed("live", "signer", changes))
    return path, load_signer_config(path, {})


def put_key(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o600)


@pytest.mark.parametrize("secret", SAMPLE_KEYS)
def test_a_published_key_is_refused_on_mainnet(tmp_path, secret):
    path, config = live_signer(tmp_path)
    put_key(config.key_file, secret + "\n")
    with pytest.raises(ConfigError, match=f"^{path}: signer.key_file: ") as caught:
        load_key(config)
    assert secret not in str(caught.value)


def test_a_key_of_ones_own_is_taken_on_mainnet(tmp_path):
    _, config = live_signer(tmp_path)
    key = PrivateKey()
    put_key(config.key_file, key.secret.hex() + "\n")
    assert load_key(config).secret == key.secret


def test_a_missing_key_is_refused_on_mainnet_and_not_made(tmp_path):
    path, config = live_signer(tmp_path)
    with pytest.raises(ConfigError, match=f"^{path}: signer.key_file: .*No such file"):
        load_key(config)
    assert not config.key_file.exists()


# --- paychan config check ---------------------------------------------------------------------------------------------


def check(directory: Path, state_dir: Path) -> tuple[int, list[str]]:
    """Return the command's exit status and what it complains about, without the directory's name."""
    env = {"PATH": "/usr/bin:/bin", "PAYCHAN_STATE_DIR": str(state_dir)}
    command = [sys.executable, "-m", "paychan", "config", "check", str(directory), "--json"]
    done = subprocess.run(command, env=env, cwd=CONFIGS.parent, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    return done.returncode, [line.removeprefix(f"{directory}/") for line in json.loads(done.stdout)["problems"]]


def filled_in(directory: Path) -> Path:
    cookie = directory / "cookie"
    cookie.touch(mode=0o600)
    for process, changes in (
        ("server", {"bitcoind.cookie_file": str(cookie)}),
        ("store", {}),
        ("signer", {"policy.funds_destination_address": LIVE_ADDRESS}),
    ):
        (directory / f"{process}.toml").write_text(changed("live", process, changes))
    return directory


def test_the_day_s_fees_are_bounded_with_real_money_unless_told_otherwise(tmp_path):
    unset = {"state_dir": str(tmp_path), "policy.settlement_period_hours": None, "policy.fee_sum_per_day_max": None}
    for kind, address, fee_sum in (("live", LIVE_ADDRESS, 5_000_000), ("test", TEST_ADDRESS, MAX_MONEY)):
        changes = {name: value for name, value in unset.items() if kind == "live" or value is not None}
        (tmp_path / "signer.toml").write_text(changed(kind, "signer", {**changes, "policy.funds_destination_address": address}))
        config = load_signer_config(tmp_path / "signer.toml", {})
        assert (config.settlement_period, config.fee_sum_per_day_max) == (6 * 3600, fee_sum)


def test_a_signer_that_would_refuse_what_is_urgent_for_the_server_is_named(tmp_path):
    directory, state = tmp_path / "live", tmp_path / "state"
    for place in (directory, state):
        place.mkdir(mode=0o700)
    filled_in(directory)
    signer = changed("live", "signer", {"policy.funds_destination_address": LIVE_ADDRESS, "policy.settlement_period_hours": 5})
    (directory / "signer.toml").write_text(signer)
    put_key(state / "signer.key", PrivateKey().secret.hex() + "\n")
    status, problems = check(directory, state)
    assert status == 2 and [problem.split(": ")[:2] for problem in problems] == [["signer.toml", "policy.settlement_period_hours"]]


@pytest.mark.parametrize("kind", ["live", "test"])
def test_the_check_of_a_form_names_three_things(tmp_path, kind):
    status, problems = check(CONFIGS / kind, tmp_path)
    assert status == 2
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["server.toml", "bitcoind.cookie_file"],
        ["signer.toml", "policy.funds_destination_address"],
        ["signer.toml", "signer.key_file"],
    ]
    assert str(tmp_path / "signer.key") in problems[2] and "--init" in problems[2]


def test_the_check_of_a_form_that_is_filled_in_finds_nothing(tmp_path):
    put_key(tmp_path / "signer.key", "11" * 32 + "\n")
    assert check(filled_in(tmp_path), tmp_path) == (0, [])


def test_the_check_looks_at_the_key_file_s_mode(tmp_path):
    put_key(tmp_path / "signer.key", "11" * 32 + "\n")
    (tmp_path / "signer.key").chmod(0o640)
    status, (problem,) = check(filled_in(tmp_path), tmp_path)
    assert status == 2
    assert problem.startswith("signer.toml: signer.key_file: ") and "0600" in problem


def test_the_check_wants_a_key_that_is_a_file(tmp_path):
    (tmp_path / "signer.key").mkdir(mode=0o700)
    _, (problem,) = check(filled_in(tmp_path), tmp_path)
    assert problem.endswith("is not a regular file")


def test_the_check_of_debug_mode_asks_for_no_key(tmp_path):
    assert check(CONFIGS / "debug", tmp_path) == (0, [])


def test_the_check_of_broken_files_says_so_once_for_each(tmp_path):
    for name in ("server.toml", "store.toml", "signer.toml"):
        (tmp_path / name).write_text("signer = 1\n?")
    status, problems = check(tmp_path, tmp_path)
    assert status == 2
    assert len(problems) == 3 and all("is no TOML" in problem for problem in problems)


def problems_of(tmp_path: Path, kind: str = "live", **changes: dict) -> list[str]:
    """Return what the check says of a shipped configuration that is filled in, and then changed."""
    put_key(tmp_path / "signer.key", "11" * 32 + "\n")
    (tmp_path / "cookie").touch(mode=0o600)
    fillings = {
        "server": {"bitcoind.cookie_file": "cookie"} if kind != "debug" else {},
        "store": {},
        "signer": {"policy.funds_destination_address": {"live": LIVE_ADDRESS}.get(kind, TEST_ADDRESS)},
    }
    for process, filling in fillings.items():
        (tmp_path / f"{process}.toml").write_text(changed(kind, process, filling | changes.get(process, {})))
    return check(tmp_path, tmp_path)[1]


def test_the_check_says_what_files_disagree_about_beside_their_own_mistakes(tmp_path):
    """One round, whatever is wrong: three files, a mistake each, that are for two networks and know two stores."""
    problems = problems_of(
        tmp_path,
        server={"chain.poll_seconds": 0, "processes.store": "unix:run/other.sock"},
        store={"store.lease_ms": 1, "network": "test"},
        signer={"signer.hardening_required": 1},
    )
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["server.toml", "chain.poll_seconds"],
        ["store.toml", "store.lease_ms"],
        ["signer.toml", "signer.hardening_required"],
        ["store.toml", "network"],
        ["server.toml", "processes.store"],
    ]


def test_what_is_wrong_already_is_not_compared(tmp_path):
    faults = {"server": {"processes.store": "elsewhere"}, "store": {"store.address": 5}, "signer": {"debug.enable": 1}}
    problems = problems_of(tmp_path, **faults)
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["server.toml", "processes.store"],
        ["store.toml", "store.address"],
        ["signer.toml", "debug.enable"],
    ]


def test_the_check_finds_a_public_key_that_the_signer_does_not_write(tmp_path):
    (problem,) = problems_of(tmp_path, store={"store.server_pubkey_file": "other.pub"})
    assert problem.startswith("store.toml: store.server_pubkey_file: ") and "signer.pub" in problem
    assert problems_of(tmp_path, store={"store.server_pubkey_file": "./run/.." + "/signer.pub"})  # leads upwards: refused anyway
    assert problems_of(tmp_path, store={"store.server_pubkey_file": None, "store.server_pubkey": "02" + "11" * 32}) == []


def test_the_check_finds_a_signer_that_refuses_what_settlements_are_expected_to_cost(tmp_path):
    (problem,) = problems_of(tmp_path, "test", signer={"policy.fee_per_byte_max": 39})
    assert problem.startswith("signer.toml: policy.fee_per_byte_max: ") and "settlement.fee_per_byte" in problem
    assert problems_of(tmp_path, "test", signer={"policy.fee_per_byte_max": 40}) == []


def test_the_check_finds_a_signer_that_remembers_alone_beside_a_store_that_others_take_over(tmp_path):
    store = {"postgres.hosts": ["127.0.0.1"], "postgres.name": "a"}
    (problem,) = problems_of(tmp_path, store=store)
    assert problem.startswith("signer.toml: postgres: is missing")
    assert problems_of(tmp_path, store=store, signer={"postgres.hosts": ["127.0.0.1"]}) == []
    assert problems_of(tmp_path, "test", store=store) == []


def test_the_check_finds_a_signer_that_would_not_settle_what_the_open_price_pays_for(tmp_path):
    (problem,) = problems_of(tmp_path, signer={"policy.fee_share_percent_max": 29})
    assert problem.startswith("signer.toml: policy.fee_share_percent_max: ") and "open.price" in problem
    assert problems_of(tmp_path, signer={"policy.fee_share_percent_max": 30}) == []
    fixed = {"open.price": "fixed", "open.base_price": 70_000, "open.price_add_settlement_fee": True}
    assert problems_of(tmp_path, server=fixed, signer={"policy.fee_share_percent_max": 29}) == []


def test_the_check_looks_at_every_file_that_is_named(tmp_path):
    (problem,) = problems_of(tmp_path, server={"bitcoind.cookie_file": "none"})
    assert problem.startswith("server.toml: bitcoind.cookie_file: ") and "No such file" in problem and "makes it" in problem
    password = {"bitcoind.cookie_file": None, "bitcoind.user": "u", "bitcoind.password_file": "none"}
    (problem,) = problems_of(tmp_path, server=password)
    assert problem.startswith("server.toml: bitcoind.password_file: ")
    (tmp_path / "folder").mkdir(mode=0o700)
    (problem,) = problems_of(tmp_path, server=password | {"bitcoind.password_file": "folder"})
    assert problem.endswith("is not a regular file")
    fixture = {"chain.backend": "fixture", "chain.fixture_file": str(tmp_path / "none.json")}
    (problem,) = problems_of(tmp_path, "test", server=fixture)
    assert problem.startswith("server.toml: chain.fixture_file: ")


def test_a_node_that_is_started_beside_the_server_makes_its_cookie(tmp_path):
    """config/regtest has one, and must be well before its first start."""
    shutil.copytree(CONFIGS / "regtest", tmp_path / "regtest")
    (tmp_path / "state").mkdir()
    put_key(tmp_path / "state" / "signer.key", "11" * 32 + "\n")
    assert check(tmp_path / "regtest", tmp_path / "state") == (0, [])
    (tmp_path / "regtest" / "node.sh").unlink()
    (problem,) = check(tmp_path / "regtest", tmp_path / "state")[1]
    assert problem.startswith("server.toml: bitcoind.cookie_file: ")


@pytest.mark.parametrize("process", LOADERS)
def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path, process):
    path = tmp_path / f"{process}.toml"
    text = (CONFIGS / "debug" / f"{process}.toml").read_text()
    path.write_text(text)
    plain = LOADERS[process](path, {})
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert LOADERS[process](path, {}) == plain


def test_a_file_without_end_is_none_of_ours(tmp_path):
    with pytest.raises(ConfigError, match="is longer than"):
        load_server_config("/dev/zero", {})
