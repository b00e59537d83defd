"""The three processes' configurations: read from TOML, checked strictly, turned into frozen objects.

Every complaint is a `ConfigError` of one line that names the file and the key; the commands print it and exit with status 2.
Environment variables override `PORT`, `PAYCHAN_STATE_DIR`, `PAYCHAN_WORKERS`, and nothing else.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import network as networks
from .fees import FeeBounds
from .errors import ConfigError, Rejection
from .network import Network, decode_address
from .rpc.connection import Address
from .sharding import SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX
from .units import DUST_LIMIT, MAX_MONEY, SECONDS_PER_HOUR

SETTLEMENT_BYTES = 331
"""Bytes of a settlement transaction as v1 counts them for the open price (spec section 7). A real one has up to 348."""

SETTLEMENT_PERIOD_HOURS_LIVE_MIN = 4
"""Below it a settlement may miss its expiry on mainnet: block times drift by 2 h, and 6 blocks can take 2.8 h."""

EXIT_BAD_CONFIG = 2


@dataclass(frozen=True)
class Common:
    """What all three configurations have. `debug`: no real money, see each process for what it waives."""

    source: str
    network: Network
    state_dir: Path
    debug: bool
    clock_start: int | None



@dataclass(frozen=True)
class ChainConfig:
    """Where the chain is seen. tip_age_max: seconds since the best block's stamp after which the source is not trusted."""

    backend: str
    poll_seconds: int
    tip_age_max: int
    lookups_per_second: int
    fixture_file: Path | None
    bitcoind_url: str
    bitcoind_cookie_file: Path | None
    bitcoind_user: str
    bitcoind_password_file: Path | None
    bitcoind_wallet: str
    bitcoind_flavour: str
    esplora_urls: tuple[str, ...]
    esplora_agree: int


@dataclass(frozen=True)
class ServerConfig:
    """`paychan-server`: money in satoshi, times in seconds."""

    common: Common
    http_host: str
    http_port: int
    workers: int
    public_url: str
    store: Address
    signer: Address
    chain: ChainConfig
    base_price: int
    price_add_settlement_fee: bool
    funding_tx_min_conf: int
    confirmations_from: tuple[tuple[int, int], ...]
    funding_value_max: int
    duration_min: int
    duration_max: int
    settlement_period_hours: int
    fee_per_byte: int
    fee_bounds: FeeBounds
    settlement_confirmations: int
    channel_exposure_max: int
    total_exposure_max: int

    @property
    def settlement_period(self) -> int:
        """Seconds before expiry from which on no payment is taken and the channel is settled."""
        return self.settlement_period_hours * SECONDS_PER_HOUR

    def confirmations_needed(self, funding_value: int) -> int:
        """How many blocks must confirm a funding output of so many satoshi: the most that any row at or below it asks."""
        rows = (confirmations for value, confirmations in self.confirmations_from if funding_value >= value)
        return max(self.funding_tx_min_conf, *rows, 0)

    @property
    def open_price(self) -> int:
        """The least value of an opening payment (spec section 7)."""
        return self.base_price + (SETTLEMENT_BYTES * self.fee_per_byte if self.price_add_settlement_fee else 0)


@dataclass(frozen=True)
class StoreConfig:
    """`paychan-store`. `server_pubkey`: 33 bytes, or None: read from `server_pubkey_file`, which the signer writes."""

    common: Common
    address: Address
    shard_count: int
    lease_ms: int
    server_pubkey: bytes | None
    server_pubkey_file: Path


@dataclass(frozen=True)
class SignerConfig:
    """`paychan-signer`: its policy. Money in satoshi."""

    common: Common
    address: Address
    key_file: Path
    public_key_file: Path
    destination_script: bytes
    fee_per_byte_max: int
    fee_share_percent_max: int
    versions_max: int
    waive_funding_proof: bool


_MISSING = object()
_KIND_NAMES = {int: "an integer", str: "text", bool: "true or false", list: "a list"}


