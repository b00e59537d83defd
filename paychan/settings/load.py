"""The three processes' configurations: read from TOML, checked strictly, turned into frozen objects.

Complaints are lines that name the file and the key, raised as one `ConfigError`; the commands print the first and exit with
status 2. Environment variables override `PORT`, `PAYCHAN_STATE_DIR`, `PAYCHAN_WORKERS`, and nothing else.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ..core import network as networks
from ..core.errors import Rejection
from ..core.fees import FeeBounds
from ..core.network import Network, decode_address
from ..core.sharding import SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX
from ..core.units import DUST_LIMIT, MAX_MONEY, SECONDS_PER_HOUR
from ..logs import FORMS, LEVELS, LogConfig
from ..rpc.connection import Address
from . import dangers, hosts
from .cluster import cluster_config
from .events import read_events
from .limits import limits_config
from .metrics import metrics_config
from .models import SETTLEMENT_BYTES, ChainConfig, Common, SellConfig, ServerConfig, SignerConfig, StoreConfig
from .operator import operator_config
from .postgres import read_database, read_postgres
from .sections import Section, read_sections
from .tokens import tokens_file
from .users import read_users
from .webhooks import webhooks_config

RPC_PORTS = {"live": 8332, "test": 18332, "testnet4": 48332, "signet": 38332, "regtest": 18443}
"""On which Bitcoin Core answers RPC calls, by network."""

INSTANCE_VARIABLE = "PAYCHAN_INSTANCE"
"""How `paychan run` of several directories tells the processes of each what it is called."""

UNNOTED_VALUE = 100_000
"""Satoshi, on network live: a twentieth of what the shipped limits let be received on one channel."""

UNSETTLED_FACTOR = 2
"""What may be unsettled in all is so many times what may be received on open channels, unless the configuration says it."""

UNBOUNDED = (1 << 64) - 1
"""Satoshi: the most that the store's sum can be. In debug mode a few hundred channels hold more money than there is."""

FEE_SUM_PER_DAY = 5_000_000
"""Satoshi, on network live: a tenth of what the shipped exposure limits let be unsettled."""


def _common(root: Section, env: Mapping[str, str]) -> tuple[Common, Section]:
    """Return what all three files have, and the debug table."""
    name = root.text("network")
    if name and name not in networks.BY_NAME:
        root.fail("network", f"must be one of {', '.join(networks.BY_NAME)}")
    debug = root.table("debug")
    enabled = debug.boolean("enable", False)
    if enabled and name == "live":
        debug.fail("enable", "debug mode is refused on network live: it moves no money and loses it")
    configured_dir = root.text("state_dir")
    state_dir = Path(env.get("PAYCHAN_STATE_DIR") or configured_dir)
    clock = env.get("PAYCHAN_CLOCK_START")
    if clock is not None and not enabled:
        debug.fail("enable", "PAYCHAN_CLOCK_START is refused outside debug mode")
    elif clock is not None and not (clock.isascii() and clock.isdigit() and len(clock) <= 10 and int(clock) < 1 << 32):
        root.fail("PAYCHAN_CLOCK_START", "must be unix seconds")
    root.raise_problems()
    dangers.check_state_dir(root, state_dir, name == "live", enabled)
    users, log = read_users(root), _log_config(root, env)
    return Common(root.source, networks.BY_NAME[name], state_dir, enabled, int(clock) if clock else None, users, log), debug


def _log_config(root: Section, env: Mapping[str, str]) -> LogConfig:
    section = root.table("log")
    level, form = section.text("level", "info"), section.text("form", "text")
    if level not in LEVELS:
        section.fail("level", f"must be one of {', '.join(LEVELS)}")
    if form not in FORMS:
        section.fail("form", f"must be one of {', '.join(FORMS)}")
    return LogConfig(level, form, env.get(INSTANCE_VARIABLE, ""))


def _address(section: Section, key: str, common: Common, user: int | None) -> Address:
    """Return where a process of a user listens (None: of our own)."""
    return replace(section.address(key, common.state_dir), user=user, is_shared=user is not None)


def _from_env(root: Section, env: Mapping[str, str], name: str, low: int, high: int, configured: int) -> int:
    text = env.get(name, "")
    if not text:
        return configured
    if not (text.isascii() and text.isdigit() and len(text) <= 10) or not low <= int(text) <= high:
        root.fail(name, f"the environment variable must be from {low} to {high}")
        return configured
    return int(text)


def _host(section: Section, key: str, read: Callable[[str], str], default: str) -> str:
    text = section.text(key, default)
    try:
        return read(text) if text else default
    except ValueError as error:
        section.fail(key, str(error))
        return default