class _Section:
    """Reads one table of a TOML file; `finish` complains about keys that nobody asked for."""

    def __init__(self, source: str, name: str, values: Any) -> None:
        self.source, self.name = source, name
        if not isinstance(values, dict):
            self.fail("", "must be a table")
        self.values: dict[str, Any] = values
        self.known: set[str] = set()

    def fail(self, key: str, why: str) -> Any:
        path = ".".join(part for part in (self.name, key) if part)
        raise ConfigError(f"{self.source}: {path}: {why}")

    def table(self, key: str) -> "_Section":
        self.known.add(key)
        return _Section(self.source, key, self.values.get(key, {}))

    def _get(self, key: str, kind: type, default: Any) -> Any:
        self.known.add(key)
        value = self.values.get(key, default)
        if value is _MISSING:
            self.fail(key, "is missing")
        if type(value) is not kind and not (value is None and default is None):
            self.fail(key, f"must be {_KIND_NAMES[kind]}")
        return value

    def integer(self, key: str, low: int, high: int, default: Any = _MISSING) -> int:
        value = self._get(key, int, default)
        if not low <= value <= high:
            self.fail(key, f"must be from {low} to {high}")
        return value

    def text(self, key: str, default: Any = _MISSING) -> str:
        value = self._get(key, str, default)
        return value if value or default == "" else self.fail(key, "is empty")

    def optional_text(self, key: str) -> str | None:
        return self._get(key, str, None)

    def boolean(self, key: str, default: Any = _MISSING) -> bool:
        return self._get(key, bool, default)

    def texts(self, key: str, default: Any = _MISSING) -> tuple[str, ...]:
        values = self._get(key, list, default)
        if not all(type(value) is str and value for value in values):
            self.fail(key, "must be a list of texts")
        return tuple(values)

    def pairs(self, key: str, default: Any = _MISSING) -> tuple[tuple[int, int], ...]:
        values = self._get(key, list, default)
        for value in values:
            if type(value) is not list or len(value) != 2 or not all(type(n) is int and 0 <= n <= MAX_MONEY for n in value):
                self.fail(key, "must be a list of [satoshi, confirmations]")
        return tuple((value, confirmations) for value, confirmations in values)

    def address(self, key: str, state_dir: Path) -> Address:
        text = self.text(key)
        try:
            return Address.parse(text, state_dir)
        except ValueError as error:
            return self.fail(key, str(error))

    def finish(self, *tables: "_Section") -> None:
        self.finish_tables(self, *tables)

    def finish_tables(self, *tables: "_Section") -> None:
        for section in tables:
            for key in section.values:
                if key not in section.known:
                    section.fail(key, "is unknown")