def load_server_config(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> ServerConfig:
    """Return the checked `server.toml`. Raises ConfigError."""
    root = read_sections(path)
    common, _ = _common(root, env)
    http, peers, opening = root.table("http"), root.table("processes"), root.table("open")
    direct = root.table("direct")
    settlement, exposure = root.table("settlement"), root.table("exposure")
    total_exposure_max = exposure.integer("total_value_max", 0, MAX_MONEY, MAX_MONEY)
    port, workers = http.integer("port", 1, 65535), http.integer("workers", 1, 256, 1)
    floor = settlement.integer("fee_per_byte_min", 1, 100_000, 1)
    chain = _chain_config(root, common)
    is_settlement = _price_is_settlement(opening, common, chain)
    config = ServerConfig(
        common=common,
        http_host=_host(http, "host", hosts.listening_address, "127.0.0.1"),
        http_port=_from_env(root, env, "PORT", 1, 65535, port),
        workers=_from_env(root, env, "PAYCHAN_WORKERS", 1, 256, workers),
        public_url=http.text("public_url", "").rstrip("/"),
        direct_base_port=direct.integer("base_port", 0, 65535, 0),
        direct_public_host=hosts.in_url(_host(direct, "public_host", hosts.host, "")),
        store=_address(peers, "store", common, common.users.store),
        signer=_address(peers, "signer", common, common.users.signer),
        chain=chain,
        price_is_settlement=is_settlement,
        base_price=opening.integer("base_price", 0, MAX_MONEY, 0 if is_settlement else None),
        price_add_settlement_fee=not is_settlement and opening.boolean("price_add_settlement_fee"),
        funding_tx_min_conf=opening.integer("funding_tx_min_conf", 0, 1000),
        confirmations_from=opening.pairs("confirmations_from"),
        funding_value_max=opening.integer("funding_value_max", 1, MAX_MONEY, MAX_MONEY),
        duration_min=opening.integer("duration_hours_min", 0, 1_200_000) * SECONDS_PER_HOUR,
        duration_max=opening.integer("duration_hours_max", 1, 1_200_000) * SECONDS_PER_HOUR,
        settlement_period_hours=settlement.integer("period_hours", 1, 1000),
        fee_per_byte=settlement.integer("fee_per_byte", 1, 100_000),
        fee_bounds=FeeBounds(floor, settlement.integer("fee_per_byte_max", floor, 100_000, 1000)),
        settlement_confirmations=settlement.integer("confirmations", 1, 1000, 6),
        channel_exposure_max=exposure.integer("channel_value_max", 0, MAX_MONEY, MAX_MONEY),
        total_exposure_max=total_exposure_max,
        unsettled_value_max=_unsettled_max(exposure, total_exposure_max),
        unnoted_value_max=exposure.integer("unnoted_value_max", 1, MAX_MONEY, _unnoted(common)),
        sell=_sell_config(root, common),
        cluster=cluster_config(root, common),
        metrics=metrics_config(root, common),
        limits=limits_config(root),
        operator=operator_config(root, common),
        webhooks=webhooks_config(root),
        expiring_notice=settlement.integer("expiring_notice_hours", 0, 10_000, 24) * SECONDS_PER_HOUR,
    )
    _check_server(config, root)
    root.finish(config)
    return config


def _price_is_settlement(opening: Section, common: Common, chain: ChainConfig) -> bool:
    """Return whether the open price is what the settlement costs: the default where the chain is many people's."""
    is_default = chain.has_network and not common.debug and common.network is not networks.REGTEST
    price = opening.text("price", "settlement" if is_default else "fixed")
    if price not in ("settlement", "fixed"):
        opening.fail("price", "must be settlement or fixed")
    if price == "settlement" and opening.has("price_add_settlement_fee"):
        opening.boolean("price_add_settlement_fee")
        opening.fail("price_add_settlement_fee", 'is of price = "fixed": the settlement\'s fee is the price')
    return price == "settlement"


def _unsettled_max(exposure: Section, total_exposure_max: int) -> int:
    """Return how many satoshi may be unsettled in all."""
    if exposure.has("unsettled_value_max"):
        return exposure.integer("unsettled_value_max", 0, MAX_MONEY)
    return UNSETTLED_FACTOR * total_exposure_max if exposure.has("total_value_max") else UNBOUNDED


def _sell_config(root: Section, common: Common) -> SellConfig:
    sell = root.table("sell")
    path = sell.path("socket")
    config = SellConfig(
        socket=None if path is None else common.state_dir.absolute() / path,
        host=_host(sell, "host", hosts.listening_address, "127.0.0.1"),
        port=sell.integer("port", 0, 65535, 0),
        tls_certificate=_in_state_dir(common, sell.path("tls_certificate")),
        tls_key=_in_state_dir(common, sell.path("tls_key")),
        tokens_file=tokens_file(common.state_dir),
    )
    if config.socket is not None:
        dangers.check_address(sell, "socket", Address(path=str(config.socket)), common.state_dir, False)
    if (config.tls_certificate is None) != (config.tls_key is None):
        sell.fail("tls_key", "tls_certificate and tls_key come together")
    if config.port and not hosts.is_loopback(config.host) and config.tls_key is None:
        sell.fail("tls_key", "is missing: tokens and sales would cross the network in plain text")
    if not config.port and (sell.has("host") or config.tls_key is not None):
        sell.fail("port", "is missing: host and TLS are for a port")
    dangers.check_secret_file(sell, "tls_key", config.tls_key, group_may_read=True)
    return config


def _unnoted(common: Common) -> int:
    """Return how many satoshi are received on a channel between two notes, unless the configuration says it."""
    return UNNOTED_VALUE if common.network is networks.LIVE else MAX_MONEY


def _check_server(config: ServerConfig, root: Section) -> None:
    opening = root.table("open")
    live = config.common.network.name == "live"
    for key, address in (("store", config.store), ("signer", config.signer)):
        dangers.check_address(root.table("processes"), key, address, config.common.state_dir, live)
    if config.duration_max <= config.duration_min:
        opening.fail("duration_hours_max", "must exceed duration_hours_min")
    fee = SETTLEMENT_BYTES * config.fee_per_byte
    is_free = config.common.debug or config.price_is_settlement
    if not is_free and config.open_price < fee * 11 // 10 + DUST_LIMIT:
        opening.fail("base_price", "the open price must pay for a settlement's fee and an output above dust")
    dangers.check_server(config, root)
    if not config.common.debug and config.common.network is not networks.REGTEST:
        bitcoind = root.table("bitcoind")
        dangers.check_secret_file(bitcoind, "cookie_file", config.chain.bitcoind_cookie_file, group_may_read=True)
        dangers.check_secret_file(bitcoind, "password_file", config.chain.bitcoind_password_file, group_may_read=False)
        dangers.check_password(bitcoind, "password_file", config.chain.bitcoind_password_file)


def _chain_config(root: Section, common: Common) -> ChainConfig:
    chain, bitcoind, esplora = root.table("chain"), root.table("bitcoind"), root.table("esplora")
    urls = esplora.texts("urls")
    config = ChainConfig(
        backend=chain.text("backend"),
        poll_seconds=chain.integer("poll_seconds", 1, 600, 5),
        tip_age_max=chain.integer("tip_age_minutes_max", 1, 1_000_000, 180) * 60,
        lookups_per_second=chain.integer("lookups_per_second", 1, 10_000, 50),
        fixture_file=chain.path("fixture_file"),
        bitcoind_host=_host(bitcoind, "host", hosts.host, "127.0.0.1"),
        bitcoind_port=bitcoind.integer("port", 1, 65535, RPC_PORTS[common.network.name]),
        bitcoind_cookie_file=_in_state_dir(common, bitcoind.path("cookie_file")),
        bitcoind_user=bitcoind.text("user", ""),
        bitcoind_password_file=_in_state_dir(common, bitcoind.path("password_file")),
        bitcoind_wallet=bitcoind.text("wallet", "paychan-watch"),
        bitcoind_watched_max=bitcoind.integer("watched_max", 100, 1_000_000, 10_000),
        esplora_urls=urls,
        esplora_agree=esplora.integer("agree", 1, 100, max(1, min(2, len(urls)))),
    )
    {"bitcoind": _check_bitcoind, "esplora": _check_esplora}.get(config.backend, _check_without_network)(
        config, common, {"chain": chain, "bitcoind": bitcoind, "esplora": esplora}
    )
    return config


def _in_state_dir(common: Common, path: Path | None) -> Path | None:
    """Return a path that is relative to the state directory, unless it is absolute."""
    return None if path is None else common.state_dir / path


def _check_without_network(config: ChainConfig, common: Common, sections: Mapping[str, Section]) -> None:
    chain = sections["chain"]
    if config.backend not in ("debug", "fixture"):
        chain.fail("backend", "must be debug, fixture, bitcoind or esplora")
    elif common.network is networks.LIVE:
        chain.fail("backend", f"{config.backend} is refused on network live: it sees no real coins")
    elif config.backend == "debug" and not (common.debug and common.network is networks.TEST):
        chain.fail("backend", "debug needs debug.enable and network test")
    elif config.backend == "fixture" and config.fixture_file is None:
        chain.fail("fixture_file", "is missing")


def _check_bitcoind(config: ChainConfig, _: Common, sections: Mapping[str, Section]) -> None:
    bitcoind = sections["bitcoind"]
    has_password = bool(config.bitcoind_user) and config.bitcoind_password_file is not None
    if (config.bitcoind_cookie_file is not None) == has_password:
        bitcoind.fail("cookie_file", "give either cookie_file, or user and password_file")


def _check_esplora(config: ChainConfig, common: Common, sections: Mapping[str, Section]) -> None:
    esplora = sections["esplora"]
    if not config.esplora_urls:
        esplora.fail("urls", "is missing")
    troubles = [why for url in config.esplora_urls if (why := hosts.trouble_with_url(url))]
    if troubles:
        esplora.fail("urls", troubles[0])
        return
    names = [hosts.host_of(url) for url in config.esplora_urls]
    if len(set(names)) < len(names):
        esplora.fail("urls", "names a host twice: it would agree with itself")
    plain = [hosts.host_of(url) for url in config.esplora_urls if url.startswith("http://")]
    if common.network is networks.LIVE and not all(map(hosts.is_loopback, plain)):
        esplora.fail("urls", "must be https:// on network live: whoever is on the way could be all of them")
    if config.esplora_agree > len(config.esplora_urls) > 0:
        esplora.fail("agree", "exceeds the number of urls")


def load_store_config(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> StoreConfig:
    """Return the checked `store.toml`. Raises ConfigError."""
    root = read_sections(path)
    common, _ = _common(root, env)
    section = root.table("store")
    key_hex = section.text("server_pubkey", "")
    if key_hex and not _is_pubkey_hex(key_hex):
        section.fail("server_pubkey", "must be 66 hexadecimal digits of a compressed public key")
        key_hex = ""
    config = StoreConfig(
        common=common,
        address=_address(section, "address", common, common.users.store),
        shard_count=section.integer("shard_count", 1, SHARD_COUNT_MAX, SHARD_COUNT_DEFAULT),
        lease_ms=section.integer("lease_ms", 200, 60_000, 3000),
        server_pubkey=bytes.fromhex(key_hex) if key_hex else None,
        server_pubkey_file=common.state_dir / section.text("server_pubkey_file", "signer.pub"),
        postgres=read_postgres(root.table("postgres")) if root.has("postgres") else None,
        events=read_events(root.table("events")),
    )
    dangers.check_address(section, "address", config.address, common.state_dir, common.network is networks.LIVE)
    if common.network is networks.LIVE and config.postgres is not None and config.postgres.lease_ms < 2 * config.lease_ms:
        root.table("postgres").fail("lease_ms", "must be twice store.lease_ms at least: so long a worker may answer what it knows")
    if why := dangers.trouble_with_path(config.server_pubkey_file):
        section.fail("server_pubkey_file", why)
    root.finish(config)
    return config


def load_signer_config(path: str | os.PathLike[str], env: Mapping[str, str] = os.environ) -> SignerConfig:
    """Return the checked `signer.toml`. Raises ConfigError."""
    root = read_sections(path)
    common, debug = _common(root, env)
    section, policy = root.table("signer"), root.table("policy")
    waive = debug.boolean("waive_funding_proof", False)
    if waive and not common.debug:
        debug.fail("waive_funding_proof", "needs debug.enable")
    config = SignerConfig(
        common=common,
        address=_address(section, "address", common, common.users.signer),
        key_file=common.state_dir / section.text("key_file", "signer.key"),
        public_key_file=common.state_dir / section.text("public_key_file", "signer.pub"),
        destination_script=_destination(policy, common.network),
        fee_per_byte_max=policy.integer("fee_per_byte_max", 1, 100_000),
        fee_share_percent_max=policy.integer("fee_share_percent_max", 1, 100),
        versions_max=policy.integer("versions_max", 1, 10_000, 100),
        settlement_period=policy.integer("settlement_period_hours", 1, 1000, 6) * SECONDS_PER_HOUR,
        fee_sum_per_day_max=policy.integer("fee_sum_per_day_max", 0, MAX_MONEY, _fee_sum(common)),
        waive_funding_proof=waive,
        hardening_required=section.boolean("hardening_required", common.network is networks.LIVE),
        postgres=read_database(root.table("postgres"), "paychan_signer") if root.has("postgres") else None,
    )
    dangers.check_address(section, "address", config.address, common.state_dir, common.network is networks.LIVE)
    dangers.check_signer(config, root)
    root.finish(config)
    return config


def _fee_sum(common: Common) -> int:
    """Return how many satoshi of fees a signer signs in a day unless the configuration says it."""
    return FEE_SUM_PER_DAY if common.network is networks.LIVE else MAX_MONEY


def _destination(policy: Section, network: Network) -> bytes:
    address = policy.text("funds_destination_address")
    try:
        return decode_address(network, address)
    except Rejection:
        if address:
            policy.fail("funds_destination_address", f"is no address of network {network.name}")
        return b""


def _is_pubkey_hex(text: str) -> bool:
    return len(text) == 66 and text[:2] in ("02", "03") and all(digit in "0123456789abcdefABCDEF" for digit in text)