def _read(path: str | os.PathLike[str]) -> _Section:
    source = os.fspath(path)
    try:
        with open(source, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{source}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: is no TOML: {' '.join(str(error).split())}") from error
    return _Section(source, "", values)


def _common(root: _Section, env: Mapping[str, str]) -> Common:
    name = root.text("network")
    if name not in networks.BY_NAME:
        root.fail("network", f"must be one of {', '.join(networks.BY_NAME)}")
    debug_table = root.table("debug")
    debug = debug_table.boolean("enable", False)
    if debug and name == "live":
        debug_table.fail("enable", "debug mode is refused on network live: it moves no money and loses it")
    configured_dir = root.text("state_dir")
    state_dir = Path(env.get("PAYCHAN_STATE_DIR") or configured_dir)
    clock = env.get("PAYCHAN_CLOCK_START")
    if clock is not None and not debug:
        raise ConfigError(f"{root.source}: debug.enable: PAYCHAN_CLOCK_START is refused outside debug mode")
    if clock is not None and not (clock.isascii() and clock.isdigit() and int(clock) < 1 << 32):
        raise ConfigError(f"{root.source}: PAYCHAN_CLOCK_START: must be unix seconds")
    return Common(root.source, networks.BY_NAME[name], state_dir, debug, int(clock) if clock is not None else None)


def _from_env(root: _Section, env: Mapping[str, str], name: str, low: int, high: int) -> int | None:
    text = env.get(name)
    if text is None or text == "":
        return None
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise ConfigError(f"{root.source}: {name}: the environment variable must be from {low} to {high}")
    return int(text)


def load_server_config(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> ServerConfig:
    """Return the checked `server.toml`. Raises ConfigError."""
    root = _read(path)
    common = _common(root, env)
    debug, http, peers = root.table("debug"), root.table("http"), root.table("processes")
    debug.known.add("enable")
    opening, settlement, exposure = root.table("open"), root.table("settlement"), root.table("exposure")
    port = http.integer("port", 1, 65535)
    workers = http.integer("workers", 1, 256, 1)
    fee_per_byte = settlement.integer("fee_per_byte", 1, 100_000)
    floor = settlement.integer("fee_per_byte_min", 1, 100_000, 1)
    config = ServerConfig(
        common=common,
        http_host=http.text("host", "127.0.0.1"),
        http_port=_from_env(root, env, "PORT", 1, 65535) or port,
        workers=_from_env(root, env, "PAYCHAN_WORKERS", 1, 256) or workers,
        public_url=http.text("public_url", "").rstrip("/"),
        store=peers.address("store", common.state_dir),
        signer=peers.address("signer", common.state_dir),
        chain=_chain_config(root, common),
        base_price=opening.integer("base_price", 0, MAX_MONEY),
        price_add_settlement_fee=opening.boolean("price_add_settlement_fee"),
        funding_tx_min_conf=opening.integer("funding_tx_min_conf", 0, 1000),
        confirmations_from=opening.pairs("confirmations_from", []),
        funding_value_max=opening.integer("funding_value_max", 1, MAX_MONEY, MAX_MONEY),
        duration_min=opening.integer("duration_hours_min", 0, 1_200_000) * SECONDS_PER_HOUR,
        duration_max=opening.integer("duration_hours_max", 1, 1_200_000) * SECONDS_PER_HOUR,
        settlement_period_hours=settlement.integer("period_hours", 1, 1000),
        fee_per_byte=fee_per_byte,
        fee_bounds=FeeBounds(floor, settlement.integer("fee_per_byte_max", floor, 100_000, 1000)),
        settlement_confirmations=settlement.integer("confirmations", 1, 1000, 6),
        channel_exposure_max=exposure.integer("channel_value_max", 0, MAX_MONEY, MAX_MONEY),
        total_exposure_max=exposure.integer("total_value_max", 0, MAX_MONEY, MAX_MONEY),
    )
    root.finish(debug, http, peers, opening, settlement, exposure)
    _check_server(root, config, opening, settlement)
    return config


def _chain_config(root: _Section, common: Common) -> ChainConfig:
    chain, bitcoind, esplora = root.table("chain"), root.table("bitcoind"), root.table("esplora")
    backend = chain.text("backend")
    paths = {
        key: Path(text) if text else None
        for key, text in (
            ("fixture_file", chain.optional_text("fixture_file")),
            ("cookie_file", bitcoind.optional_text("cookie_file")),
            ("password_file", bitcoind.optional_text("password_file")),
        )
    }
    urls = esplora.texts("urls", [])
    config = ChainConfig(
        backend=backend,
        poll_seconds=chain.integer("poll_seconds", 1, 600, 5),
        tip_age_max=chain.integer("tip_age_minutes_max", 1, 1_000_000, 180) * 60,
        lookups_per_second=chain.integer("lookups_per_second", 1, 10_000, 50),
        fixture_file=paths["fixture_file"],
        bitcoind_url=bitcoind.text("url", ""),
        bitcoind_cookie_file=paths["cookie_file"],
        bitcoind_user=bitcoind.text("user", ""),
        bitcoind_password_file=paths["password_file"],
        bitcoind_wallet=bitcoind.text("wallet", "paychan-watch"),
        bitcoind_flavour=bitcoind.text("flavour", "core"),
        esplora_urls=urls,
        esplora_agree=esplora.integer("agree", 1, 100, max(1, min(2, len(urls)))),
    )
    root.finish_tables(chain, bitcoind, esplora)
    _check_chain(config, common, chain, bitcoind, esplora)
    return config


def _check_chain(
    config: ChainConfig, common: Common, chain: _Section, bitcoind: _Section, esplora: _Section
) -> None:
    if config.backend not in ("debug", "fixture", "bitcoind", "esplora"):
        chain.fail("backend", "must be debug, fixture, bitcoind or esplora")
    if config.backend == "debug" and not (common.debug and common.network is networks.TEST):
        chain.fail("backend", "debug needs debug.enable and network test")
    if config.backend == "fixture" and common.network is networks.LIVE:
        chain.fail("backend", "fixture is refused on network live: it sees no real coins")
    if config.backend == "fixture" and config.fixture_file is None:
        chain.fail("fixture_file", "is missing")
    if config.backend == "bitcoind":
        if not config.bitcoind_url.startswith(("http://", "https://")):
            bitcoind.fail("url", "must start with http:// or https://")
        if (config.bitcoind_cookie_file is None) == (not config.bitcoind_user or config.bitcoind_password_file is None):
            bitcoind.fail("cookie_file", "give either cookie_file, or user and password_file")
        if config.bitcoind_flavour not in ("core", "bcoin"):
            bitcoind.fail("flavour", "must be core or bcoin")
        if config.bitcoind_flavour == "bcoin" and common.network is not networks.REGTEST:
            bitcoind.fail("flavour", "bcoin is for tests on network regtest")
    if config.backend == "esplora":
        if not config.esplora_urls:
            esplora.fail("urls", "is missing")
        if not all(url.startswith(("http://", "https://")) for url in config.esplora_urls):
            esplora.fail("urls", "must start with http:// or https://")
        if config.esplora_agree > len(config.esplora_urls):
            esplora.fail("agree", "exceeds the number of urls")


def _check_server(root: _Section, config: ServerConfig, opening: _Section, settlement: _Section) -> None:
    live = config.common.network is networks.LIVE
    if config.duration_max <= config.duration_min:
        opening.fail("duration_hours_max", "must exceed duration_hours_min")
    if config.public_url and not config.public_url.startswith(("http://", "https://")):
        root.fail("http.public_url", "must start with http:// or https://")
    fee = SETTLEMENT_BYTES * config.fee_per_byte
    if not config.common.debug and config.open_price < fee * 11 // 10 + DUST_LIMIT:
        opening.fail("base_price", "the open price must pay for a settlement's fee and an output above dust")
    if live and config.funding_tx_min_conf < 1:
        opening.fail("funding_tx_min_conf", "must be at least 1 on network live")
    if live and config.settlement_period_hours < SETTLEMENT_PERIOD_HOURS_LIVE_MIN:
        settlement.fail("period_hours", f"must be at least {SETTLEMENT_PERIOD_HOURS_LIVE_MIN} on network live")


def load_store_config(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> StoreConfig:
    """Return the checked `store.toml`. Raises ConfigError."""
    root = _read(path)
    common = _common(root, env)
    debug, section = root.table("debug"), root.table("store")
    debug.known.add("enable")
    key_hex = section.optional_text("server_pubkey")
    if key_hex is not None and not _is_pubkey_hex(key_hex):
        section.fail("server_pubkey", "must be 66 hexadecimal digits of a compressed public key")
    config = StoreConfig(
        common=common,
        address=section.address("address", common.state_dir),
        shard_count=section.integer("shard_count", 1, SHARD_COUNT_MAX, SHARD_COUNT_DEFAULT),
        lease_ms=section.integer("lease_ms", 200, 60_000, 3000),
        server_pubkey=bytes.fromhex(key_hex) if key_hex else None,
        server_pubkey_file=common.state_dir / section.text("server_pubkey_file", "signer.pub"),
    )
    root.finish(debug, section)
    return config


def load_signer_config(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> SignerConfig:
    """Return the checked `signer.toml`. Raises ConfigError."""
    root = _read(path)
    common = _common(root, env)
    debug, section, policy = root.table("debug"), root.table("signer"), root.table("policy")
    debug.known.add("enable")
    waive = debug.boolean("waive_funding_proof", False)
    if waive and not common.debug:
        debug.fail("waive_funding_proof", "needs debug.enable")
    address = policy.text("funds_destination_address")
    try:
        destination = decode_address(common.network, address)
    except Rejection:
        policy.fail("funds_destination_address", f"is no P2PKH or P2SH address of network {common.network.name}")
    config = SignerConfig(
        common=common,
        address=section.address("address", common.state_dir),
        key_file=common.state_dir / section.text("key_file", "signer.key"),
        public_key_file=common.state_dir / section.text("public_key_file", "signer.pub"),
        destination_script=destination,
        fee_per_byte_max=policy.integer("fee_per_byte_max", 1, 100_000),
        fee_share_percent_max=policy.integer("fee_share_percent_max", 1, 100),
        versions_max=policy.integer("versions_max", 1, 10_000, 100),
        waive_funding_proof=waive,
    )
    root.finish(debug, section, policy)
    return config


def _is_pubkey_hex(text: str) -> bool:
    return len(text) == 66 and text[:2] in ("02", "03") and all(digit in "0123456789abcdefABCDEF" for digit in text)
